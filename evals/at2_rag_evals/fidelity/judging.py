"""Runs systems over items and judges their scores by what removal did."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from at2_rag.errors import AT2Error, ScoringError
from at2_rag_evals.fidelity.masks import KEEP_RATES, MaskPlan
from at2_rag_evals.fidelity.measures.insertion import INSERTED_KS, only_best
from at2_rag_evals.fidelity.measures.linear_datamodeling import (
    Kind,
    Truth,
    centred,
    correlation,
    predicted_effects,
    shares,
)
from at2_rag_evals.fidelity.measures.tempered_shares import tempered_lds
from at2_rag_evals.fidelity.measures.top_k_drop import TOP_KS, top_k_drop, without_best
from at2_rag_evals.fidelity.removal import RemovalReader, mask_name, reading_key
from at2_rag_evals.fidelity.sources import SourcedItem, SourcedSet
from at2_rag_evals.fidelity.systems.base import FidelitySystem
from at2_rag_evals.items import count
from at2_rag_evals.metrics import rank_by_score
from at2_rag_evals.rankers.base import ItemScores, timed
from at2_rag_evals.store import Store, settings_key

Bools = npt.NDArray[np.bool_]
Progress = Callable[[str, int, int], None]

METRIC_TITLES: Mapping[str, str] = {
    "lds_pearson": "LDS (Pearson), mean of both keep rates",
    "lds_pearson_0.2": "LDS (Pearson), keep rate 0.2",
    "lds_pearson_0.5": "LDS (Pearson), keep rate 0.5",
    "lds_spearman": "LDS (Spearman), mean of both keep rates",
    "lds_spearman_0.2": "LDS (Spearman), keep rate 0.2",
    "lds_spearman_0.5": "LDS (Spearman), keep rate 0.5",
    "lds_shares_pearson": "LDS of shares (Pearson), mean of both keep rates",
    "lds_shares_pearson_0.2": "LDS of shares (Pearson), keep rate 0.2",
    "lds_shares_pearson_0.5": "LDS of shares (Pearson), keep rate 0.5",
    "lds_shares_spearman": "LDS of shares (Spearman), mean of both keep rates",
    "lds_shares_spearman_0.2": "LDS of shares (Spearman), keep rate 0.2",
    "lds_shares_spearman_0.5": "LDS of shares (Spearman), keep rate 0.5",
    "lds_tempered_pearson": "LDS of tempered shares (Pearson), mean of both keep rates",
    "lds_centred_pearson": "LDS of centred scores (Pearson), mean of both keep rates",
    "lds_centred_spearman": "LDS of centred scores (Spearman), mean of both keep rates",
    **{f"drop_{k}": f"Top-{k} drop, nats a token" for k in TOP_KS},
    **{f"insertion_{k}": f"Log-probability with the best {k} only" for k in INSERTED_KS},
}


@dataclass(frozen=True, slots=True)
class Judged:
    """What was found about one item.

    Attributes:
        item: The item.
        tokens: How many tokens its answer has.
        full: Mean log-probability of the answer's tokens with all chunks.
        removal_seconds: What reading the held masks took, a mask.
        metrics: System -> metric -> value; None where the metric isn't defined for the item.
        seconds: System -> what its scores cost.
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
    logits = {system.name for system in systems if system.shares_are_softmax}
    truths = [_truth(item, answer, reader, plan) for item, answer in answered]
    sources = [item.source for item, _ in answered]
    tempered = {
        system.name: tempered_lds(
            [own.scores for own in scored[system.name]], truths, sources, system.scale
        )
        for system in systems
    }
    judged = []
    progress("best chunks left out and kept", 0, len(answered))
    for done, (item, answer) in enumerate(answered):
        own = {name: scores[done] for name, scores in scored.items()}
        scores_of_forms = {
            name: {
                **linear_datamodeling_scores(one.scores, truths[done], logits=name in logits),
                "lds_tempered_pearson": tempered[name][done],
            }
            for name, one in own.items()
        }
        judged.append(_judge_item(item, answer, own, reader, plan, scores_of_forms))
        progress("best chunks left out and kept", done + 1, len(answered))
    return JudgedSet(tuple(judged), left_out)


