"""Calibrates head weights by labelled examples."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from at2_rag.arrays import Floats
from at2_rag.errors import InputError
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.training.calibrating.examples import CalibrationExamples
from at2_rag.training.calibrating.multi_hop import MultiHopFigures, fit_multi_hop, judge_multi_hop
from at2_rag.training.calibrating.probabilities import (
    CalibrationSample,
    fit_calibration,
    fit_prior_weight,
    with_evidence,
    with_evidence_of,
)
from at2_rag.training.calibrating.samples import SampleReader
from at2_rag.training.calibrating.sentences import fit_sentences, sentence_samples

LearnedPrior: TypeAlias = Literal["score", "cosine"]  # ranks of scores, or scores that are cosines

_PRIOR_FIELDS: Mapping[LearnedPrior, str] = {"score": "prior_weight", "cosine": "cosine_weight"}

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Calibrated:
    """What a calibration learned."""

    weights: HeadWeights
    samples: Sequence[CalibrationSample]  # what it was fitted to
    multi_hop: Sequence[MultiHopFigures]  # of the second reading, where that was learned


def calibrate(
    reader: SampleReader,
    examples: CalibrationExamples,
    *,
    priors: Sequence[LearnedPrior] = ("score",),
    multi_hop: bool = False,
    sentences: bool = False,
) -> Calibrated:
    """Learn what turns the scores of the reader's head weights into probabilities.

    Of head weights that are calibrated the calibration is adapted, see `fit_calibration`. What an
    earlier calibration learned and this one doesn't is kept, with a warning.
    """
    weights = reader.weights
    _check_options(weights, multi_hop=multi_hop, sentences=sentences)
    samples = reader.read(examples, priors=priors)
    reader.progress("fit", 0, 1)
    start, shape = weights.calibration, weights.weight.shape
    scores = [weights.score(sample.features) for sample in samples]
    if start is None:
        scored = with_evidence(samples, scores)
    else:
        scored = with_evidence_of(start, samples, scores)
    calibration = fit_calibration(scored, shape, start=start)
    calibration = replace(calibration, unread=reader.unread(examples.chosen))
    learned: dict[str, Any] = {"calibration": calibration}
    for prior in priors:
        weight = fit_prior_weight(scored, prior)
        if weight is not None:
            learned[_PRIOR_FIELDS[prior]] = weight
    reader.progress("fit", 1, 1)
    figures: list[MultiHopFigures] = []
    after: dict[int, Floats] = {}
    if multi_hop:
        again = reader.read_again(examples.chosen, scored)
        second_samples = list(again.values())
        learned["multi_hop"], second_scores = fit_multi_hop(second_samples, shape[1:])
        figures = judge_multi_hop(second_samples, second_scores)
        after = dict(zip(again, second_scores, strict=True))
    if sentences:
        sentence_scores = reader.read_sentences(examples.chosen)
        learned["sentences"] = fit_sentences(
            sentence_samples(scored, examples.chosen, sentence_scores, after)
        )
    kept = [
        name.replace("_", "-")
        for name in ("multi_hop", "sentences")
        if getattr(weights, name) is not None and name not in learned
    ]
    if kept:
        _logger.warning(
            "the %s weights of an earlier calibration are kept; their probabilities were fitted "
            "beside that one's",
            " and ".join(kept),
        )
    return Calibrated(replace(weights, **learned), samples, figures)


def _check_options(weights: HeadWeights, *, multi_hop: bool, sentences: bool) -> None:
    if multi_hop and "together" not in weights.spec.passes:
        raise InputError(
            "multi-hop weights can't be learned for head weights for the passes "
            f"{', '.join(weights.spec.passes)}: a question is read again by the pass 'together'; "
            "leave multi-hop off, or use weights for it"
        )
    if sentences and weights.multi_hop is not None and not multi_hop:
        raise InputError(
            "sentence weights can't be learned alone for head weights with multi-hop weights, "
            "since sentences are scored after the second reading, too; pass both"
        )
    if weights.score_scale != "logit":
        raise InputError(
            f"the head weights' scores are {weights.score_scale}; only logits can be calibrated, "
            "as those of weights fitted to evidence labels are"
        )
