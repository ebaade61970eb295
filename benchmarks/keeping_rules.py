"""How often rules keep all gold chunks, and how much text. No model is needed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from report import Row

from at2_rag.data.examples import Example
from at2_rag.options import DEFAULT_AT_LEAST, DEFAULT_MIN_P, PruneOptions
from at2_rag.selection.select import select
from at2_rag.training.calibrating.study import Prediction

LONG = 20  # chunks
DEFAULT = PruneOptions(min_p=DEFAULT_MIN_P, keep_at_least=DEFAULT_AT_LEAST)
MOST = 0.45  # of the words of long lists that a default may keep
RULES = (
    *(PruneOptions(max_missed=limit) for limit in (0.03, 0.05, 0.1, 0.15)),
    *(PruneOptions(min_p=share) for share in (0.02, 0.03, 0.05, 0.1)),
    *(PruneOptions(min_p=1.0, keep_at_least=share) for share in (0.25, 0.35, 0.4)),
    *(PruneOptions(max_missed=0.1, keep_at_least=share) for share in (0.25, 0.35)),
    *(PruneOptions(min_p=0.03, keep_at_least=share) for share in (0.25, 0.3, 0.35)),
    *(PruneOptions(min_p=0.05, keep_at_least=share) for share in (0.25, 0.3, 0.35, 0.4)),
    *(PruneOptions(min_p=0.1, keep_at_least=share) for share in (0.25, 0.35, 0.4)),
)


class _Kept(NamedTuple):
    """What is kept of a list."""

    gold: int  # chunks of the list that are gold
    all_gold: bool  # whether they all are kept
    words: float  # share that is kept
    is_long: bool


def kept_by_rules(predictions: Sequence[Prediction], questions: Sequence[Example]) -> Iterator[Row]:
    """Yield what rules keep, means over sources and the least of a source.

    The last row has of each source what the rule keeps that the other sources choose: of those that
    keep at most `MOST` of long lists, if there are any, the one with the largest mean of the two
    shares of questions; if none keeps so little, the one that keeps least.
    """
    kept_of = {}
    for options in RULES:
        *by_source, _ = kept_rows(predictions, questions, options)
        changed = {
            name: getattr(options, name) for name in ("max_missed", "min_p", "keep_at_least")
        }
        rule = ", ".join(f"{name}={value:g}" for name, value in changed.items() if value)
        kept_of[rule] = {row.pop("source"): row for row in by_source}
        yield {"rule": rule, **_summary(list(kept_of[rule].values()))}
    yield {"rule": "chosen by the other sources", **_summary(list(_chosen_by_others(kept_of)))}


def _chosen_by_others(
    kept_of: Mapping[str, Mapping[str, dict[str, float]]],
) -> Iterator[dict[str, float]]:
    """Yield each source's figures by the rule that the others choose."""
    for source in next(iter(kept_of.values())):
        others = {
            rule: _summary([row for name, row in rows.items() if name != source])
            for rule, rows in kept_of.items()
        }
        gold = {
            rule: _mean([row["one gold"], row["two or three"]])
            for rule, row in others.items()
            if not row["of 30 chunks"] > MOST
        }
        words = {rule: row["words"] for rule, row in others.items()}
        chosen = max(gold, key=gold.__getitem__) if gold else min(words, key=words.__getitem__)
        yield kept_of[chosen][source]


def _summary(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return means over sources and the least of a source."""
    one, several = ([row[name] for row in rows] for name in ("one gold", "two or three"))
    return {
        "one gold": _mean(one),
        "least": _least(one),
        "two or three": _mean(several),
        "least of these": _least(several),
        "words": _mean([row["words"] for row in rows]),
        "of 30 chunks": _mean([row["of 30 chunks"] for row in rows]),
    }


def kept_rows(
    predictions: Sequence[Prediction], questions: Sequence[Example], options: PruneOptions
) -> Iterator[dict[str, Any]]:
    """Yield of each source how often all gold is kept, and how much, and last of all sources.

    Shares of words are those of all lists, and of those with more than `LONG` chunks.
    """
    by_source: dict[str, list[_Kept]] = {}
    for row in predictions:
        question = questions[row.sample.question]
        kept = list(select(row.scores, options, probabilities=row.probabilities).kept)
        words = np.array([max(1, len(chunk.rendered.split())) for chunk in question.chunks])
        gold = np.flatnonzero(question.labels)
        all_gold = set(gold.tolist()) <= set(kept)
        share = float(words[kept].sum() / words.sum())
        is_long = len(words) > LONG
        by_source.setdefault(question.source, []).append(_Kept(len(gold), all_gold, share, is_long))
    kept_of = {source: _figures(items) for source, items in sorted(by_source.items())}
    for source, figures in kept_of.items():
        yield {"source": source, **figures}
    names = next(iter(kept_of.values()))
    means = {name: _mean([row[name] for row in kept_of.values()]) for name in names}
    yield {"source": "macro", **means}


def _mean(values: Sequence[float]) -> float:
    """Return the mean without NaN; NaN for nothing else."""
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def _figures(items: Sequence[_Kept]) -> dict[str, float]:
    return {
        "one gold": _mean([item.all_gold for item in items if item.gold == 1]),
        "two or three": _mean([item.all_gold for item in items if 2 <= item.gold <= 3]),
        "words": _mean([item.words for item in items]),
        "of 30 chunks": _mean([item.words for item in items if item.is_long]),
    }


def _least(values: Sequence[float]) -> float:
    return min((value for value in values if not math.isnan(value)), default=math.nan)