def _truth(
    item: SourcedItem, answer: str, reader: RemovalReader, plan: MaskPlan
) -> dict[float, Truth]:
    """Return keep rate -> held masks and what they did."""
    return {
        rate: (
            masks,
            np.array([own.logit_probability for own in reader.read(item, answer, masks)]),
        )
        for rate, masks in plan.split(item).held.items()
    }


def _scores(
    system: FidelitySystem,
    answered: Sequence[tuple[SourcedItem, str]],
    *,
    path: Path | None,
    progress: Progress,
) -> list[ItemScores]:
    store = Store(path, settings_key(system), ItemScores)
    prepared = False
    found = []
    progress(system.name, 0, len(answered))
    for done, (item, answer) in enumerate(answered, start=1):
        key = _score_key(item, answer)
        if key not in store:
            if not prepared:
                system.prepare()
                prepared = True
            store[key] = _score(system, item, answer)
        found.append(store[key])
        progress(system.name, done, len(answered))
    return found


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
    seen = json.dumps([reading_key(item, answer), list(item.labels)])
    return hashlib.sha256(seen.encode("ascii")).hexdigest()


def _judge_item(
    item: SourcedItem,
    answer: str,
    scored: Mapping[str, ItemScores],
    reader: RemovalReader,
    plan: MaskPlan,
    datamodeling: Mapping[str, Mapping[str, float | None]],
) -> Judged:
    rankings = {name: rank_by_score(own.scores) for name, own in scored.items()}
    everything = np.ones(len(item.sources), dtype=bool)
    wanted = {mask_name(everything): everything}
    for ranking in rankings.values():
        for mask in _best_masks(ranking).values():
            if mask is not None:
                wanted[mask_name(mask)] = mask
    readings = reader.read(item, answer, np.stack(list(wanted.values())))
    means = {
        name: reading.mean_log_probability for name, reading in zip(wanted, readings, strict=True)
    }
    full = means[mask_name(everything)]
    held = [reader.read(item, answer, masks) for masks in plan.split(item).held.values()]
    metrics: dict[str, Mapping[str, float | None]] = {}
    for name in scored:
        best = {
            metric: None if mask is None else means[mask_name(mask)]
            for metric, mask in _best_masks(rankings[name]).items()
        }
        metrics[name] = {
            **datamodeling[name],
            **{
                metric: top_k_drop(full, value)
                if metric.startswith("drop") and value is not None
                else value
                for metric, value in best.items()
            },
        }
    times = [reading.seconds for own_readings in held for reading in own_readings]
    return Judged(
        item=item,
        tokens=readings[0].tokens,
        full=full,
        removal_seconds=float(np.mean(times)),
        metrics=metrics,
        seconds={name: own.seconds for name, own in scored.items()},
        truncated={name: own.truncated for name, own in scored.items()},
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
    as_given = np.asarray(scores, dtype=np.float64)
    forms = {
        "lds": as_given,
        "lds_shares": shares(as_given) if logits else as_given,
        "lds_centred": centred(as_given),
    }
    found: dict[str, float | None] = {}
    kinds: tuple[Kind, ...] = ("pearson", "spearman")
    for kind in kinds:
        for prefix, values in forms.items():
            by_rate = {
                rate: correlation(predicted_effects(values, masks), true, kind)
                for rate, (masks, true) in truth.items()
            }
            defined = [value for value in by_rate.values() if value is not None]
            whole = len(defined) == len(by_rate)
            found[f"{prefix}_{kind}"] = float(np.mean(defined)) if whole else None
            if prefix != "lds_centred":
                found |= {f"{prefix}_{kind}_{rate}": by_rate[rate] for rate in KEEP_RATES}
    return found


def _best_masks(ranking: Sequence[int]) -> dict[str, Bools | None]:
    """Return the masks that a ranking is judged by."""
    return {
        **{f"drop_{k}": without_best(ranking, k) for k in TOP_KS},
        **{f"insertion_{k}": only_best(ranking, k) for k in INSERTED_KS},
    }
