"""Fits the calibration of chunks' and answers' probabilities. No model is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from at2_rag.arrays import Bools, Floats
from at2_rag.readout.calibration import (
    RISING,
    Calibration,
    call_terms,
    chunk_terms,
    total_evidence,
)
from at2_rag.text.chunks import Prior
from at2_rag.training.calibrating.fits import (
    Labelled,
    fit_logistic,
    out_of_fold,
    source_weights,
)
from at2_rag.training.collection.lists import ListKind

EVIDENCE_RIDGE = 0.1  # of the second readout, on the weights of standardised features
LISTS_OF_CHUNKS: Mapping[ListKind, float] = {
    "retrieved": 3.0,
    "twin with gold": 1.0,
    "twin without gold": 1.0,
    "with an echo": 1.0,
}
"""Kinds of lists that chunks' probabilities are fitted to, with the weight of each.

Of others, which are short or all unrelated, all that matters is that no chunk is likelier than the
question is answerable.
"""
_LEAST_SCALE = 0.1  # of scores that say nothing


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationSample:
    """The features of one question's chunks, and what is to be predicted from them."""

    source: str
    fold: int
    features: npt.NDArray[np.float32]  # [S, F], S at least 1; NaN as in `HeadWeights.score`
    gold: Bools  # [S], labelled as evidence
    kind: ListKind = "retrieved"
    priors: Mapping[Prior, Floats] = field(default_factory=dict)  # [S] of each kind of terms
    question: int = 0  # index of the question, among those that were chosen

    @property
    def is_retrieved(self) -> bool:
        """Whether the chunks are those that a retriever returned, none left out or exchanged."""
        return self.kind == "retrieved"

    @property
    def is_ranked(self) -> bool:
        """Whether its ranking can be judged: it is as retrieved, with gold and other chunks."""
        return self.is_retrieved and bool(self.gold.any()) and not self.gold.all()

    @property
    def is_answered(self) -> bool:
        """Whether any of the chunks holds evidence."""
        return bool(self.gold.any())


class ScoredSample(NamedTuple):
    """A sample, scored by fits that it had no part in."""

    sample: CalibrationSample
    scores: Floats  # [S]
    evidence: float  # see `Calibration`


def with_evidence(
    samples: Sequence[CalibrationSample], scores: Sequence[Floats]
) -> list[ScoredSample]:
    """Return samples with scores, and with evidence by a readout fitted without their fold."""
    readouts = out_of_fold(_gold_features(samples), fit_evidence)
    return [
        ScoredSample(sample, values, total_evidence(sample.features @ weight + bias))
        for sample, values, (weight, bias) in zip(samples, scores, readouts, strict=True)
    ]


def with_evidence_of(
    calibration: Calibration, samples: Sequence[CalibrationSample], scores: Sequence[Floats]
) -> list[ScoredSample]:
    """Return samples with scores, and with evidence by a calibration that never saw them."""
    return [
        ScoredSample(sample, values, calibration.evidence(sample.features))
        for sample, values in zip(samples, scores, strict=True)
    ]


def fit_calibration(
    scored: Sequence[ScoredSample],
    shape: tuple[int, int, int],
    *,
    start: Calibration | None = None,
) -> Calibration:
    """Return the calibration, its readout shaped [P, L, H], that makes the labels likeliest.

    Chunks' probabilities are fitted to the `LISTS_OF_CHUNKS`, calls' to lists of all kinds.

    With a `start`, a calibration fitted to other questions, its readout is kept and its slopes are
    changed as far as these questions call for it, which takes far fewer of them. The evidence of
    `scored` is by that readout then.
    """
    of_chunks, of_calls = [], []
    for sample, scores, evidence in scored:
        source, fold = sample.source, sample.fold
        if weight := LISTS_OF_CHUNKS.get(sample.kind, 0.0):
            of_chunks.append(Labelled(source, fold, chunk_terms(scores), sample.gold, weight))
        answered = np.array([sample.is_answered])
        of_calls.append(Labelled(source, fold, call_terms(scores, evidence)[None], answered))
    before = (None, None) if start is None else (start.chunk, start.call)
    chunk = fit_logistic(of_chunks, name="chunk's gold label", rising=RISING, start=before[0])
    call = fit_logistic(of_calls, name="call's outcome", start=before[1])
    if start is not None:
        return replace(start, chunk=chunk, call=call)
    readout, bias = fit_evidence(_gold_features([sample for sample, _, _ in scored]))
    return Calibration(readout.reshape(shape).astype(np.float32), bias, chunk, call)


def fit_prior_weight(scored: Sequence[ScoredSample], prior: Prior) -> float | None:
    """Return the weight of prior terms beside scores that makes gold chunks likeliest.

    Scores and terms each get a scale that minimises the listwise loss; the weight, at least 0, is
    the ratio of the two. With a scale for the terms alone, they would make up for scores that are
    too timid or too sure. None if no sample that can be ranked has such terms.
    """
    known = [
        (sample.priors[prior], scores, sample.gold / sample.gold.sum(), sample.source)
        for sample, scores, _ in scored
        if prior in sample.priors and sample.is_ranked
    ]
    if not known:
        return None
    weights = source_weights([source for *_, source in known])

    def loss(scales: Floats) -> float:
        losses = []
        for terms, scores, share, _ in known:
            fused = scales[0] * scores + scales[1] * terms
            losses.append(float(np.logaddexp.reduce(fused)) - float(fused @ share))
        return float(weights @ np.array(losses))

    bounds = ((_LEAST_SCALE, None), (0.0, None))
    scales = minimize(loss, np.array([1.0, 0.0]), method="L-BFGS-B", bounds=bounds).x
    return float(scales[1] / scales[0])


def fit_evidence(samples: Sequence[Labelled]) -> tuple[Floats, float]:
    """Return weights [F] and bias of a logistic readout that tells gold chunks from all others."""
    name = "chunk's gold label"
    *slopes, constant = fit_logistic(samples, name=name, ridge=EVIDENCE_RIDGE)
    return np.array(slopes), constant


def _gold_features(samples: Sequence[CalibrationSample]) -> list[Labelled]:
    read = [~np.isnan(one.features[:, -1]) for one in samples]  # by all passes
    return [
        Labelled(one.source, one.fold, one.features[rows], one.gold[rows])
        for one, rows in zip(samples, read, strict=True)
    ]
