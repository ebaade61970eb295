"""The reference implementation of AT2 (package `at2` 0.0.1), run as its users run it.

Its sources are whole chunks, joined to the context of the package's `SimpleContextAttributionTask`;
wording, tokenisation, generation and attribution are the package's. The estimator is untrained, all
heads alike: time and memory don't depend on the numbers.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cases import ANSWER_TOKENS
from prompts import Prompt, PromptSet

from at2_rag.errors import InputError
from at2_rag.model.loading import LoadedModel

REFERENCE = "reference AT2, answer generated"
MODEL_TYPES = ("gemma3", "llama", "phi3", "qwen2")  # families that the reference reads

Attribute = Callable[[Prompt], None]
"""Generates an answer and attributes it to the chunks."""

_INSTALL = (
    "pip install --target REFERENCE --no-deps at2==0.0.1; "
    "pip install --target NEEDS spacy datasets nltk pandas; "
    "pass --reference REFERENCE --reference NEEDS"
)


def load_reference(model: LoadedModel, folders: Sequence[Path]) -> Attribute:
    """Import the reference, from the environment or else from folders, for a model.

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
    estimator = attribution.AT2ScoreEstimator(features)
    options = {**tasks.DEFAULT_GENERATE_KWARGS, "max_new_tokens": ANSWER_TOKENS}
    task_of = _chunk_task(tasks.SimpleContextAttributionTask)

    def attribute(prompt: Prompt) -> None:
        task = task_of(prompt, model.model, model.tokenizer, options)
        attribution.AT2Attributor(task, estimator).get_attribution_scores()

    return attribute


def readable(attribute: Attribute, prompts: PromptSet) -> PromptSet:
    """Return the prompts that the reference gets through.

    It fails where its answer's text, tokenised again, has other ids than were generated.

    Raises:
        InputError: If it fails on all of them.
    """

    def succeeds(prompt: Prompt) -> bool:
        try:
            attribute(prompt)
        except (IndexError, RuntimeError):
            return False
        return True

    fitting = tuple(filter(succeeds, prompts.prompts))
    if not fitting:
        raise InputError(
            f"the reference fails on all {len(prompts.prompts)} prompts: its answers change when "
            "tokenised again; pass another --data"
        )
    return replace(prompts, prompts=fitting)


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
