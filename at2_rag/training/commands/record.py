"""What a training run leaves behind beside the weights: `training.json`."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from at2_rag.data.examples import Example
from at2_rag.text.chunks import replace_surrogates
from at2_rag.training.fitting import samples
from at2_rag.training.fitting.cross_validation import rounded
from at2_rag.training.fitting.dev import DevFigures
from at2_rag.training.fitting.trainer import Training

RECORD_FORMAT = 4
RECORD_FILE, PAGE_FILE = "training.json", "training.html"

_PACKAGES = ("at2-rag", "matplotlib", "numpy", "scipy", "tokenizers", "torch", "transformers")


def training_record(
    training: Training,
    *,
    command: str,
    settings: Mapping[str, Any],
    data: Sequence[Mapping[str, Any]],
    dev: Mapping[str, Any] | None,
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """Return everything known about a run, JSON-ready; only `run` differs when it is repeated."""
    judged_over = {
        "gold": "gold chunks",
        "ablation": f"chunks that add at least {samples.LEAST_CONTRIBUTION} nats to the "
        f"log-likelihood of the {settings['target']}",
        "teacher": "the chunks that the teacher ranks first",
    }
    return {
        "format": RECORD_FORMAT,
        "command": command,
        "settings": dict(settings),
        "reading": training.weights.reading,
        "judged_by": training.judged_by,
        "judged_over": judged_over[training.judged_by],
        "data": list(data),
        "samples": dict(training.samples),
        "left_out": dict(training.left_out),
        "candidates": [
            {
                "quantity": result.candidate.spec.quantity,
                "passes": list(result.candidate.spec.passes),
                "depth": result.candidate.depth,
                "ridge": result.candidate.ridge,
                **result.figures(),
                "chosen": result is training.chosen,
            }
            for result in training.results
        ],
        "head_importance": {
            "passes": list(training.weights.spec.passes),
            "values": [
                [[float(f"{value:.5g}") for value in row] for row in of_pass]
                for of_pass in training.importance.tolist()
            ],
        },
        "dev": dev,
        "versions": {"python": platform.python_version(), **{p: version(p) for p in _PACKAGES}},
        "run": {
            "seconds": {name: round(value, 1) for name, value in seconds.items()},
            "peak_memory_mb": peak_memory_mb(),
            "machine": {
                "system": platform.system(),
                "processor": platform.machine(),
                "cores": os.cpu_count(),
            },
        },
    }


def file_records(
    paths: Sequence[str | Path], examples: Sequence[Sequence[Example]]
) -> list[dict[str, Any]]:
    """Return each file's name, without its folder, its SHA-256 and how many examples it holds."""
    records = []
    for path, of_file in zip(map(Path, paths), examples, strict=True):
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        name = replace_surrogates(path.name)
        records.append({"name": name, "sha256": digest, "examples": len(of_file)})
    return records


def dev_record(
    figures: DevFigures,
    *,
    data: Sequence[Mapping[str, Any]],
    left_out: Mapping[str, int],
    shared: int,
) -> dict[str, Any]:
    """Return the figures on dev examples, JSON-ready; `shared` is what `count_shared` returned."""
    return {
        "data": list(data),
        "examples": dict(figures.examples),
        "left_out": dict(left_out),
        "shared_with_training": shared,
        "ndcg_at_10": round(figures.ndcg, 4),
        "by_source": rounded(figures.ndcg_by_source),
        "gold_first": round(figures.gold_first, 4),
        "gold_first_by_source": rounded(figures.gold_first_by_source),
        "as_retrieved": {
            "ndcg_at_10": round(figures.ndcg_as_retrieved, 4),
            "gold_first": round(figures.gold_first_as_retrieved, 4),
        },
        "gain_interval": figures.gain and [round(end, 4) for end in figures.gain],
    }


def peak_memory_mb() -> int | None:
    """Return the most memory the process has held so far, in MB; None where it isn't known."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6)
