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


def test_every_system_is_rated_on_every_item_of_every_set() -> None:
    rated = run([FirstKRanker(), CountingRanker()])
    assert [each.item_set for each in rated] == SETS
    for each in rated:
        assert list(each.ratings) == ["first_k", "counting"]
        assert [len(ratings) for ratings in each.ratings.values()] == [4, 4]
    rating = rated[0].ratings["first_k"][0]
    assert rating.gold_ranks == (2, 5)
    assert rating.metrics["gold_first"] == 0.0
    assert rating.metrics["all_gold_in_top_3"] == 0.0
    assert rating.truncated == 0
    assert rated[0].ratings["counting"][0].truncated == 1


def test_an_item_is_scored_once_even_in_two_sets() -> None:
    ranker = CountingRanker()
    run([ranker])
    assert ranker.calls == 6
    assert ranker.prepared == 1


def test_a_killed_run_goes_on_and_ends_as_if_never_killed(tmp_path: Path) -> None:
    killed = CountingRanker(fail_after=3)
    with pytest.raises(KeyboardInterrupt):
        run([FirstKRanker(), killed], tmp_path / "store")
    resumed = CountingRanker()
    rated = run([FirstKRanker(), resumed], tmp_path / "store")
    assert (killed.calls, resumed.calls) == (3, 3)
    assert without_times(rated) == without_times(run([FirstKRanker(), CountingRanker()]))


def test_a_finished_system_is_neither_loaded_nor_asked_again(tmp_path: Path) -> None:
    first = run([CountingRanker()], tmp_path / "store")
    again = CountingRanker()
    assert run([again], tmp_path / "store") == first
    assert (again.calls, again.prepared) == (0, 0)
    changed = CountingRanker(version=2)
    run([changed], tmp_path / "store")
    assert changed.calls == 6


def test_all_systems_are_loaded_before_any_is_asked() -> None:
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
    ],
)
def test_unusable_scores_name_system_and_item(scores: tuple[float, ...], message: str) -> None:
    class Broken(CountingRanker):
        def score(self, query: str, chunks: Sequence[Chunk]) -> ItemScores:
            return ItemScores(scores)

    with pytest.raises(ScoringError, match=f"counting failed on item 'item000' of .*{message}"):
        run([Broken()])


def test_a_failing_system_names_the_item() -> None:
    class Failing(CountingRanker):
        def score(self, query: str, chunks: Sequence[Chunk]) -> ItemScores:
            raise UnsupportedModelError("out of luck")

    with pytest.raises(ScoringError, match="counting failed on item 'item000' .*out of luck"):
        run([Failing()])
