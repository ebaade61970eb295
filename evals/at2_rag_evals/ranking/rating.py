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
    """How one system did on one item.

    Attributes:
        metrics: Metric -> value; None where the metric isn't defined for the item.
        gold_ranks: Ranks of the gold chunks, from 1.
        truncated: How many chunks the system read only in part.
        seconds: How long scoring took.
    """

    metrics: Mapping[str, float | None]
    gold_ranks: tuple[int, ...]
    truncated: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RatedSet:
    """A set of items with every system's ratings.

    Attributes:
        item_set: The items.
        ratings: System -> one rating an item, in the items' order.
    """

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

    Args:
        item_sets: The sets of items.
        rankers: The systems.
        path: The store of scores (see `Store`), which a later run goes on from; None for nowhere.
        progress: Called with the system's name, the items scored and in all.

    Raises:
        ScoringError: If a system fails on an item.
    """
    keys = [
        [content_hash(item.query, item.chunks) for item in item_set.items] for item_set in item_sets
    ]
    stores = [Store(path, settings_key(ranker), ItemScores) for ranker in rankers]
    for ranker, store in zip(rankers, stores, strict=True):
        if any(key not in store for set_keys in keys for key in set_keys):
            ranker.prepare()
    # Source by source through all sets: a padded set is made of the same chunks again, and what
    # a system keeps of them (embeddings, chunk states) is still at hand.
    items = {
        key: item
        for set_keys, item_set in zip(keys, item_sets, strict=True)
        for key, item in zip(set_keys, item_set.items, strict=True)
    }
    by_source = sorted(items, key=lambda key: items[key].source)
    ratings: list[dict[str, tuple[Rating, ...]]] = [{} for _ in item_sets]
    for ranker, store in zip(rankers, stores, strict=True):
        missing = [key for key in by_source if key not in store]
        if missing:
            progress(ranker.name, 0, len(missing))
        with ThreadPoolExecutor(ranker.workers) as executor:
            scored = executor.map(partial(score_item, ranker), [items[key] for key in missing])
            for done, (key, result) in enumerate(zip(missing, scored, strict=True), start=1):
                store[key] = result
                progress(ranker.name, done, len(missing))
        for item_set, set_keys, rated in zip(item_sets, keys, ratings, strict=True):
            rated[ranker.name] = tuple(
                _rate(item, store[key]) for key, item in zip(set_keys, item_set.items, strict=True)
            )
    return [RatedSet(item_set, rated) for item_set, rated in zip(item_sets, ratings, strict=True)]


def _rate(item: Example, scored: ItemScores) -> Rating:
    ranking = rank_by_score(scored.scores)
    return Rating(
        metrics={name: metric(ranking, item.labels) for name, metric in METRICS.items()},
        gold_ranks=gold_ranks(ranking, item.labels),
        truncated=scored.truncated,
        seconds=scored.seconds,
    )
