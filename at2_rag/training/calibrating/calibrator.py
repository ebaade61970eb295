"""The calibrator: head weights and labelled examples in, calibrated head weights out."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from at2_rag.errors import InputError
from at2_rag.model.loading import LoadedModel
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.readout.calibration import Outcome
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.readout.lookup import check_match
from at2_rag.training.answering.answer_model import AnswerModel
from at2_rag.training.calibrating.examples import CalibrationExamples
from at2_rag.training.calibrating.fits import Floats
from at2_rag.training.calibrating.multi_hop import (
    MultiHopFigures,
    MultiHopSample,
    fit_multi_hop,
    judge_multi_hop,
    scores_after,
)
from at2_rag.training.calibrating.probabilities import (
    CalibrationSample,
    fit_calibration,
    fit_prior_weight,
    out_of_fold_evidence,
)
from at2_rag.training.calibrating.samples import Progress, SampleReader
from at2_rag.training.calibrating.sentences import fit_sentences, sentence_samples
from at2_rag.training.calibrating.study import CalibrationFigures, study_left_out_sources
from at2_rag.training.calibrating.transfer import TransferFigures

LearnedPrior: TypeAlias = Literal["score", "cosine"]
"""What is weighed of retrieval scores: their ranks, or the scores where they are cosines."""

_PRIOR_FIELDS: Mapping[LearnedPrior, str] = {"score": "prior_weight", "cosine": "cosine_weight"}

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CalibrationStudy:
    """How good a calibration is on questions that had no part in it.

    Attributes:
        probabilities: Figures of each source left out and of all; none with a single source.
        transfer: What one max_missed keeps on each source left out; none with a single source.
        multi_hop: Figures of the second reading; none without.
    """

    probabilities: Sequence[CalibrationFigures]
    transfer: Sequence[TransferFigures]
    multi_hop: Sequence[MultiHopFigures]


@dataclass(eq=False)
class Calibrator:
    """Learns what turns the scores of head weights into probabilities.

    Attributes:
        model: The scoring model, a causal LM with its LM head.
        head_weights: What to calibrate. Their scores are logits, and they were fitted on other
            examples than those of `fit`.
        folder: Where what is read is kept: a rerun reads nothing again.
        outcome: What makes a chunk relevant: that it is labelled gold ("evidence"), or that the
            right answer is less likely without it ("removal"), for which each is left out in turn.
        priors: What to weigh of the chunks' retrieval scores, see `LearnedPrior`.
        multi_hop: Whether to learn multi-hop weights; the head weights' reading is "independent".
        sentences: Whether to learn sentence weights.
        folds: Number of folds.
        seed: Seed of the folds.
        workers: Threads that read, best with one torch thread each; None for one a core.
        progress: Called with the name of a stage, the steps done and the steps in all.
        samples: What `fit` was fitted to; none before.

    Raises:
        HeadWeightsMismatchError: If the head weights are for another model or wording.
        InputError: If the head weights can't be calibrated so.
    """

    model: LoadedModel
    head_weights: HeadWeights
    folder: str | os.PathLike[str]
    _: KW_ONLY
    outcome: Outcome = "evidence"
    priors: Sequence[LearnedPrior] = ("score",)
    multi_hop: bool = False
    sentences: bool = False
    folds: int = 5
    seed: int = 0
    workers: int | None = None
    progress: Progress = lambda stage, done, total: None
    samples: Sequence[CalibrationSample] = field(default=(), init=False)
    _multi_hop_samples: Sequence[MultiHopSample] = field(default=(), init=False)

    def __post_init__(self) -> None:
        hf_model, tokenizer = self.model.model, self.model.tokenizer
        answer_model = AnswerModel(hf_model, tokenizer)
        check_match(self.head_weights, self.model, template_hash=answer_model.prompts.template_hash)
        self._check_options()
        self._reader = SampleReader(
            ScoringModel(hf_model, tokenizer, depth=self.head_weights.layers),
            answer_model,
            self.head_weights,
            Path(self.folder),
            fingerprint=self.model.fingerprint,
            folds=self.folds,
            seed=self.seed,
            workers=self.workers or os.cpu_count() or 1,
            progress=self.progress,
        )

    def fit(self, examples: CalibrationExamples) -> HeadWeights:
        """Return the head weights with a calibration, and with all else that was to be learned.

        What an earlier calibration learned and this one doesn't is kept, with a warning.

        Args:
            examples: See `choose_examples`.

        Raises:
            InputError: If the examples don't have both kinds of an outcome.
            DataError: If the folder holds something else.
            StorageError: If the folder can't be written.
        """
        weights, reader = self.head_weights, self._reader
        samples = reader.read(examples, outcome=self.outcome, priors=self.priors)
        self.progress("fit", 0, 1)
        scores = [weights.score(sample.features) for sample in samples]
        evidence = out_of_fold_evidence(samples)
        shape, outcome = weights.weight.shape, self.outcome
        calibration = fit_calibration(samples, scores, evidence, shape, outcome=outcome)
        learned: dict[str, Any] = {"calibration": calibration}
        for prior in self.priors:
            weight = fit_prior_weight(samples, scores, prior)
            if weight is not None:
                learned[_PRIOR_FIELDS[prior]] = weight
        self.progress("fit", 1, 1)
        after: dict[int, Floats] = {}
        if self.multi_hop:
            again = reader.read_again(examples, samples, scores, evidence)
            learned["multi_hop"] = fit_multi_hop(again, shape[1:])
            after = dict(zip([sample.index for sample in again], scores_after(again), strict=True))
            self._multi_hop_samples = again
        if self.sentences:
            rows = reader.read_sentences(examples)
            learned["sentences"] = fit_sentences(
                sentence_samples(samples, examples.chosen, rows, scores, after, evidence)
            )
        kept = [
            name.replace("_", "-")
            for name in ("multi_hop", "sentences")
            if getattr(weights, name) is not None and name not in learned
        ]
        if kept:
            _logger.warning(
                "the %s weights of an earlier calibration are kept; their probabilities were "
                "fitted beside that one's",
                " and ".join(kept),
            )
        self.samples = samples
        return replace(weights, **learned)

    def study(self, further: CalibrationExamples | None = None) -> CalibrationStudy:
        """Judge each source that `fit` was fitted to by what is fitted to the others.

        Args:
            further: More examples of those sources, which nothing is fitted to, to see what one
                max_missed keeps of them, too; see `choose_judged`.

        Raises:
            InputError: If `fit` wasn't called, or what is left of the others can't be fitted to.
        """
        if not self.samples:
            raise InputError("nothing is fitted yet; call fit before study")
        probabilities, transfer = study_left_out_sources(
            self.samples,
            self.head_weights.weight.shape,
            self._reader.read(further, subfolder="judged") if further else (),
            progress=lambda done, total: self.progress("left-out sources", done, total),
        )
        return CalibrationStudy(probabilities, transfer, judge_multi_hop(self._multi_hop_samples))

    def _check_options(self) -> None:
        weights = self.head_weights
        if self.multi_hop and weights.reading == "joint":
            raise InputError(
                "multi-hop weights can't be learned for head weights of joint reading, which keeps "
                "no states to read again over; leave multi-hop off, or use weights for independent "
                "reading"
            )
        if self.sentences and weights.multi_hop is not None and not self.multi_hop:
            raise InputError(
                "sentence weights can't be learned alone for head weights with multi-hop weights, "
                "since sentences are scored after the second reading, too; pass both"
            )
        if weights.score_scale != "logit":
            raise InputError(
                f"the head weights' scores are {weights.score_scale}; only logits can be "
                "calibrated, as those of weights fitted to evidence labels are"
            )
