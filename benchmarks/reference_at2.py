"""The reference implementation of AT2 (package `at2` 0.0.1), run as its users run it."""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prompts import Prompt, PromptSet

from at2_rag.errors import InputError
from at2_rag.model.loading import LoadedModel
from at2_rag.readout.score_estimator import MODEL_TYPES

_INSTALL = (
    "pip install --target REFERENCE --no-deps at2==0.0.1; "
    "pip install --target NEEDS spacy datasets nltk pandas; "
    "pass --reference REFERENCE --reference NEEDS"
)


@dataclass(frozen=True, slots=True)
class ReferenceAT2:
    """The reference over a model that is loaded already.

    Its sources are whole chunks, joined to the context of the package's own
    `SimpleContextAttributionTask`, so that wording, tokenisation, generation and attribution are
    its own. The estimator is untrained, all heads alike: time and memory don't depend on the
    numbers.

    Attributes:
        model: The model.
        task: Class of the task.
        attributor: The package's `AT2Attributor`.
        estimator: Its score estimator.
        generate_options: Its options of generation.
    """

    model: LoadedModel
    task: Any
    attributor: Any
    estimator: Any
    generate_options: dict[str, Any]

    @classmethod
    def load(cls, model: LoadedModel, folders: Sequence[Path]) -> ReferenceAT2:
        """Import the reference, from the environment or else from folders.

        Args:
            model: The model it is to run on.
            folders: Where it and what it needs were installed.

        Raises:
            InputError: If it can't be imported, or doesn't read the model's family.
        """
        config = model.model.config
        if config.model_type not in MODEL_TYPES:
            raise InputError(
                f"the reference doesn't read the family {config.model_type!r}, only "
                f"{', '.join(MODEL_TYPES)}"
            )
        sys.path.extend(map(str, folders))
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # it asks for nltk's data, unused here
                attribution = importlib.import_module("at2.attribution")
                tasks = importlib.import_module("at2.tasks.context_attribution")
        except ImportError as error:
            raise InputError(f"the reference can't be imported ({error}); {_INSTALL}") from error
        features = attribution.AT2FeatureExtractor(
            config.num_hidden_layers, config.num_attention_heads, model_type=config.model_type
        )
        return cls(
            model,
            _chunk_task(tasks.SimpleContextAttributionTask),
            attribution.AT2Attributor,
            attribution.AT2ScoreEstimator(features),
            dict(tasks.DEFAULT_GENERATE_KWARGS),
        )

    def scores(self, prompt: Prompt, *, answer_tokens: int = 32) -> list[float]:
        """Generate an answer of at most so many tokens and return each chunk's score."""
        options = {**self.generate_options, "max_new_tokens": answer_tokens}
        task = self.task(prompt, self.model.model, self.model.tokenizer, options)
        attributor = self.attributor(task, self.estimator)
        scores: list[float] = attributor.get_attribution_scores().tolist()
        return scores

    def readable(self, prompts: PromptSet) -> PromptSet:
        """Return the prompts that the reference gets through.

        It fails where its answer's text, tokenised again, has other ids than were generated.

        Raises:
            InputError: If it fails on all of them.
        """
        fitting = tuple(filter(self._reads, prompts.prompts))
        if not fitting:
            raise InputError(
                f"the reference fails on all {len(prompts.prompts)} prompts: its own answers "
                "change when tokenised again; pass another --data"
            )
        return replace(prompts, prompts=fitting)

    def _reads(self, prompt: Prompt) -> bool:
        try:
            self.scores(prompt)
        except (IndexError, RuntimeError):
            return False
        return True


def _chunk_task(simple: Any) -> Any:
    """Return the package's simple task with chunks as documents."""

    class ChunkTask(simple):  # type: ignore[misc]
        def __init__(self, prompt: Prompt, model: Any, tokenizer: Any, options: Any) -> None:
            self._texts = [chunk.rendered for chunk in prompt.chunks]
            super().__init__(
                context="\n\n".join(self._texts),
                query=prompt.query,
                model=model,
                tokenizer=tokenizer,
                generate_kwargs=options,
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
