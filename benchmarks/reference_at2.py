"""The reference implementation of AT2 (package `at2` 0.0.1), run as its users run it."""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from measured_model import MeasuredModel
from speed_prompts import Prompt, PromptSet

from at2_rag.errors import InputError
from at2_rag.readout.score_estimator import MODEL_TYPES

INSTALL = (
    "pip install --target REFERENCE --no-deps at2==0.0.1; "
    "pip install --target NEEDS spacy datasets nltk pandas; --reference REFERENCE NEEDS"
)
"""How to have it beside this environment, whose own packages come first."""


@dataclass(frozen=True, slots=True)
class ReferenceAT2:
    """The reference over a model that is loaded already.

    Sources are whole chunks, all joined to the context of the package's own
    `SimpleContextAttributionTask` (as its notebook for several documents does it), so that
    wording, tokenisation, generation and attribution are its own. The estimator is the package's
    before training, every head alike: time and memory don't depend on the numbers.

    Attributes:
        measured: The model.
        task: The task's class.
        attributor: The package's `AT2Attributor`.
        estimator: Its `LinearScoreEstimator`.
        generate_options: Its own options of generation.
    """

    measured: MeasuredModel
    task: Any
    attributor: Any
    estimator: Any
    generate_options: dict[str, Any]

    def scores(
        self, prompt: Prompt, *, answer: str | None = None, answer_tokens: int = 32
    ) -> list[float]:
        """Return each chunk's score.

        Args:
            prompt: Question and chunks.
            answer: The answer; None to have the package generate one.
            answer_tokens: Most tokens of a generated answer.
        """
        task = self.task(
            prompt,
            self.measured.model,
            self.measured.tokenizer,
            {**self.generate_options, "max_new_tokens": answer_tokens},
        )
        if answer is not None:
            task.set_generation(answer)
        attributor = self.attributor(task, self.estimator)
        scores: list[float] = attributor.get_attribution_scores().tolist()
        return scores

    def reads(self, prompt: Prompt) -> bool:
        """Whether it gets through a prompt with an answer that it generates.

        It fails where the answer's text, tokenised again, has other ids than were generated.
        """
        try:
            self.scores(prompt)
        except (IndexError, RuntimeError):
            return False
        return True

    def readable(self, prompts: PromptSet) -> PromptSet:
        """Return the prompts without those that `reads` refuses.

        Raises:
            InputError: If none is left.
        """
        fitting = tuple(filter(self.reads, prompts.prompts))
        if not fitting:
            raise InputError(
                f"the reference fails on all {len(prompts.prompts)} prompts: its own answers "
                "change when tokenised again; pass another --data"
            )
        return replace(prompts, prompts=fitting)


def load_reference(measured: MeasuredModel, folders: Sequence[Path]) -> ReferenceAT2:
    """Import the reference from folders, looked at after this environment's own packages.

    Args:
        measured: The model it is to run on.
        folders: Where it and what it needs were installed; none if they are in the environment.

    Raises:
        InputError: If it can't be imported, or doesn't read the model's family.
    """
    family = measured.model.config.model_type
    if family not in MODEL_TYPES:
        raise InputError(
            f"the reference doesn't read the family {family!r}, only {', '.join(MODEL_TYPES)}"
        )
    sys.path.extend(str(folder) for folder in folders if str(folder) not in sys.path)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # it asks for nltk's data, unused here
            attribution = importlib.import_module("at2.attribution")
            tasks = importlib.import_module("at2.tasks.context_attribution")
    except ImportError as error:
        raise InputError(f"the reference can't be imported ({error}); {INSTALL}") from error
    features = attribution.AT2FeatureExtractor(
        measured.model.config.num_hidden_layers,
        measured.model.config.num_attention_heads,
        model_type=family,
    )
    return ReferenceAT2(
        measured,
        _chunk_task(tasks.SimpleContextAttributionTask),
        attribution.AT2Attributor,
        attribution.AT2ScoreEstimator(features),
        dict(tasks.DEFAULT_GENERATE_KWARGS),
    )


def reference_version() -> str:
    """Return the version of the reference that was imported."""
    return version("at2")


def _chunk_task(simple: Any) -> Any:
    """Return the package's simple task with chunks as documents."""

    class ChunkTask(simple):  # type: ignore[misc]
        def __init__(
            self, prompt: Prompt, model: Any, tokenizer: Any, generate_kwargs: dict[str, Any]
        ) -> None:
            self._texts = [chunk.rendered for chunk in prompt.chunks]
            super().__init__(
                context="\n\n".join(self._texts),
                query=prompt.query,
                model=model,
                tokenizer=tokenizer,
                generate_kwargs=generate_kwargs,
                source_type="document",
            )

        def _get_document_ranges(self) -> list[tuple[int, int]]:
            start = self.prompt.index(self.context)
            ranges = []
            for text in self._texts:
                ranges.append((start, start + len(text)))
                start += len(text) + len("\n\n")
            return ranges

    return ChunkTask
