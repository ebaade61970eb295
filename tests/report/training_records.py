"""A record of a training run, as `training.json` holds it."""

from __future__ import annotations

from typing import Any


def training_record(**changes: Any) -> dict[str, Any]:
    """Return a record with two designs, two passes and dev figures."""
    rows = [
        {
            "quantity": "log_ratio",
            "passes": ["together", "apart"],
            "depth": 3,
            "ridge": ridge,
            "ndcg_at_10": ndcg,
            "by_source": {"novels": ndcg - 0.1, "seas": ndcg + 0.1},
            "chosen": ndcg == 0.812,
        }
        for ridge, ndcg in ((0.003, 0.7), (0.03, 0.812))
    ]
    record: dict[str, Any] = {
        "format": 1,
        "command": "at2-rag train novels.jsonl --output out",
        "settings": {
            "model": "tiny",
            "signal": "evidence",
            "target": "question",
            "reading": "independent",
            "seed": 7,
            "folds": 5,
            "masks": 32,
            "answers": "generated",
            "answer_tokens": 24,
        },
        "reading": "independent",
        "judged_over": "gold chunks",
        "data": [{"name": "novels.jsonl", "sha256": "0" * 64, "examples": 1234}],
        "samples": {"novels": 1000, "seas": 200},
        "left_out": {"without both gold and other chunks": 34},
        "candidates": rows,
        "learning_curve": [
            {"share": 0.5, "samples": 480.0, "figures": {"ndcg_at_10": 0.765}},
            {"share": 1.0, "samples": 960.0, "figures": {"ndcg_at_10": 0.812}},
        ],
        "head_importance": {
            "passes": ["together", "apart"],
            "values": [[[0.0, 0.5], [1.0, 0.25], [0.0, 0.0]], [[2.0, 0.1], [0.3, 0.0], [0.0, 0.4]]],
        },
        "dev": {
            "data": [],
            "examples": {"novels": 40, "seas": 2},
            "left_out": {"without gold": 3},
            "shared_with_training": 0,
            "ndcg_at_10": 0.901,
            "by_source": {"novels": 0.911, "seas": 0.891},
            "gold_first": 0.75,
            "gold_first_by_source": {"novels": 0.5, "seas": 1.0},
        },
        "versions": {"python": "3.11.0", "at2-rag": "0.1.0"},
        "run": {
            "seconds": {"reading": 1234.5},
            "peak_memory_mb": 1500,
            "machine": {"system": "Linux", "processor": "x86_64", "cores": 2},
        },
    }
    return {**record, **changes}


def ablation_record() -> dict[str, Any]:
    """Return a record of training on ablations; one design has no faithfulness."""
    record = training_record(reading="joint", judged_over="chunks that add at least 1.0 nats")
    record["settings"] |= {"signal": "ablation", "target": "answer"}
    for row, faithful in zip(record["candidates"], (None, 0.432), strict=True):
        row |= {"objective": "drops", "faithfulness": faithful, "faithfulness_by_source": {}}
    for point, faithful in zip(record["learning_curve"], (0.4, 0.432), strict=True):
        point["figures"]["faithfulness"] = faithful
    return record
