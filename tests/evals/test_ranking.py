"""Running systems over items: resuming, failing, rating."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from at2_rag.errors import ScoringError, UnsupportedModelError
from at2_rag.text.chunks import Chunk
from at2_rag_evals.items import ItemSet
from at2_rag_evals.rankers import ItemScores, Ranker
from at2_rag_evals.rankers.first_k import FirstKRanker
from at2_rag_evals.ranking.rating import RatedSet, rate_systems
from tests.evals.labelled_items import CountingRanker, make_item

ITEMS = tuple(make_item(f"item{index:03}", "-g--g") for index in range(6))
SETS = [ItemSet("natural size", ITEMS[:4], {}), ItemSet("others", ITEMS[2:], {})]


def run(rankers: Sequence[Ranker], path: Path | None = None) -> list[RatedSet]:
    return rate_systems(SETS, rankers, path=path)


def without_times(rated: Sequence[RatedSet]) -> list[object]:
    return [
        {
            name: [dataclasses.replace(rating, seconds=0) for rating in ratings]
            for name, ratings in each.ratings.items()
        }
        for each in rated
    ]


def test_every_system_is_rated_once_on_every_item_of_every_set() -> None:
    counting = CountingRanker()
    rated = run([FirstKRanker(), counting])
    assert [each.item_set for each in rated] == SETS
    for each in rated:
        assert list(each.ratings) == ["first_k", "counting"]
        assert [len(ratings) for ratings in each.ratings.values()] == [4, 4]
    rating = rated[0].ratings["first_k"][0]
    assert rating.gold_ranks == (2, 5)
    assert rating.metrics["gold_first"] == rating.metrics["all_gold_in_top_3"] == 0.0
    assert (rating.truncated, rated[0].ratings["counting"][0].truncated) == (0, 1)
    assert (counting.calls, counting.prepared) == (6, 1)


def test_a_killed_run_goes_on_and_ends_as_if_never_killed(tmp_path: Path) -> None:
    killed = CountingRanker(fail_after=3)
    with pytest.raises(KeyboardInterrupt):
        run([FirstKRanker(), killed], tmp_path / "store")
    resumed = CountingRanker()
    rated = run([FirstKRanker(), resumed], tmp_path / "store")
    assert (killed.calls, resumed.calls) == (3, 3)
    assert without_times(rated) == without_times(run([FirstKRanker(), CountingRanker()]))


def test_a_finished_system_is_not_loaded_again(tmp_path: Path) -> None:
    first = run([CountingRanker()], tmp_path / "store")
    again, changed = CountingRanker(), CountingRanker(version=2)
    assert run([again], tmp_path / "store") == first
    assert (again.calls, again.prepared) == (0, 0)
    run([changed], tmp_path / "store")
    assert changed.calls == 6


def test_all_systems_are_loaded_before_any_scores() -> None:
    class Unloadable(CountingRanker):
        name = "unloadable"

        def prepare(self) -> None:
            raise UnsupportedModelError("no such model")

    first = CountingRanker()
    with pytest.raises(UnsupportedModelError):
        run([first, Unloadable()])
    assert first.calls == 0


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ((1.0,), r"\(1\.0,\); expected 5 numbers"),
        ((0.0, 1.0, float("nan"), 0.0, 0.0), "nan, .* expected 5 numbers"),
        (None, "out of luck"),
    ],
)
def test_a_failure_names_system_and_item(scores: tuple[float, ...] | None, message: str) -> None:
    class Broken(CountingRanker):
        def score(self, query: str, chunks: Sequence[Chunk]) -> ItemScores:
            if scores is None:
                raise UnsupportedModelError("out of luck")
            return ItemScores(scores)

    with pytest.raises(ScoringError, match=f"counting failed on item 'item000' of .*{message}"):
        run([Broken()])
