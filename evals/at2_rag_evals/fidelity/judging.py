"""Runs systems over items and judges their scores by what removal did."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from at2_rag_evals.fidelity.masks import KEEP_RATES, MaskPlan
from at2_rag_evals.fidelity.measures.best_sources import (
    DROPPED_KS,
    INSERTED_KS,
    best_masks,
    best_values,
)
from at2_rag_evals.fidelity.measures.linear_datamodeling import (
    FORMS,
    KINDS,
    Truth,
    linear_datamodeling_scores,
)
from at2_rag_evals.fidelity.measures.tempered_shares import tempered_lds
from at2_rag_evals.fidelity.removal import RemovalReader, mask_name, reading_key
from at2_rag_evals.fidelity.sources import SourcedItem, SourcedSet
from at2_rag_evals.fidelity.systems.base import FidelitySystem
from at2_rag_evals.items import count
from at2_rag_evals.metrics import rank_by_score
from at2_rag_evals.rankers.base import ItemScores, checked_scores
from at2_rag_evals.store import Store, hash_of, settings_key

Progress = Callable[[str, int, int], None]
T = TypeVar("T")

METRIC_TITLES: Mapping[str, str] = {
    f"{form}_{kind}{suffix}": f"{title} ({kind.capitalize()}), {which}"
    for form, title in FORMS.items()
    for kind in KINDS
    for suffix, which in (
        ("", "mean of both keep rates"),
        *((f"_{rate}", f"keep rate {rate}") for rate in KEEP_RATES),
    )
} | {
    "lds_tempered_pearson": "LDS of tempered shares (Pearson), mean of both keep rates",
    "lds_centred_pearson": "LDS of centred scores (Pearson), mean of both keep rates",
    "lds_centred_spearman": "LDS of centred scores (Spearman), mean of both keep rates",
    **{f"drop_{k}": f"Top-{k} drop, nats a token" for k in DROPPED_KS},
    **{f"insertion_{k}": f"Log-probability with the best {k} only" for k in INSERTED_KS},
}


@dataclass(frozen=True, slots=True)
class Judged:
    """The results on one item.

    Attributes:
        tokens: How many tokens its answer has.
        full: Mean log-probability of the answer's tokens with all chunks.
        removal_seconds: Seconds that reading a held mask took, on average.
        metrics: System -> metric -> value; None where the metric isn't defined for the item.
    """

    item: SourcedItem
    tokens: int
    full: float
    removal_seconds: float
    metrics: Mapping[str, Mapping[str, float | None]]
    scored: Mapping[str, ItemScores]


@dataclass(frozen=True, slots=True)
class JudgedSet:
    """The items that could be judged, and source -> reason -> number of examples left out."""

    items: tuple[Judged, ...]
    left_out: Mapping[str, Mapping[str, int]]


def judge(
    item_set: SourcedSet,
    systems: Sequence[FidelitySystem],
    reader: RemovalReader,
    *,
    plan: MaskPlan,
    path: Path | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> JudgedSet:
    """Judge every system on every item that has an answer and fits the model's window.

    `path` is the store of scores (see `Store`); `progress` is called with a stage, the items done
    and in all.

    Raises:
        ScoringError: If a system or the model fails on an item.
    """
    left_out = {source: dict(reasons) for source, reasons in item_set.left_out.items()}
    answered: list[tuple[SourcedItem, str]] = []
    for item in _tracked(item_set.items, "answers and removals", progress):
        answer, reason = reader.answer(item)
        if answer is None:
            count(left_out, item.example.source, reason)
        else:
            # All at once: prompts that begin alike are read together.
            reader.read(item, answer, np.concatenate(list(plan.split(item).held.values())))
            answered.append((item, answer))
    scored = {system.name: _scores(system, answered, path, progress) for system in systems}
    truths = []
    removal_seconds = []
    for item, answer in answered:
        held = plan.split(item).held
        readings = {rate: reader.read(item, answer, masks) for rate, masks in held.items()}
        truths.append(
            {
                rate: (held[rate], np.array([each.logit_probability for each in of_rate]))
                for rate, of_rate in readings.items()
            }
        )
        seconds = [each.seconds for of_rate in readings.values() for each in of_rate]
        removal_seconds.append(float(np.mean(seconds)))
    sources = [item.example.source for item, _ in answered]
    forms = {system.name: _lds(system, scored[system.name], truths, sources) for system in systems}
    judged = []
    for index in _tracked(range(len(answered)), "best chunks left out and kept", progress):
        item, answer = answered[index]
        rankings = {name: rank_by_score(scores[index].scores) for name, scores in scored.items()}
        full, tokens, best = _best_sources(item, answer, rankings, reader)
        judged.append(
            Judged(
                item=item,
                tokens=tokens,
                full=full,
                removal_seconds=removal_seconds[index],
                metrics={name: {**forms[name][index], **best[name]} for name in scored},
                scored={name: scores[index] for name, scores in scored.items()},
            )
        )
    return JudgedSet(tuple(judged), left_out)


def _tracked(values: Sequence[T], stage: str, progress: Progress) -> Iterator[T]:
    progress(stage, 0, len(values))
    for done, value in enumerate(values, start=1):
        yield value
        progress(stage, done, len(values))


def _scores(
    system: FidelitySystem,
    answered: Sequence[tuple[SourcedItem, str]],
    path: Path | None,
    progress: Progress,
) -> list[ItemScores]:
    store = Store(path, settings_key(system), ItemScores)
    # Labels count too, since the gold indicator is a system.
    keys = [hash_of([reading_key(item, answer), list(item.labels)]) for item, answer in answered]
    if any(key not in store for key in keys):
        system.prepare()
    for key, (item, answer) in zip(keys, _tracked(answered, system.name, progress), strict=True):
        if key not in store:
            store[key] = checked_scores(
                lambda item=item, answer=answer: system.scores(item, answer),  # type: ignore[misc]
                len(item.sources),
                f"{system.name} failed on item {item.example.id!r} of {item.example.source}",
            )
    return [store[key] for key in keys]


def _lds(
    system: FidelitySystem,
    scored: Sequence[ItemScores],
    truths: Sequence[Mapping[float, Truth]],
    sources: Sequence[str],
) -> list[dict[str, float | None]]:
    """Return each item's linear datamodeling scores of all forms of a system's scores."""
    scores = [result.scores for result in scored]
    tempered = tempered_lds(scores, truths, sources, system.scale)
    return [
        linear_datamodeling_scores(of_item, truth, logits=system.shares_are_softmax)
        | {"lds_tempered_pearson": value}
        for of_item, truth, value in zip(scores, truths, tempered, strict=True)
    ]


def _best_sources(
    item: SourcedItem,
    answer: str,
    rankings: Mapping[str, Sequence[int]],
    reader: RemovalReader,
) -> tuple[float, int, dict[str, dict[str, float | None]]]:
    """Return the answer's mean log-probability, its tokens, and system -> metric -> value."""
    masks = {name: best_masks(ranking) for name, ranking in rankings.items()}
    every = np.ones(len(item.sources), dtype=bool)
    by_name = {mask_name(every): every}
    for of_system in masks.values():
        by_name |= {mask_name(mask): mask for mask in of_system.values()}
    readings = dict(
        zip(by_name, reader.read(item, answer, np.stack(list(by_name.values()))), strict=True)
    )
    whole = readings[mask_name(every)]
    full = whole.mean_log_probability
    values = {
        name: best_values(
            full,
            {
                metric: readings[mask_name(mask)].mean_log_probability
                for metric, mask in of_system.items()
            },
        )
        for name, of_system in masks.items()
    }
    return full, whole.tokens, values
