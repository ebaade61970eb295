"""Fits a calibration. Pure numbers, no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from at2_rag.errors import InputError
from at2_rag.readout.calibration import RISING, Calibration, Outcome, call_terms, chunk_terms
from at2_rag.text.chunks import Prior
from at2_rag.training.fitting.validation import source_weights

MATTERS = 0.1
"""Drop from which on a chunk matters, in nats a token of the answer."""

EVIDENCE_RIDGE = 0.1
"""Ridge penalty of the second readout, on the weights of standardised features."""

_LEAST_SCALE = 0.1  # of scores that say nothing

PENALTY = 1e-4
"""Ridge penalty that keeps slopes finite where outcomes can be told apart without error."""

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class LabelledCall:
    """The features of one call, and what is to be predicted from them.

    Attributes:
        source: The data set it is from; each counts the same in a fit.
        fold: Calls of one fold are judged by a second readout that was fitted without them.
        features: [S, F] float32, of its chunks, at least one.
        gold: [S] bool, whether each chunk is evidence.
        matters: [S] bool, whether each chunk does, by the outcome asked for; None where that isn't
            known.
        answerable: Whether the call's chunks hold the answer; None for calls that don't serve to
            predict it.
        words: [S] int64, the chunks' lengths, which no fit looks at.
        priors: [S] of each kind of prior terms that is learned; none of a kind where nothing is
            known of the chunks.
        example: The place among all examples of the one that it is, or is a twin of.
    """

    source: str
    fold: int
    features: npt.NDArray[np.float32]
    gold: Bools
    matters: Bools | None = None
    answerable: bool | None = None
    words: npt.NDArray[np.int64] | None = None
    priors: Mapping[Prior, Floats] = field(default_factory=dict)
    example: int = 0


def fit_calibration(
    calls: Sequence[LabelledCall],
    scores: Sequence[Floats],
    shape: tuple[int, int, int],
    *,
    outcome: Outcome = "evidence",
) -> Calibration:
    """Return the calibration of head weights under which the outcomes are likeliest.

    Args:
        calls: The calls; some have chunks that matter, some are answerable, and some of each kind
            are not.
        scores: For each call its chunks' scores, [S], by weights that were fitted without it.
        shape: The head weights', [P, L, H].
        outcome: By what it is known that chunks matter.

    Raises:
        InputError: If all outcomes of one kind are the same, or there are none.
    """
    best = out_of_fold_evidence(calls)
    ruled = [own for own in range(len(calls)) if calls[own].matters is not None]
    judged = [own for own in range(len(calls)) if calls[own].answerable is not None]
    chunk_outcomes, chunk_weights = _outcomes(calls, ruled, "chunk")
    call_outcomes, call_weights = _outcomes(calls, judged, "call")
    of_chunks = [chunk_terms(scores[own], best[own]) for own in ruled]
    of_calls = [call_terms(scores[own], best[own]) for own in judged]
    weight, bias = fit_evidence(calls)
    return Calibration(
        evidence_weight=weight.reshape(shape).astype(np.float32),
        evidence_bias=bias,
        chunk=logistic_fit(
            np.concatenate(of_chunks), chunk_outcomes, chunk_weights, PENALTY, rising=RISING
        ),
        call=logistic_fit(np.stack(of_calls), call_outcomes, call_weights, PENALTY),
        outcome=outcome,
    )


def fit_prior_weight(
    calls: Sequence[LabelledCall], scores: Sequence[Floats], prior: Prior
) -> float | None:
    """Return the weight of prior terms beside scores under which gold chunks are likeliest.

    Scores and terms are scaled so that they minimise the listwise loss, see `training.fit`; the
    weight is the ratio of both scales. Without a scale for scores, terms would be weighed for what
    scores that are too timid or too sure lack.

    Args:
        calls: The calls; twins, and calls without these terms or without gold and other chunks,
            don't count.
        scores: As in `fit_calibration`.
        prior: Of which kind the terms are.

    Returns:
        The weight, at least 0; None if no call counts.
    """
    known = [
        (own.priors[prior], values, own.gold / own.gold.sum(), own.source)
        for own, values in zip(calls, scores, strict=True)
        if prior in own.priors and own.answerable is None and 0 < own.gold.mean() < 1
    ]
    if not known:
        return None
    weights = source_weights([source for *_, source in known])

    def loss(scales: Floats) -> float:
        losses = []
        for terms, values, share, _ in known:
            fused = scales[0] * values + scales[1] * terms
            losses.append(float(np.logaddexp.reduce(fused)) - float(fused @ share))
        return float(weights @ np.array(losses))

    bounds = ((_LEAST_SCALE, None), (0.0, None))
    scales = minimize(loss, np.array([1.0, 0.0]), method="L-BFGS-B", bounds=bounds).x
    return float(scales[1] / scales[0])


def out_of_fold_evidence(calls: Sequence[LabelledCall]) -> Floats:
    """Return each call's greatest evidence logit, [I], by a readout fitted without its fold."""
    best = np.zeros(len(calls))
    for fold in sorted({own.fold for own in calls}):
        weight, bias = fit_evidence([own for own in calls if own.fold != fold])
        for place, own in enumerate(calls):
            if own.fold == fold:
                best[place] = float((own.features @ weight).max()) + bias
    return best


