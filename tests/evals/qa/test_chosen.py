"""Budgets chosen on one run and judged in another."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from at2_rag.data.examples import Example
from at2_rag.errors import InputError
from at2_rag_evals.items import content_hash
from at2_rag_evals.qa.chosen import Choice, choose_budgets
from at2_rag_evals.qa.results_folder import FORMAT
from at2_rag_evals.qa.run import CellName
from tests.evals.labelled_items import make_item

ITEMS = [make_item(f"dev{n}", "g---", source="dev") for n in range(3)]
TOPS = [CellName("at2", f"top {k}", "score") for k in (1, 2, 3)]


def estimate(mean: float) -> dict[str, float | int]:
    return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "n": 9, "clusters": 9}


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
    cells: Sequence[CellName],
    items: Sequence[Example] = ITEMS,
    *,
    generator: str = "g",
    here: Mapping[str, Any] | None = None,
) -> list[Choice]:
    return choose_budgets(
        folder, judged={generator: cells}, items=items, settings=here or settings()
    )


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
            "accuracy": {"macro": {name: estimate(mean) for name, mean in accuracy.items()}}
        },
        "context_tokens": {"macro": dict(tokens)},
    }
    folder.mkdir()
    summary = {
        "eval": "qa",
        "format": FORMAT,
        "generators": [generator],
        "settings": settings(gold_position=False),
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    rows = [
        {
            **dict.fromkeys(("generator", "pruner", "budget", "order", "gold_position")),
            "source": item.source,
            "id": item.id,
            "content": content_hash(item.query, item.chunks),
            "cluster": 0,
            "metrics": {},
        }
        for item in items
    ]
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
    [choice] = choose(folder, [CellName("none"), *TOPS])
    assert (choice.generator, choice.cell.budget) == ("g", best)
    assert choice.accuracy.mean == max(accuracy)


def test_equal_accuracies_of_several_sources_are_equal_whatever_their_rounding(
    tmp_path: Path,
) -> None:
    means = [sum(sources) / 3 for sources in ((0.1, 0.2, 0.3), (0.3, 0.2, 0.1))]
    assert means[0] != means[1]  # by the last bit
    accuracy = dict(zip([cell.label for cell in TOPS], sorted(means), strict=False))
    tokens = {label: 100.0 * number for number, label in enumerate(accuracy, start=1)}
    folder = finished(tmp_path / "train", accuracy, tokens, [make_item("t", "g---")])
    [choice] = choose(folder, TOPS)
    assert choice.cell.budget == "top 1"


def test_what_can_not_be_chosen_from_is_refused(tmp_path: Path) -> None:
    label = TOPS[1].label
    folder = finished(tmp_path / "train", {label: 0.5}, {label: 100}, ITEMS[:2])
    turned = replace(ITEMS[0], chunks=ITEMS[0].chunks[::-1])  # another order is no other item
    for items, shared in ((ITEMS, "2 of 3"), ([turned], "1 of 1")):
        with pytest.raises(InputError, match=f"{shared} items were in the run train, too"):
            choose(folder, TOPS, items)
    others = ITEMS[2:]
    assert len(choose(folder, TOPS, others)) == 1
    with pytest.raises(InputError, match="aren't all judged here; add these: at2, top 2 for g"):
        choose(folder, TOPS[:1], others)
    with pytest.raises(InputError, match="no budget of a pruner and generator"):
        choose(folder, TOPS, others, generator="other")
    (folder / "items.jsonl").write_text("[]\n")
    with pytest.raises(InputError, match="can't be read"):
        choose(folder, TOPS, others)
    (folder / "summary.json").unlink()
    with pytest.raises(InputError, match=r"no summary\.json"):
        choose(folder, TOPS, others)


def test_a_run_of_something_else_is_refused_and_of_other_versions_is_not(tmp_path: Path) -> None:
    label = TOPS[0].label
    folder = finished(tmp_path / "train", {label: 0.5}, {label: 100}, [make_item("t", "g---")])
    assert len(choose(folder, TOPS, here=settings(torch="3"))) == 1
    with pytest.raises(InputError, match="something else .*: head_weights_sha256 of at2; choose"):
        choose(folder, TOPS, here=settings(weights="others"))
    with pytest.raises(InputError, match="something else .*: the prompt; choose"):
        choose(folder, TOPS, here=settings(prompt="Say: {question}"))
    summary = json.loads((folder / "summary.json").read_text())
    summary["settings"] = settings(gold_position=True)
    (folder / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(InputError, match="is a run with --gold-position"):
        choose(folder, TOPS)
