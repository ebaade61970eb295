"""The `at2-rag prune` command with calibrated head weights."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from at2_rag import AT2Pruner
from at2_rag.cli.group import main
from at2_rag.readout.calibration import Calibration
from at2_rag.readout.multi_hop import MultiHop
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import random_weights

QUERY = "Who wrote Emma?"
PASSAGES: list[dict[str, Any]] = [
    {"text": "The river flows through the old town.", "retrieval_score": 0.1},
    {"text": "Jane Austen wrote Emma.", "retrieval_score": 0.7},
    {"text": "The bridge was opened in 1932.", "retrieval_score": 0.4},
    {"text": "Water boils at a hundred degrees."},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Path:
    """Return a folder with a model, head weights that learned everything, and passages."""
    folder = tmp_path_factory.mktemp("calibrated")
    (folder / "model").symlink_to(model_folder)
    weights = random_weights(tiny_model(), tiny_tokenizer(), "together", "apart")
    learned = dataclasses.replace(
        weights,
        calibration=Calibration(-weights.weight, 0.25, (0.3, 0.9, 0.1, 1.0), (0.2, 0.2, 1.5)),
        prior_weight=0.8,
        cosine_weight=3.0,
        multi_hop=MultiHop(2 * weights.weight[0], 0.2, (0.2, 0.7, 0.1, 0.3)),
    )
    learned.save(folder / "weights")
    lines = "".join(json.dumps(passage) + "\n" for passage in PASSAGES)
    (folder / "passages.jsonl").write_text(lines)
    return folder


def prune(folder: Path, *arguments: str) -> Any:
    command = ["prune", "--query", QUERY, "--json", str(folder / "passages.jsonl")]
    command += ["--model", str(folder / "model"), "--dtype", "float32"]
    return CliRunner().invoke(main, [*command, *arguments])


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((), {}),
        (("--min-probability", "0.5"), {"min_probability": 0.5}),
        (("--top-k", "4", "--keep-duplicates"), {"top_k": 4, "max_overlap": None}),
        (("--max-missed", "0.2", "--no-multi-hop"), {"max_missed": 0.2, "multi_hop": False}),
        (("--top-k", "3", "--prior", "score"), {"top_k": 3, "prior": "score"}),
        (("--if-unanswerable", "keep_none"), {"if_unanswerable": "keep_none"}),
    ],
)
def test_the_command_does_as_the_pruner(
    folder: Path, arguments: tuple[str, ...], options: dict[str, Any]
) -> None:
    pruner = AT2Pruner.from_pretrained(
        folder / "model", head_weights=folder / "weights", dtype="float32"
    )
    expected = pruner.prune(QUERY, PASSAGES, **options)
    ran = prune(folder, "--head-weights", str(folder / "weights"), *arguments)
    assert ran.exit_code == 0, ran.output
    shown = json.loads(ran.stdout)
    assert [chunk["index"] for chunk in shown["kept"]] == [chunk.index for chunk in expected.kept]
    scores = [chunk.score for chunk in expected.kept]
    assert [chunk["score"] for chunk in shown["kept"]] == pytest.approx(scores, abs=1e-5)
    assert shown["answerable"] == pytest.approx(expected.answerable)


def test_without_a_limit_others_need_one(folder: Path) -> None:
    ran = prune(folder, "--head-weights", "uniform")
    assert ran.exit_code == 1
    assert "no limit was given" in ran.output and "calibrated head weights" in ran.output