def fit_evidence(calls: Sequence[LabelledCall]) -> tuple[Floats, float]:
    """Return weights [F] and bias of a logistic readout that tells gold chunks from all others.

    Raises:
        InputError: If all chunks are gold, or none is.
    """
    features = np.concatenate([own.features for own in calls] or [np.zeros((0, 1), np.float32)])
    gold = np.concatenate([own.gold for own in calls] or [np.zeros(0, dtype=bool)])
    _check(gold, "chunk's gold label")
    sizes = [len(own.gold) for own in calls]
    weights = np.repeat(source_weights([own.source for own in calls]) / sizes, sizes)
    *slopes, constant = logistic_fit(features, gold, weights, EVIDENCE_RIDGE)
    return np.array(slopes), constant


def _outcomes(
    calls: Sequence[LabelledCall], places: Sequence[int], what: str
) -> tuple[Bools, Floats]:
    """Return outcomes of chunks or calls, and weights by which every source counts the same."""
    own = [
        calls[place].matters if what == "chunk" else np.array([calls[place].answerable])
        for place in places
    ]
    outcomes = np.concatenate([np.asarray(one, dtype=bool) for one in own] or [np.zeros(0, bool)])
    _check(outcomes, f"{what}'s outcome")
    sizes = [len(np.asarray(one)) for one in own]
    of_call = source_weights([calls[place].source for place in places])
    return outcomes, np.repeat(of_call / sizes, sizes)


def _check(outcomes: Bools, what: str) -> None:
    if len(set(outcomes.tolist())) < 2:
        raise InputError(
            f"calibration needs both kinds of each outcome, but {int(outcomes.sum())} of "
            f"{len(outcomes)} times a {what} is true; pass more examples"
        )


def logistic_fit(
    terms: npt.NDArray[np.floating],
    outcomes: Bools,
    weights: Floats,
    ridge: float,
    *,
    rising: int = 0,
) -> tuple[float, ...]:
    """Return the slopes and the constant that make outcomes likeliest.

    Args:
        terms: [N, T].
        outcomes: [N].
        weights: [N], adding up to 1.
        ridge: Penalty r in `loss + r / 2 * |v|^2`, v the slopes of the standardised terms.
        rising: How many slopes, from the first, may not be below 0.
    """
    mean, scale = terms.mean(axis=0, dtype=float), terms.std(axis=0, dtype=float) + 1e-9
    values = np.hstack([(terms - mean) / scale, np.ones((len(terms), 1))])
    signs = np.where(outcomes, 1.0, -1.0)

    def loss(vector: Floats) -> tuple[float, Floats]:
        margins = signs * (values @ vector)
        penalty = ridge * vector
        penalty[-1] = 0.0
        slope = values.T @ (-weights * signs * np.exp(-np.logaddexp(0.0, margins)))
        total = float(weights @ np.logaddexp(0.0, -margins)) + float(penalty @ vector) / 2
        return total, slope + penalty

    count = terms.shape[1]
    bounds = [(0.0, None)] * rising + [(None, None)] * (count + 1 - rising)
    found = minimize(loss, np.zeros(count + 1), jac=True, method="L-BFGS-B", bounds=bounds)
    slopes = found.x[:-1] / scale
    return (*map(float, slopes), float(found.x[-1] - slopes @ mean))
