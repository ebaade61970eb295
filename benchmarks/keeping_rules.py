"""How often rules keep all gold chunks, and how much text. No model is needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from report import Row

from at2_rag.data.examples import Example
from at2_rag.options import PruneOptions
from at2_rag.selection.select import select
from at2_rag.training.calibrating.study import Prediction

LIMITS = (0.03, 0.05, 0.07, 0.1, 0.15)  # of `max_missed`
NEAR_BEST = (0.02, 0.03, 0.05, 0.1)
BEST_PART = (0.3, 0.4, 0.5)

Rule: TypeAlias = Callable[[Prediction], Sequence[int]]
"""Returns the indices of the chunks that are kept."""


def missed(limit: float) -> Rule:
    """Return the rule of `max_missed`, with its floor."""
    options = PruneOptions(max_missed=limit, keep_if_unsure=3)
    return lambda row: select(row.scores, options, probabilities=row.probabilities).kept


def near_best(share: float) -> Rule:
    """Return the rule that keeps what has a share of the best chunk's probability."""
    return lambda row: np.flatnonzero(row.probabilities >= share * row.probabilities.max()).tolist()


def best_part(share: float) -> Rule:
    """Return the rule that keeps a share of the list, the best of it."""
    return lambda row: np.argsort(-row.scores, kind="stable")[
        : math.ceil(share * len(row.scores))
    ].tolist()


def kept_by_rules(predictions: Sequence[Prediction], questions: Sequence[Example]) -> Iterator[Row]:
    """Yield what rules keep, means over sources and the least of a source."""
    rules = {f"max_missed={limit}": missed(limit) for limit in LIMITS}
    rules |= {f"{share} of the best one's probability": near_best(share) for share in NEAR_BEST}
    rules |= {f"the best {share:.0%}": best_part(share) for share in BEST_PART}
    for name, rule in rules.items():
        *by_source, macro = kept_rows(predictions, questions, rule)
        yield {
            "rule": name,
            "one gold": macro["one gold"],
            "least": float(np.nanmin([row["one gold"] for row in by_source])),
            "two or three": macro["two or three"],
            "least of these": float(np.nanmin([row["two or three"] for row in by_source])),
            "words": macro["words"],
        }


def kept_rows(
    predictions: Sequence[Prediction], questions: Sequence[Example], rule: Rule
) -> Iterator[dict[str, Any]]:
    """Yield of each source how often all gold is kept, and how much, and last of all sources."""
    by_source: dict[str, list[tuple[int, bool, float]]] = {}
    for row in predictions:
        question, kept = questions[row.sample.question], list(rule(row))
        words = np.array([max(1, len(chunk.rendered.split())) for chunk in question.chunks])
        gold = np.flatnonzero(question.labels)
        all_gold = set(gold.tolist()) <= set(kept)
        share = float(words[kept].sum() / words.sum())
        by_source.setdefault(question.source, []).append((len(gold), all_gold, share))
    kept_of = {source: _kept(items) for source, items in sorted(by_source.items())}
    for source, figures in kept_of.items():
        yield {"source": source, **figures}
    names = next(iter(kept_of.values()))
    means = {name: _mean([row[name] for row in kept_of.values()]) for name in names}
    yield {"source": "macro", **means}


def _mean(values: Sequence[float]) -> float:
    """Return the mean without NaN; NaN for nothing else."""
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def _kept(items: Sequence[tuple[int, bool, float]]) -> dict[str, float]:
    def share(of: Sequence[bool]) -> float:
        return float(np.mean(of)) if of else float("nan")

    return {
        "one gold": share([kept for count, kept, _ in items if count == 1]),
        "two or three": share([kept for count, kept, _ in items if 2 <= count <= 3]),
        "words": float(np.mean([words for _, _, words in items])),
    }
