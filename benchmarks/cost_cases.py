"""The ways to score a question's chunks whose cost is compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from interleaved import Case
from measured_model import DEFAULT, JOINT, TOGETHER, MeasuredModel
from reference_at2 import ReferenceAT2
from speed_prompts import Prompt

from at2_rag.attribution import AT2Attributor
from at2_rag.errors import HeadWeightsNotFoundError
from at2_rag.reading.chunk_states import ChunkState
from at2_rag.readout.head_weights import UNIFORM
from at2_rag.training.answering.ablation import ablate_by_masking, ablate_by_removal, draw_masks
from at2_rag.training.answering.answer_model import AnswerModel
from at2_rag_evals.fidelity.masks import FIT_KEEP, FIT_MASKS
from at2_rag_evals.fidelity.systems.regression import sparse_fit

ANSWER_TOKENS = 32
"""Most tokens of an answer, ours and the reference's."""

BATCH_SIZES = (1, 4, 8)
"""Masks that removal reads at a time; the fastest is taken."""

COLD, READY = "cold", "ready states"
COLD_TOGETHER, READY_TOGETHER = "cold (together)", "ready states (together)"
JOINT_READING = "joint"
OURS = {
    COLD: DEFAULT,
    READY: DEFAULT,
    COLD_TOGETHER: TOGETHER,
    READY_TOGETHER: TOGETHER,
    JOINT_READING: JOINT,
}
"""Scoring by the pruner, no answer needed, and the head weights used."""

REMOVAL = "32 removals"
MASKING = "masked-state regression"
ATTRIBUTION = "our answer attribution"
REFERENCE = "reference AT2, answer generated"
REFERENCE_GIVEN = "reference AT2, answer given"
REFERENCES = (REFERENCE, REFERENCE_GIVEN)


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt with what the costlier ways need.

    Attributes:
        prompt: Question and chunks.
        answer: The model's own greedy answer to them.
        masks: [M, S] bool, what ablations keep, by the number of tokens kept.
    """

    prompt: Prompt
    answer: str
    masks: npt.NDArray[np.bool_]


def make_questions(
    measured: MeasuredModel, prompts: Sequence[Prompt], *, seed: int
) -> list[Question]:
    """Answer prompts and draw masks for them.

    Args:
        measured: The model that answers.
        prompts: Prompts with at least two chunks.
        seed: Of the masks.
    """
    model = AnswerModel(measured.model, measured.tokenizer)
    questions = []
    for number, prompt in enumerate(prompts):
        layout = model.prompts.joint(prompt.query, prompt.chunks)
        [answer] = model.generate([layout], max_new_tokens=ANSWER_TOKENS)
        rng = np.random.default_rng([seed, number])
        masks = draw_masks(len(prompt.chunks), FIT_MASKS, rng, keep=FIT_KEEP)
        tokens = masks @ np.array([len(ids) for ids in layout.source_ids])
        order = np.argsort(tokens, kind="stable")  # so that a batch's prompts are alike in length
        # Where the model says nothing, something has to be read all the same.
        questions.append(Question(prompt, answer or prompt.query, masks[order]))
    return questions


@dataclass(frozen=True, slots=True)
class CostCases:
    """Makes cases over questions.

    Attributes:
        measured: The model.
        questions: What is scored.
        reference: The reference implementation; None where it isn't installed.
    """

    measured: MeasuredModel
    questions: Sequence[Question]
    reference: ReferenceAT2 | None

    def all(self, *, batch: int) -> dict[str, Case]:
        """Return every case by name.

        Args:
            batch: Masks that removal reads at a time.
        """
        names = [*OURS, ATTRIBUTION, MASKING, REMOVAL]
        names += REFERENCES if self.reference else ()
        return {name: self.case(name, batch=batch) for name in names}

    def case(self, name: str, *, batch: int) -> Case:
        """Return one case; `batch` as in `all`."""
        if name in OURS:
            return self._score(name)
        if name == ATTRIBUTION:
            return self._case(self._attribution())
        if name == REMOVAL:
            return self.removal(batch)
        if name == MASKING:
            return self._case(self._masking())
        return self._case(self._reference(given=name == REFERENCE_GIVEN))

    def removal(self, batch: int) -> Case:
        """Return the ablations by removal, so many masks at a time."""
        model = self._answer_model()

        def run(question: Question) -> None:
            prompt, masks = question.prompt, question.masks
            for start in range(0, len(masks), batch):
                part = masks[start : start + batch]
                ablate_by_removal(
                    model, prompt.query, prompt.chunks, question.answer, part, shared=False
                )

        return self._case(run)

    def _score(self, name: str) -> Case:
        store: dict[str, ChunkState] | None = {} if name in (READY, READY_TOGETHER) else None
        pruner = self.measured.pruner(OURS[name], chunk_cache=store)
        return self._case(lambda q: pruner.score(q.prompt.query, q.prompt.chunks))

    def _attribution(self) -> Callable[[Question], object]:
        attributor = answer_attributor(self.measured)
        return lambda q: attributor.attribute(q.prompt.query, q.prompt.chunks, q.answer)

    def _masking(self) -> Callable[[Question], object]:
        model = self._answer_model()

        def run(question: Question) -> object:
            prompt, masks = question.prompt, question.masks
            found = ablate_by_masking(model, prompt.query, prompt.chunks, question.answer, masks)
            tokens = found.token_logits.shape[1]
            return sparse_fit(masks, found.logit_probabilities, tokens=tokens)

        return run

    def _reference(self, *, given: bool) -> Callable[[Question], object]:
        reference = self.reference
        assert reference is not None  # these cases are made only where it is there
        return lambda q: reference.scores(
            q.prompt, answer=q.answer if given else None, answer_tokens=ANSWER_TOKENS
        )

    def _answer_model(self) -> AnswerModel:
        return AnswerModel(self.measured.model, self.measured.tokenizer)

    def _case(self, run: Callable[[Question], object]) -> Case:
        def timed(number: int) -> Mapping[str, float]:
            run(self.questions[number])
            return {}

        return timed


def answer_attributor(measured: MeasuredModel) -> AT2Attributor:
    """Return the attributor with shipped weights; all heads alike where none are shipped."""

    def made(head_weights: str | None) -> AT2Attributor:
        return AT2Attributor(
            model=measured.model,
            tokenizer=measured.tokenizer,
            head_weights=head_weights,
            fingerprint=measured.fingerprint,
        )

    try:
        return made(None)
    except HeadWeightsNotFoundError:
        return made(UNIFORM)
