"""Runs systems over items and judges their scores by what removal did."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from at2_rag.errors import AT2Error, ScoringError
from at2_rag_evals.fidelity.masks import KEEP_RATES, MaskPlan
from at2_rag_evals.fidelity.measures.best_sources import (
    DROPPED_KS,
    INSERTED_KS,
    best_masks,
    best_values,
)
from at2_rag_evals.fidelity.measures.linear_datamodeling import (
    Kind,
    Truth,
    centred,
    correlation,
    mean_if_defined,
    predicted_effects,
    shares,
)
from at2_rag_evals.fidelity.measures.tempered_shares import tempered_lds
from at2_rag_evals.fidelity.removal import RemovalReader, mask_name, reading_key
from at2_rag_evals.fidelity.sources import SourcedItem, SourcedSet
from at2_rag_evals.fidelity.systems.base import FidelitySystem
from at2_rag_evals.items import count
from at2_rag_evals.metrics import rank_by_score
from at2_rag_evals.rankers.base import ItemScores, timed
from at2_rag_evals.store import Store, hash_of, settings_key

Progress = Callable[[str, int, int], None]

_FORMS = {"lds": "LDS", "lds_shares": "LDS of shares"}
_KINDS: tuple[Kind, ...] = ("pearson", "spearman")

METRIC_TITLES: Mapping[str, str] = {
    f"{form}_{kind}{suffix}": f"{title} ({kind.capitalize()}), {which}"
    for form, title in _FORMS.items()
    for kind in _KINDS
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
        item: The item.
        tokens: How many tokens its answer has.
        full: Mean log-probability of the answer's tokens with all chunks.
        removal_seconds: Seconds that reading a held mask took, on average.
        metrics: System -> metric -> value; None where the metric isn't defined for the item.
        seconds: System -> seconds that its scores took.
        truncated: System -> how many texts it read only in part.
    """

    item: SourcedItem
    tokens: int
    full: float
    removal_seconds: float
    metrics: Mapping[str, Mapping[str, float | None]]
    seconds: Mapping[str, float]
    truncated: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class JudgedSet:
    """A set of items, judged.

    Attributes:
        items: Those that could be, in the set's order.
        left_out: Source -> reason -> number of examples left out.
    """

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

    Args:
        item_set: The items.
        systems: The systems.
        reader: Answers, and reads what removal does.
        plan: Draws the masks.
        path: The store of scores (see `Store`); None for nowhere.
        progress: Called with the stage, the items done and in all.

    Raises:
        ScoringError: If a system or the model fails on an item.
    """
    left_out = {source: dict(reasons) for source, reasons in item_set.left_out.items()}
    answered: list[tuple[SourcedItem, str]] = []
    progress("answers and removals", 0, len(item_set.items))
    for done, item in enumerate(item_set.items, start=1):
        answer, reason = reader.answer(item)
        if answer is None:
            count(left_out, item.source, reason or "")
        else:
            # All at once: prompts that begin alike are read together.
            reader.read(item, answer, np.concatenate(list(plan.split(item).held.values())))
            answered.append((item, answer))
        progress("answers and removals", done, len(item_set.items))
    scored = {
        system.name: _scores(system, answered, path=path, progress=progress) for system in systems
    }
    truths = [_truth(item, answer, reader, plan) for item, answer in answered]
    forms = _scores_of_forms(systems, scored, truths, [item.source for item, _ in answered])
    judged = []
    progress("best chunks left out and kept", 0, len(answered))
    for index, (item, answer) in enumerate(answered):
        scores = {name: of_items[index] for name, of_items in scored.items()}
        judged.append(_judge_item(item, answer, scores, reader, plan, forms[index]))
        progress("best chunks left out and kept", index + 1, len(answered))
    return JudgedSet(tuple(judged), left_out)


def _truth(
    item: SourcedItem, answer: str, reader: RemovalReader, plan: MaskPlan
) -> dict[float, Truth]:
    """Return keep rate -> held masks and their effects."""
    return {
        rate: (
            masks,
            np.array([reading.logit_probability for reading in reader.read(item, answer, masks)]),
        )
        for rate, masks in plan.split(item).held.items()
    }


def _scores_of_forms(
    systems: Sequence[FidelitySystem],
    scored: Mapping[str, Sequence[ItemScores]],
    truths: Sequence[Mapping[float, Truth]],
    sources: Sequence[str],
) -> list[dict[str, dict[str, float | None]]]:
    """Return for each item system -> linear datamodeling score of each form of its scores."""
    forms: list[dict[str, dict[str, float | None]]] = [{} for _ in truths]
    for system in systems:
        scores = [result.scores for result in scored[system.name]]
        tempered = tempered_lds(scores, truths, sources, system.scale)
        for index, truth in enumerate(truths):
            forms[index][system.name] = {
                **linear_datamodeling_scores(
                    scores[index], truth, logits=system.shares_are_softmax
                ),
                "lds_tempered_pearson": tempered[index],
            }
    return forms


def _scores(
    system: FidelitySystem,
    answered: Sequence[tuple[SourcedItem, str]],
    *,
    path: Path | None,
    progress: Progress,
) -> list[ItemScores]:
    store = Store(path, settings_key(system), ItemScores)
    prepared = False
    results = []
    progress(system.name, 0, len(answered))
    for done, (item, answer) in enumerate(answered, start=1):
        key = _score_key(item, answer)
        if key not in store:
            if not prepared:
                system.prepare()
                prepared = True
            store[key] = _score(system, item, answer)
        results.append(store[key])
        progress(system.name, done, len(answered))
    return results


def _score(system: FidelitySystem, item: SourcedItem, answer: str) -> ItemScores:
    failure = f"{system.name} failed on item {item.id!r} of {item.source}"
    try:
        result = timed(lambda: system.scores(item, answer))
    except AT2Error as error:
        raise ScoringError(f"{failure}: {error}") from error
    if len(result.scores) != len(item.sources) or not np.isfinite(result.scores).all():
        raise ScoringError(
            f"{failure}: its scores are {result.scores}; expected {len(item.sources)} numbers"
        )
    return result


def _score_key(item: SourcedItem, answer: str) -> str:
    # Labels count too, since the gold indicator is a system.
    return hash_of([reading_key(item, answer), list(item.labels)])


def _judge_item(
    item: SourcedItem,
    answer: str,
    scored: Mapping[str, ItemScores],
    reader: RemovalReader,
    plan: MaskPlan,
    datamodeling: Mapping[str, Mapping[str, float | None]],
) -> Judged:
    masks = {name: best_masks(rank_by_score(result.scores)) for name, result in scored.items()}
    all_sources = np.ones(len(item.sources), dtype=bool)
    by_name = {mask_name(all_sources): all_sources}
    for of_system in masks.values():
        by_name |= {mask_name(mask): mask for mask in of_system.values()}
    readings = reader.read(item, answer, np.stack(list(by_name.values())))
    means = {
        name: reading.mean_log_probability for name, reading in zip(by_name, readings, strict=True)
    }
    full = means[mask_name(all_sources)]
    held = [
        reading
        for rate_masks in plan.split(item).held.values()
        for reading in reader.read(item, answer, rate_masks)
    ]
    metrics: dict[str, Mapping[str, float | None]] = {}
    for name, of_system in masks.items():
        with_mask = {metric: means[mask_name(mask)] for metric, mask in of_system.items()}
        metrics[name] = {**datamodeling[name], **best_values(full, with_mask)}
    return Judged(
        item=item,
        tokens=readings[0].tokens,
        full=full,
        removal_seconds=float(np.mean([reading.seconds for reading in held])),
        metrics=metrics,
        seconds={name: result.seconds for name, result in scored.items()},
        truncated={name: result.truncated for name, result in scored.items()},
    )


def linear_datamodeling_scores(
    scores: Sequence[float],
    truth: Mapping[float, Truth],
    *,
    logits: bool = False,
) -> dict[str, float | None]:
    """Return all linear datamodeling scores of an item.

    Args:
        scores: One a source, [S].
        truth: Keep rate -> masks [M, S] and the true effect of each, [M].
        logits: Whether the scores are on a logit's scale, so that their softmax is the shares;
            otherwise they are shares as they are.

    Returns:
        Metric -> value; a mean over keep rates is None if it is for one of them.
    """
    raw = np.asarray(scores, dtype=np.float64)
    forms = {
        "lds": raw,
        "lds_shares": shares(raw) if logits else raw,
        "lds_centred": centred(raw),
    }
    results: dict[str, float | None] = {}
    for kind in _KINDS:
        for form, values in forms.items():
            by_rate = {
                rate: correlation(predicted_effects(values, masks), true, kind)
                for rate, (masks, true) in truth.items()
            }
            results[f"{form}_{kind}"] = mean_if_defined(list(by_rate.values()))
            if form in _FORMS:
                results |= {f"{form}_{kind}_{rate}": by_rate[rate] for rate in KEEP_RATES}
    return results
