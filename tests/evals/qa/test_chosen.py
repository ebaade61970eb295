"""Budgets chosen on one run and judged in another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from at2_rag.data.bootstrap import Estimate
from at2_rag.data.examples import Example
from at2_rag.errors import InputError
from at2_rag_evals.items import content_hash
from at2_rag_evals.qa.chosen import Choice, choose_budgets
from at2_rag_evals.qa.results_folder import FORMAT
from at2_rag_evals.qa.run import CellName
from tests.evals.labelled_items import make_item

ITEMS = [make_item(f"dev{n}", "g---", source="dev") for n in range(3)]
TOPS = [CellName("at2", f"top {k}", "score") for k in (1, 2, 3)]


def settings(
    *, weights: str = "w", torch: str = "2", gold_position: bool = False, prompt: str = "{question}"
) -> dict[str, Any]:
    """Return the settings of a run, as far as choosing reads them."""
    return {
        "gold_position": gold_position,
        "prompt": prompt,
        "generators": {"g": {"model_files_sha256": "m", "answer_tokens": 32, "torch": torch}},
        "pruners": {"at2": {"model_files_sha256": "m", "head_weights_sha256": weights}},
    }


def choose(
    folder: Path,
    cells: Sequence[CellName] = TOPS,
    items: Sequence[Example] = ITEMS,
    *,
    generator: str = "g",
    **here: Any,
) -> list[Choice]:
    judged = {generator: cells}
    return choose_budgets(folder, judged=judged, items=items, settings=settings(**here))


def finished(
    folder: Path, accuracy: Sequence[float], items: Sequence[Example] = (make_item("t", "g---"),)
) -> Path:
    """Write what a run of `none` and of at2 with these accuracies leaves; tokens rise with k."""
    cells = [CellName("none"), *TOPS[: len(accuracy)]]
    estimates = {
        cell.label: asdict(Estimate(mean, mean - 0.1, mean + 0.1, 9, 9))
        for cell, mean in zip(cells, [0.9, *accuracy], strict=True)
    }
    generator = {
        "name": "g",
        "cells": [{"label": cell.label, **asdict(cell)} for cell in cells],
        "by_source": {"accuracy": {"macro": estimates}},
        "context_tokens": {"macro": {cell.label: n * 100 for n, cell in enumerate(cells)}},
    }
    keys = ("generator", "pruner", "budget", "order", "gold_position", "cluster", "metrics")
    rows = [
        dict.fromkeys(keys)
        | {"source": item.source, "id": item.id, "content": content_hash(item.query, item.chunks)}
        for item in items
    ]
    folder.mkdir()
    write_summary(folder, [generator])
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def write_summary(folder: Path, generators: Sequence[Any], *, gold_position: bool = False) -> None:
    summary = {"eval": "qa", "format": FORMAT, "generators": generators}
    summary["settings"] = settings(gold_position=gold_position)
    (folder / "summary.json").write_text(json.dumps(summary))


@pytest.mark.parametrize(
    ("accuracy", "best"),
    [
        ((0.2, 0.5, 0.4), "top 2"),
        ((0.5, 0.4, 0.5), "top 1"),  # level: the one with fewer tokens
        (((0.3 + 0.2 + 0.1) / 3, (0.1 + 0.2 + 0.3) / 3), "top 1"),  # level but for rounding
    ],
)
def test_the_highest_accuracy_and_then_the_fewest_tokens(
    tmp_path: Path, accuracy: tuple[float, ...], best: str
) -> None:
    assert 0.3 + 0.2 + 0.1 != 0.1 + 0.2 + 0.3
    [choice] = choose(finished(tmp_path / "train", accuracy), [CellName("none"), *TOPS])
    assert (choice.generator, choice.cell.budget) == ("g", best)
    assert choice.accuracy.mean == pytest.approx(max(accuracy))


def test_runs_that_budgets_cannot_be_chosen_on_are_refused(tmp_path: Path) -> None:
    folder = finished(tmp_path / "train", (0.1, 0.5), ITEMS[:2])
    turned = replace(ITEMS[0], chunks=ITEMS[0].chunks[::-1])  # another order is no other item
    for items, shared in ((ITEMS, "2 of 3"), ([turned], "1 of 1")):
        with pytest.raises(InputError, match=f"{shared} items were in the run train, too"):
            choose(folder, items=items)
    others = ITEMS[2:]
    assert len(choose(folder, items=others, torch="3")) == 1  # versions may differ
    with pytest.raises(InputError, match="aren't all judged here; add these: at2, top 2 for g"):
        choose(folder, TOPS[:1], others)
    with pytest.raises(InputError, match="no budget of a pruner and generator"):
        choose(folder, items=others, generator="other")
    with pytest.raises(InputError, match="something else .*: head_weights_sha256 of at2; choose"):
        choose(folder, items=others, weights="others")
    with pytest.raises(InputError, match="something else .*: the prompt; choose"):
        choose(folder, items=others, prompt="Say: {question}")
    (folder / "items.jsonl").write_text("[]\n")
    with pytest.raises(InputError, match="can't be read"):
        choose(folder, items=others)
    write_summary(folder, [], gold_position=True)
    with pytest.raises(InputError, match="is a run with --gold-position"):
        choose(folder, items=others)
    (folder / "summary.json").unlink()
    with pytest.raises(InputError, match=r"no summary\.json"):
        choose(folder, items=others)
