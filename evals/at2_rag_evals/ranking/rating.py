"""Runs systems over sets of items and rates their rankings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from at2_rag.data.examples import Example
from at2_rag_evals.items import ItemSet, content_hash
from at2_rag_evals.metrics import METRICS, gold_ranks, rank_by_score
from at2_rag_evals.rankers.base import ItemScores, Ranker, score_item
from at2_rag_evals.store import Store, settings_key

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Rating:
    """How one system did on one item; a metric is None where it isn't defined for the item."""

    metrics: Mapping[str, float | None]
    gold_ranks: tuple[int, ...]
    truncated: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RatedSet:
    """A set of items, and for each system one rating an item."""

    item_set: ItemSet
    ratings: Mapping[str, tuple[Rating, ...]]


def rate_systems(
    item_sets: Sequence[ItemSet],
    rankers: Sequence[Ranker],
    *,
    path: Path | None,
    progress: Progress = lambda stage, done, total: None,
) -> list[RatedSet]:
    """Let every system rank every item and rate the rankings.

    `path` is a store of scores (see `Store`), from which a later run continues; `progress` is
    called with a system's name, the items scored and in all.

    Raises:
        ScoringError: If a system fails on an item.
    """
    items = {
        content_hash(item.query, item.chunks): item
        for item_set in item_sets
        for item in item_set.items
    }
    # Source by source through all sets: a padded set is made of the same chunks again, and what
    # a system cached of them (embeddings, chunk states) is still at hand.
    by_source = sorted(items, key=lambda key: items[key].source)
    stores = [Store(path, settings_key(ranker), ItemScores) for ranker in rankers]
    missing = [[key for key in by_source if key not in store] for store in stores]
    for ranker, keys in zip(rankers, missing, strict=True):
        if keys:
            ranker.prepare()
    for ranker, store, keys in zip(rankers, stores, missing, strict=True):
        if keys:
            progress(ranker.name, 0, len(keys))
        with ThreadPoolExecutor(ranker.workers) as executor:
            scored = executor.map(partial(score_item, ranker), [items[key] for key in keys])
            for done, (key, result) in enumerate(zip(keys, scored, strict=True), start=1):
                store[key] = result
                progress(ranker.name, done, len(keys))
    return [
        RatedSet(
            item_set,
            {
                ranker.name: tuple(_rate(item, store) for item in item_set.items)
                for ranker, store in zip(rankers, stores, strict=True)
            },
        )
        for item_set in item_sets
    ]


def _rate(item: Example, store: Store[ItemScores]) -> Rating:
    scored = store[content_hash(item.query, item.chunks)]
    ranking = rank_by_score(scored.scores)
    return Rating(
        metrics={name: metric(ranking, item.labels) for name, metric in METRICS.items()},
        gold_ranks=gold_ranks(ranking, item.labels),
        truncated=scored.truncated,
        seconds=scored.seconds,
    )
