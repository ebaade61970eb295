"""The calibrator: head weights and labelled examples in, calibrated head weights out."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from at2_rag.errors import InputError
from at2_rag.model.fingerprint import model_fingerprint
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.readout.calibration import Outcome
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.text.chunks import Prior
from at2_rag.training.answering.answer_model import AnswerModel
from at2_rag.training.calibrating.examples import CalibrationExamples
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

_PRIOR_FIELDS: Mapping[Prior, str] = {"score": "prior_weight", "cosine": "cosine_weight"}

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


class Calibrator:
    """Learns what makes probabilities of the scores of head weights.

    Args:
        model: A transformers causal LM with its LM head.
        tokenizer: Its fast tokenizer.
        head_weights: What to calibrate. Their scores are logits, and they were fitted on other
            examples than those of `fit`.
        folder: Where what is read is kept: a rerun reads nothing again.
        outcome: What makes a chunk relevant: that it is labelled gold ("evidence"), or that the
            right answer is less likely without it ("removal"), for which each is left out in turn.
        priors: What to weigh of the chunks' retrieval scores: their ranks ("score"), or the scores
            themselves where they are cosines ("cosine").
        multi_hop: Whether to learn multi-hop weights; the head weights' reading is "independent".
        sentences: Whether to learn sentence weights.
        folds: Number of folds.
        seed: Of the folds.
        workers: Threads that each read examples of their own, best with one torch thread each;
            None for as many as there are cores.
        progress: Called with the name of a stage, the steps done and the steps in all.

    Raises:
        HeadWeightsMismatchError: If the head weights are for another model or wording.
        InputError: If the head weights can't be calibrated so.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        head_weights: HeadWeights,
        folder: str | os.PathLike[str],
        *,
        outcome: Outcome = "evidence",
        priors: Sequence[Prior] = ("score",),
        multi_hop: bool = False,
        sentences: bool = False,
        folds: int = 5,
        seed: int = 0,
        workers: int | None = None,
        progress: Progress = lambda stage, done, total: None,
    ) -> None:
        answer_model = AnswerModel(model, tokenizer)
        fingerprint = model_fingerprint(model.base_model, tokenizer)
        head_weights.check(
            fingerprint=fingerprint,
            template_hash=answer_model.scoring_model.prompts.template_hash,
        )
        _check(head_weights, multi_hop=multi_hop, sentences=sentences)
        self._weights, self._outcome, self._priors = head_weights, outcome, priors
        self._multi_hop, self._sentences, self._progress = multi_hop, sentences, progress
        self._reader = SampleReader(
            ScoringModel(model, tokenizer, depth=head_weights.layers),
            answer_model,
            head_weights,
            Path(folder),
            fingerprint=fingerprint,
            folds=folds,
            seed=seed,
            workers=workers or os.cpu_count() or 1,
            progress=progress,
        )
        self.samples: Sequence[CalibrationSample] = ()
        """What `fit` was fitted to."""
        self._multi_hop_samples: Sequence[MultiHopSample] = ()

    def fit(self, examples: CalibrationExamples) -> HeadWeights:
        """Return the head weights with a calibration, and with all else that was to be learned.

        What an earlier calibration of the head weights learned and this one doesn't is kept, with a
        warning.

        Args:
            examples: See `choose_examples`.

        Raises:
            InputError: If the examples don't have both kinds of an outcome.
            DataError: If the folder holds something else.
            StorageError: If the folder can't be written.
        """
        weights, reader = self._weights, self._reader
        samples = reader.read(examples, outcome=self._outcome, priors=self._priors)
        self._progress("fit", 0, 1)
        scores = [weights.score(sample.features) for sample in samples]
        evidence = out_of_fold_evidence(samples)
        calibration = fit_calibration(
            samples, scores, evidence, weights.weight.shape, outcome=self._outcome
        )
        learned: dict[str, Any] = {
            _PRIOR_FIELDS[prior]: weight
            for prior in self._priors
            if (weight := fit_prior_weight(samples, scores, prior)) is not None
        }
        self._progress("fit", 1, 1)
        after = {}
        if self._multi_hop:
            again = reader.read_again(examples, samples, scores, evidence)
            learned["multi_hop"] = fit_multi_hop(again, weights.weight.shape[1:])
            after = dict(zip([hop.index for hop in again], scores_after(again), strict=True))
            self._multi_hop_samples = again
        if self._sentences:
            rows = reader.read_sentences(examples)
            learned["sentences"] = fit_sentences(
                sentence_samples(samples, examples.chosen, rows, scores, after, evidence)
            )
        self._warn_of_kept(learned)
        self.samples = samples
        return replace(weights, calibration=calibration, **learned)

    def study(self, further: CalibrationExamples | None = None) -> CalibrationStudy:
        """Judge each source that `fit` was fitted to by what is fitted to the others.

        Args:
            further: More examples of those sources, which nothing is fitted to, to be judged for
                what one max_missed keeps; see `choose_judged`.

        Raises:
            InputError: If `fit` wasn't called, or what is left of the others can't be fitted to.
        """
        if not self.samples:
            raise InputError("nothing is fitted yet; call fit before study")
        more = self._reader.read(further, subfolder="judged") if further else []
        probabilities, transfer = study_left_out_sources(
            self.samples,
            self._weights.weight.shape,
            more,
            progress=lambda done, total: self._progress("left-out sources", done, total),
        )
        multi_hop = judge_multi_hop(self._multi_hop_samples)
        return CalibrationStudy(probabilities, transfer, multi_hop)

    def _warn_of_kept(self, learned: dict[str, Any]) -> None:
        kept = [
            name.replace("_", "-")
            for name in ("multi_hop", "sentences")
            if getattr(self._weights, name) is not None and name not in learned
        ]
        if kept:
            _logger.warning(
                "the %s weights of an earlier calibration are kept; their probabilities were "
                "fitted beside that one's",
                " and ".join(kept),
            )


def _check(weights: HeadWeights, *, multi_hop: bool, sentences: bool) -> None:
    if multi_hop and weights.reading == "joint":
        raise InputError(
            "multi-hop weights can't be learned for head weights of joint reading, which keeps no "
            "states to read again over; leave multi-hop off, or use weights for independent reading"
        )
    if sentences and weights.multi_hop is not None and not multi_hop:
        raise InputError(
            "sentence weights can't be learned without multi-hop weights here: sentences are "
            "scored after the second reading, too, which the head weights have; pass both"
        )
    if weights.score_scale != "logit":
        raise InputError(
            f"the head weights' scores are {weights.score_scale}; only logits can be calibrated, "
            "as those of weights fitted to evidence labels are"
        )
