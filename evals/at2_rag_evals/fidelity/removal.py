"""The truth that systems are judged by: the model's answers, and readings with sources removed.

Answers and readings are stored as they are made and never made again. Masks of a call that are not
stored yet are read together, since prompts that begin alike share their beginning; what was stored
before, and the number of workers, may therefore change a reading's last bits.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from at2_rag.arrays import Bools
from at2_rag.errors import AT2Error, PromptTooLongError, ScoringError
from at2_rag.model.hub import DEFAULT_MODEL
from at2_rag.model.loading import LoadedModel
from at2_rag.training.answering.ablation import Ablations, finite
from at2_rag_evals.fidelity.joint_answers import JointAnswerModel
from at2_rag_evals.fidelity.shared_reading import read_shared
from at2_rag_evals.fidelity.sources import SourcedItem
from at2_rag_evals.items import content_hash
from at2_rag_evals.store import Store, hash_of

AnswerSource = Literal["generated", "reference"]

TOO_LONG = "longer than the model's window"
NO_ANSWER = "no answer"


@dataclass(frozen=True, slots=True)
class AnswerReading:
    """One reading of an answer.

    The seconds are thread-seconds: the time of the call that read it, times its threads, divided by
    its masks. A mask read alone would cost more.
    """

    logit_probability: float
    mean_log_probability: float
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class GeneratedAnswer:
    """The model's answer to an item; None where the prompt is too long for it."""

    text: str | None


def load_answer_model(model: str | None) -> JointAnswerModel:
    """Load a model by its name, folder or hub id; None for the default model."""
    torch.set_num_threads(1)  # many readings at a time are faster than many threads a reading
    loaded = LoadedModel.from_pretrained(model or DEFAULT_MODEL)
    return JointAnswerModel(loaded.model, loaded.tokenizer)


class RemovalReader:
    """Answers questions and reads answers over what masks keep.

    Args:
        load: Loads the model; called once, before the first thing that isn't stored.
        settings: All that decides a reading besides item, answer and mask, as JSON-ready values.
        answers: "generated" by the model, greedily, or the first "reference" answer.
        answer_tokens: Most tokens of a generated answer.
        path: The store of answers and readings (see `Store`); None for this run's memory only.
        workers: Threads that share the masks of a call; None for the number of cores.
    """

    def __init__(
        self,
        load: Callable[[], JointAnswerModel],
        *,
        settings: Mapping[str, object],
        answers: AnswerSource = "generated",
        answer_tokens: int = 32,
        path: Path | None = None,
        workers: int | None = None,
    ) -> None:
        self.settings = settings
        self._load = load
        self._source, self._answer_tokens = answers, answer_tokens
        self._workers = workers or os.cpu_count() or 1
        answer_settings = {**settings, "answers": answers}
        if answers == "generated":
            answer_settings["answer_tokens"] = answer_tokens
        self._answers = Store(path, f"answers {hash_of(answer_settings)}", GeneratedAnswer)
        self._readings = Store(path, f"readings {hash_of(settings)}", AnswerReading)

    @cached_property
    def model(self) -> JointAnswerModel:
        """The model, loaded on first use."""
        return self._load()

    def answer(self, item: SourcedItem) -> tuple[str | None, str]:
        """Return the answer to judge an item on, or None and why there is none."""
        if self._source == "reference":
            text = next((text.strip() for text in item.example.answers if text.strip()), "")
        else:
            generated = self._generated(item)
            if generated is None:
                return None, TOO_LONG
            text = generated
        if not text:
            return None, NO_ANSWER
        try:
            self.read(item, text, np.ones((1, len(item.sources)), dtype=bool))
        except PromptTooLongError:
            return None, TOO_LONG
        return text, ""

    def read(self, item: SourcedItem, answer: str, masks: Bools) -> list[AnswerReading]:
        """Read an answer under each mask, [M, S] bool, that isn't stored yet.

        Readings are stored when the whole call is done: pass few calls of many masks for speed.

        Raises:
            PromptTooLongError: If a prompt with the answer exceeds the model's window.
            ScoringError: If the model's numbers overflowed.
        """
        answered = reading_key(item, answer)
        keys = [f"{answered} {mask_name(mask)}" for mask in masks]
        missing = {
            key: mask for key, mask in zip(keys, masks, strict=True) if key not in self._readings
        }
        if missing:
            readings = self._read(item, answer, np.stack(list(missing.values())))
            for key, reading in zip(missing, readings, strict=True):
                self._readings[key] = reading
        return [self._readings[key] for key in keys]

    def _generated(self, item: SourcedItem) -> str | None:
        query, chunks = item.example.query, item.example.chunks
        key = content_hash(query, chunks)
        if key not in self._answers:
            model = self.model
            try:
                prompt = model.prompts.joint(query, chunks)
                [text] = model.generate([prompt], max_new_tokens=self._answer_tokens)
            except PromptTooLongError:
                text = None
            self._answers[key] = GeneratedAnswer(text)
        return self._answers[key].text

    def _read(self, item: SourcedItem, answer: str, masks: Bools) -> list[AnswerReading]:
        model, example = self.model, item.example
        workers = min(self._workers, len(masks))
        start = time.perf_counter()
        try:
            prompts = [model.prompts.joint(example.query, item.kept(mask)) for mask in masks]
            layouts = [model.prompts.answer(prompt, answer) for prompt in prompts]
            read = read_shared(model, layouts, workers=workers)
            logits = finite(torch.stack(read).cpu().numpy())
        except PromptTooLongError:
            raise
        except AT2Error as error:
            raise ScoringError(f"item {example.id!r} of {example.source}: {error}") from error
        ablations = Ablations(masks, logits)
        seconds = (time.perf_counter() - start) * workers / len(masks)
        tokens = ablations.token_logits.shape[1]
        pairs = zip(ablations.logit_probabilities, ablations.mean_log_probabilities, strict=True)
        return [AnswerReading(float(logit), float(mean), tokens, seconds) for logit, mean in pairs]


def reading_key(item: SourcedItem, answer: str) -> str:
    """Return a SHA-256 over question, chunks, sources and answer."""
    return hash_of([item.key, answer])


def mask_name(mask: Iterable[bool]) -> str:
    """Return a mask as text, "1" for a source that is kept."""
    return "".join("1" if kept else "0" for kept in mask)
