"""A local causal language model of transformers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from at2_rag.errors import InputError, UnsupportedModelError
from at2_rag.files import without_folder
from at2_rag.model.hub import DEFAULT_MODEL, resolve_model
from at2_rag.model.loading import LoadedModel, preferred_dtype
from at2_rag.text.tokens import TokenCounter, resolve_token_counter
from at2_rag_evals.model_record import eval_device, model_record
from at2_rag_evals.provenance import code_version
from at2_rag_evals.qa.generators.base import Answer, Failure
from at2_rag_evals.qa.generators.local_generation import (
    PackedGeneration,
    PaddedGeneration,
    grouped,
)

_MARK = "\ue000at2-rag\ue000"


class HuggingFaceGenerator:
    """Answers greedily, by the chat template where the model has one, batches of like length.

    The model is loaded when the first prompt is to be answered. Control tokens in a prompt are
    plain text. Which prompts share a batch can change an answer by rounding alone.
    """

    def __init__(self, model: str | None = None, *, answer_tokens: int = 32) -> None:
        self._model_name = model or DEFAULT_MODEL
        self._answer_tokens = answer_tokens
        self.name = without_folder(self._model_name)
        self.settings: Mapping[str, object] = {
            **model_record(self._model_name),
            "generator": code_version(Path(__file__).parent),
            "answer_tokens": answer_tokens,
            "decoding": "greedy",
        }

    def count(self, text: str) -> int:
        """Return the tokens of a text."""
        return self._counter(text)

    def answer(self, prompts: Sequence[str]) -> Iterator[tuple[int, Answer | Failure]]:
        """Yield answers batch by batch, the longest prompts first."""
        rows = [self._input_ids(prompt) for prompt in prompts]
        limit = self._window - self._answer_tokens
        fitting = []
        for index, row in enumerate(rows):
            if len(row) <= limit:
                fitting.append(index)
                continue
            reason = (
                f"the prompt has {len(row)} tokens and its answer up to {self._answer_tokens}, "
                f"the model takes {self._window}"
            )
            yield index, Failure(reason)
        fitting.sort(key=lambda index: -len(rows[index]))
        most_tokens, most_rows = self._generation.batch_tokens, self._generation.batch_rows
        for batch in grouped(
            [len(rows[index]) for index in fitting],
            lambda lengths: len(lengths) <= most_rows and lengths[0] * len(lengths) <= most_tokens,
        ):
            indices = [fitting[number] for number in batch]
            answers = self._answer_batch([rows[index] for index in indices])
            yield from zip(indices, answers, strict=True)

    @cached_property
    def _loaded(self) -> LoadedModel:
        device = eval_device()
        return LoadedModel.from_pretrained(
            self._model_name, device=device, dtype=preferred_dtype(device)
        )

    @cached_property
    def _counter(self) -> TokenCounter:
        from transformers import AutoTokenizer

        folder = resolve_model(self._model_name)
        # Without the model: a run whose answers are all stored only counts.
        return resolve_token_counter(
            AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        )

    @cached_property
    def _window(self) -> int:
        config = self._loaded.model.config.get_text_config()
        return int(getattr(config, "max_position_embeddings", None) or 2**31)

    @cached_property
    def _generation(self) -> PackedGeneration | PaddedGeneration:
        loaded = self._loaded
        try:
            return PackedGeneration(loaded.model, loaded.tokenizer, self._end_ids)
        except UnsupportedModelError:
            return PaddedGeneration(loaded.model, self._end_ids)

    @cached_property
    def _end_ids(self) -> frozenset[int]:
        ids = self._loaded.model.generation_config.eos_token_id
        ids = self._loaded.tokenizer.eos_token_id if ids is None else ids
        return frozenset([] if ids is None else ids if isinstance(ids, list) else [ids])

    @cached_property
    def _around(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Token ids before and after the user's words."""
        tokenizer = self._loaded.tokenizer
        if tokenizer.chat_template is None:
            head = tuple(tokenizer("", add_special_tokens=True)["input_ids"])
            head = head[:-1] if head and head[-1] == tokenizer.eos_token_id else head
            return head, self._encode("\n\nAnswer:")
        try:
            rendered = tokenizer.apply_chat_template(
                [{"role": "user", "content": _MARK}],
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=False,
            )
        except Exception as error:  # a template is a program from outside, and may raise anything
            raise InputError(
                f"the chat template of {self.name} fails on a single user turn "
                f"({type(error).__name__}: {error}); pass another model"
            ) from error
        parts = rendered.split(_MARK)
        if len(parts) != 2:
            raise InputError(
                f"the chat template of {self.name} shows the user's words {len(parts) - 1} times; "
                "pass a model whose template shows them once"
            )
        before, after = (
            tuple(tokenizer(part, add_special_tokens=False)["input_ids"]) for part in parts
        )
        return before, after

    def _input_ids(self, prompt: str) -> tuple[int, ...]:
        before, after = self._around
        return (*before, *self._encode(prompt), *after)

    def _encode(self, text: str) -> tuple[int, ...]:
        tokenizer = self._loaded.tokenizer
        ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)
        return tuple(ids["input_ids"])

    def _answer_batch(self, rows: Sequence[Sequence[int]]) -> Iterator[Answer]:
        start = time.perf_counter()
        made, prefill = self._generation.generate(rows, self._answer_tokens)
        seconds = time.perf_counter() - start
        tokenizer, size = self._loaded.tokenizer, len(rows)
        for row, tokens in zip(rows, made, strict=True):
            text = tokenizer.decode(tokens, skip_special_tokens=True).strip()
            yield Answer(
                text=text,
                prompt_tokens=len(row),
                new_tokens=len(tokens),
                seconds=seconds / size,
                prefill_seconds=prefill / size,
                decode_seconds=(seconds - prefill) / size,
            )
