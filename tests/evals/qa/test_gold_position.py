"""Gold in five places: moved by hand, and a generator that reads the first chunk alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import pytest

from at2_rag_evals.qa.budgets import Budget
from at2_rag_evals.qa.generators.base import Answer, Failure
from at2_rag_evals.qa.gold_position import (
    SHARES,
    movable_items,
    summarise_positions,
    with_gold_at,
)
from at2_rag_evals.qa.items import QASet
from at2_rag_evals.qa.pruners.registry import make_pruners
from at2_rag_evals.qa.request import QARequest
from at2_rag_evals.qa.run import Plan, run_cells
from tests.evals.labelled_items import make_item, write_items
from tests.evals.qa.command import lines, run


class FirstChunkReader:
    """Answers with the first passage it is given."""

    name = "first-chunk reader"
    settings: Mapping[str, object] = MappingProxyType({})

    def count(self, text: str) -> int:
        return len(text.split())

    def answer(self, prompts: Sequence[str]) -> Iterator[tuple[int, Answer | Failure]]:
        for index, prompt in enumerate(prompts):
            yield index, Answer(prompt.split("\n\n")[1], self.count(prompt), 1, 0.1)


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [(5, [0, 1, 2, 3, 4]), (6, [0, 1, 3, 4, 5]), (10, [0, 2, 5, 7, 9])],
)
def test_places_by_hand(chunks: int, expected: list[int]) -> None:
    item = make_item("a", "--g" + "-" * (chunks - 3))
    moved = [with_gold_at(item, share) for share in SHARES.values()]
    assert [one.labels.index(True) for one in moved] == expected
    for one in moved:
        assert one.gold == item.gold and set(one.chunks) == set(item.chunks)
        assert [chunk for chunk in one.chunks if chunk not in one.gold] == [
            chunk for chunk in item.chunks if chunk not in item.gold
        ]


def test_items_that_have_no_one_gold_chunk_to_move_are_counted() -> None:
    items = [make_item(mark, mark) for mark in ("g----", "g-g--", "-----", "g---")]
    movable = movable_items(QASet(tuple(items), {"novels": {"no answers": 1}}, {}))
    assert [item.id for item in movable.items] == ["g----"]
    reasons = {"no answers": 1, "not exactly one gold chunk": 2, "fewer than 5 chunks": 1}
    assert movable.left_out == {"novels": reasons}


def test_a_reader_of_the_first_chunk_is_right_when_gold_comes_first(tmp_path: Path) -> None:
    items = [
        make_item(str(n), "-----g", source="ab"[n % 2], answers=[f"{'ab'[n % 2]} {n} passage 5"])
        for n in range(8)
    ]
    names = ("none", "oracle", "first_k", "last_k")
    pruners = make_pruners(QARequest(output=tmp_path, pruners=names))
    results = {
        position: run_cells(
            Plan(
                items=[with_gold_at(item, share) for item in items],
                generators=[FirstChunkReader()],
                pruners=pruners,
                budgets=[Budget(top_k=2)],
                orders=["score", "original"],
            )
        )
        for position, share in SHARES.items()
    }
    summary = summarise_positions(items, results, range(8), seed=0)
    means = {
        position: {cell: estimate.mean for cell, estimate in cells.items()}
        for position, cells in summary.accuracy["macro"].items()
    }
    assert [cells["none"] for cells in means.values()] == [1, 0, 0, 0, 0]
    assert [cells["oracle"] for cells in means.values()] == [1] * 5
    assert [cells["first_k, top 2"] for cells in means.values()] == [1, 0, 0, 0, 0]
    # The last two chunks are places 4 and 5; gold in three-quarter place is the first of them.
    assert [cells["last_k, top 2"] for cells in means.values()] == [0, 0, 0, 1, 0]
    assert summary.minus_first["a"]["last"]["none"].mean == -1
    assert summary.minus_first["macro"].keys() == {"quarter", "middle", "three-quarter", "last"}


def test_the_command_moves_gold_and_keeps_both_orders(tmp_path: Path, scoring_folder: Path) -> None:
    items = [make_item(f"n{n}", "-g----", answers=["sea"]) for n in range(3)]
    path = write_items(tmp_path / "novels.jsonl", [*items, make_item("x", "gg---", answers=["y"])])
    options = ("--generator", scoring_folder, "--answer-tokens", 1, "--output", tmp_path / "out")
    pruners = ("--pruner", "none", "--pruner", "bm25", "--top-k", 2)
    orders = ("--order", "score", "--order", "original", "--gold-position")
    run(path, *options, *pruners, *orders)
    records = lines(tmp_path / "out")
    assert len(records) == 5 * 3 * 3
    gold = {(line["gold_position"], *line["gold"]) for line in records}
    assert gold == {("first", 0), ("quarter", 1), ("middle", 3), ("three-quarter", 4), ("last", 5)}
    markdown = (tmp_path / "out" / "qa.md").read_text()
    assert "Accuracy by place of the gold chunk, macro, tiny" in markdown
    assert "BM25, top 2, original order" in markdown
    assert markdown.splitlines()[2].startswith(
        "**Does the position of the gold chunk matter to tiny? Can't tell from 3 questions:** with "
    )
