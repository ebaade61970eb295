"""Fits the calibration of chunks' and answers' probabilities. Pure numbers, no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from at2_rag.readout.calibration import RISING, Calibration, Outcome, call_terms, chunk_terms
from at2_rag.text.chunks import Prior
from at2_rag.training.calibrating.fits import Bools, Floats, Row, fit_link, out_of_fold
from at2_rag.training.fitting.samples import source_weights

EVIDENCE_RIDGE = 0.1
"""Ridge penalty of the second readout, on the weights of standardised features."""

_LEAST_SCALE = 0.1  # of scores that say nothing


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationSample:
    """The features of one question's chunks, and what is to be predicted from them.

    Attributes:
        source: The data set it is from; each counts the same in a fit.
        fold: Samples of one fold are scored by a second readout fitted without them.
        features: [S, F] float32, of its chunks, at least one.
        gold: [S] bool, whether each chunk is evidence.
        words: [S] int64, the chunks' lengths, which no fit uses.
        relevant: [S] bool, whether each chunk is relevant by the outcome chosen; None where that
            isn't known.
        answerable: For a twin whether its chunks hold the answer; None for any other sample.
        priors: [S] of each kind of prior terms to be weighed, where the retriever gave any.
        example: Index of the example that it is, or is a twin of.
    """

    source: str
    fold: int
    features: npt.NDArray[np.float32]
    gold: Bools
    words: npt.NDArray[np.int64]
    relevant: Bools | None = None
    answerable: bool | None = None
    priors: Mapping[Prior, Floats] = field(default_factory=dict)
    example: int = 0

    @property
    def is_ranked(self) -> bool:
        """Whether its ranking can be judged: it is no twin, and has gold and other chunks."""
        return self.answerable is None and bool(self.gold.any()) and not self.gold.all()


def fit_calibration(
    samples: Sequence[CalibrationSample],
    scores: Sequence[Floats],
    evidence: Sequence[float],
    shape: tuple[int, int, int],
    *,
    outcome: Outcome = "evidence",
) -> Calibration:
    """Return the calibration of head weights under which the outcomes are likeliest.

    Args:
        samples: Some with relevant and other chunks, some answerable and some not.
        scores: For each sample its chunks' scores [S], by weights that were fitted without it.
        evidence: What `out_of_fold_evidence` returns for the samples.
        shape: The head weights', [P, L, H].
        outcome: What makes a chunk relevant.

    Raises:
        InputError: If all outcomes of one kind are the same, or there are none.
    """
    rows = list(zip(samples, scores, evidence, strict=True))
    chunk = fit_link(
        [
            Row(sample.source, chunk_terms(values, best), sample.relevant)
            for sample, values, best in rows
            if sample.relevant is not None
        ],
        name="chunk's outcome",
        rising=RISING,
    )
    call = fit_link(
        [
            Row(sample.source, call_terms(values, best)[None], np.array([sample.answerable]))
            for sample, values, best in rows
            if sample.answerable is not None
        ],
        name="call's outcome",
    )
    weight, bias = fit_evidence(samples)
    return Calibration(
        evidence_weight=weight.reshape(shape).astype(np.float32),
        evidence_bias=bias,
        chunk=chunk,
        call=call,
        outcome=outcome,
    )


def fit_prior_weight(
    samples: Sequence[CalibrationSample], scores: Sequence[Floats], prior: Prior
) -> float | None:
    """Return the weight of prior terms beside scores under which gold chunks are likeliest.

    Scores and terms each get a scale that minimises the listwise loss, see `fit_listwise`; the
    weight is the ratio of the two. With a scale for the terms alone, they would make up for scores
    that are too timid or too sure.

    Args:
        samples: Those that can't be ranked, and those without these terms, don't count.
        scores: As in `fit_calibration`.
        prior: The kind of terms.

    Returns:
        The weight, at least 0; None if no sample counts.
    """
    known = [
        (sample.priors[prior], values, sample.gold / sample.gold.sum(), sample.source)
        for sample, values in zip(samples, scores, strict=True)
        if prior in sample.priors and sample.is_ranked
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


def out_of_fold_evidence(samples: Sequence[CalibrationSample]) -> list[float]:
    """Return each sample's greatest evidence logit, by a readout fitted without its fold."""
    readouts = out_of_fold(samples, fit_evidence)
    return [
        float((sample.features @ weight).max()) + bias
        for sample, (weight, bias) in zip(samples, readouts, strict=True)
    ]


def fit_evidence(samples: Sequence[CalibrationSample]) -> tuple[Floats, float]:
    """Return weights [F] and bias of a logistic readout that tells gold chunks from all others.

    Raises:
        InputError: If all chunks are gold, or none is.
    """
    *slopes, constant = fit_link(
        [Row(sample.source, sample.features, sample.gold) for sample in samples],
        name="chunk's gold label",
        ridge=EVIDENCE_RIDGE,
    )
    return np.array(slopes), constant
