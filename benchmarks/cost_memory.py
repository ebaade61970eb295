"""Peak memory of the ways to score a question's chunks, and of collecting ablations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from cost_cases import READY, READY_TOGETHER, REFERENCES, CostCases, Question
from measured_model import DEFAULT, Subject
from peak_memory import WARM_UP, CallPeak, in_fresh_process, load_touched, peak_of_call
from reference_at2 import load_reference
from speed_prompts import Prompt

from at2_rag.data.examples import Example
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.text.chunks import Chunk
from at2_rag.training.answering.answer_model import AnswerModel
from at2_rag.training.collection.ablations import AblationPlan, collect_ablations
from at2_rag_evals.fidelity.masks import FIT_MASKS

_WARM_UP = Question(
    Prompt(WARM_UP.query, (*WARM_UP.chunks, Chunk("The Danube flows into the Black Sea."))),
    "Jane Austen wrote it.",
    np.eye(2, dtype=bool),
)


def measure_case(
    subject: Subject, name: str, question: Question, *, batch: int, reference: Sequence[Path]
) -> CallPeak:
    """Measure one case on one question in a fresh process.

    Where states are ready, those of the question's chunks count, but not what making them took.

    Args:
        subject: The model.
        name: The case.
        question: What is scored.
        batch: Masks that removal reads at a time.
        reference: Folders of the reference implementation.

    Raises:
        AT2Error: If the process was killed.
    """
    return in_fresh_process(
        partial(_case_here, subject, name, question, batch, tuple(reference)), f"measured {name!r}"
    )


def measure_collection(subject: Subject, prompt: Prompt) -> CallPeak:
    """Measure the collection of features and ablations of one example, in a fresh process.

    Args:
        subject: The model, which also answers.
        prompt: The example.

    Raises:
        AT2Error: If the process was killed.
    """
    return in_fresh_process(partial(_collection_here, subject, prompt), "collected ablations")


def _case_here(
    subject: Subject, name: str, question: Question, batch: int, reference: Sequence[Path]
) -> CallPeak:
    measured = load_touched(subject)
    theirs = load_reference(measured, reference) if name in REFERENCES else None
    case = CostCases(measured, [_WARM_UP, question], theirs).case(name, batch=batch)
    case(0)
    if name in (READY, READY_TOGETHER):
        return peak_of_call(lambda: case(1), held=lambda: case(1))
    return peak_of_call(lambda: case(1))


def _collection_here(subject: Subject, prompt: Prompt) -> CallPeak:
    measured = load_touched(subject)
    depth = measured.head_weights(DEFAULT)[1].layers
    scoring_model = ScoringModel(measured.model, measured.tokenizer, depth=depth)
    answer_model = AnswerModel(measured.model, measured.tokenizer)

    def collect(prompt: Prompt, folder: Path) -> object:
        labels = (False,) * len(prompt.chunks)
        return collect_ablations(
            scoring_model,
            answer_model,
            [Example("1", "benchmark", prompt.query, prompt.chunks, labels)],
            folder,
            fingerprint=measured.fingerprint,
            seed=0,
            plan=AblationPlan(masks=FIT_MASKS),
        )

    with TemporaryDirectory() as folder:
        collect(_WARM_UP.prompt, Path(folder) / "warm-up")
        return peak_of_call(lambda: collect(prompt, Path(folder) / "measured"))
