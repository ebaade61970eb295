"""Budgets chosen on one run and judged in another."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from at2_rag.errors import InputError
from at2_rag.training.examples import Example
from at2_rag_evals.items import content_hash
from at2_rag_evals.qa.chosen import choose_budgets
from at2_rag_evals.qa.folder_format import FORMAT
from at2_rag_evals.qa.run import CellName
from tests.evals.labelled_items import make_item

ITEMS = [make_item(f"dev{n}", "g---", source="dev") for n in range(3)]
TOPS = [CellName("at2", f"top {k}", "score") for k in (1, 2, 3)]


def estimate(mean: float) -> dict[str, float | int]:
    return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "n": 9, "clusters": 9}


def finished(
    folder: Path,
    accuracy: Mapping[str, float],
    tokens: Mapping[str, float],
    items: Sequence[Example],
) -> Path:
    """Write what a finished run over some items leaves, as far as choosing reads it."""
    cells: list[dict[str, Any]] = [
        {"label": "none", "pruner": "none", "budget": None, "order": None}
    ]
    cells += [
        {"label": cell.label, "pruner": "at2", "budget": cell.budget, "order": "score"}
        for cell in TOPS
        if cell.label in accuracy
    ]
    generator = {
        "name": "g",
        "cells": cells,
        "by_source": {
            "accuracy": {"macro": {name: estimate(own) for name, own in accuracy.items()}}
        },
        "context_tokens": {"macro": dict(tokens)},
    }
    folder.mkdir()
    summary = {"eval": "qa", "format": FORMAT, "generators": [generator]}
    (folder / "summary.json").write_text(json.dumps(summary))
    rows = [{"content": content_hash(item.query, item.chunks)} for item in items]
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.parametrize(
    ("accuracy", "best"),
    [
        ((0.2, 0.5, 0.4), "top 2"),
        ((0.5, 0.4, 0.5), "top 1"),  # level: the one with fewer tokens
        ((0.1, 0.2, 0.3), "top 3"),
    ],
)
def test_the_highest_accuracy_and_then_the_fewest_tokens(
    tmp_path: Path, accuracy: tuple[float, ...], best: str
) -> None:
    labels = [cell.label for cell in TOPS]
    folder = finished(
        tmp_path / "train",
        {"none": 0.9, **dict(zip(labels, accuracy, strict=True))},
        {"none": 900, **dict(zip(labels, (100, 200, 300), strict=True))},
        [make_item("t", "g---")],
    )
    judged = [("g", CellName("none")), *(("g", cell) for cell in TOPS)]
    [choice] = choose_budgets(folder, judged=judged, items=ITEMS)
    assert (choice.generator, choice.cell.budget) == ("g", best)
    assert choice.accuracy.mean == max(accuracy)


def test_what_can_not_be_chosen_from_is_refused(tmp_path: Path) -> None:
    label = TOPS[1].label
    folder = finished(tmp_path / "train", {label: 0.5}, {label: 100}, ITEMS[:2])
    judged = [("g", TOPS[1])]
    with pytest.raises(InputError, match="2 of 3 items were in the run train, too"):
        choose_budgets(folder, judged=judged, items=ITEMS)
    others = ITEMS[2:]
    assert len(choose_budgets(folder, judged=judged, items=others)) == 1
    with pytest.raises(InputError, match="is top 2, which isn't judged here; add it"):
        choose_budgets(folder, judged=[("g", TOPS[0])], items=others)
    with pytest.raises(InputError, match="no budget of a pruner and generator"):
        choose_budgets(folder, judged=[("other", TOPS[1])], items=others)
    (folder / "items.jsonl").write_text("[]\n")
    with pytest.raises(InputError, match="can't be read"):
        choose_budgets(folder, judged=judged, items=others)
    with pytest.raises(InputError, match=r"no summary\.json"):
        (folder / "items.jsonl").write_text("")
        (folder / "summary.json").unlink()
        choose_budgets(folder, judged=judged, items=others)
