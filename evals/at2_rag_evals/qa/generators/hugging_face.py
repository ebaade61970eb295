"""A local causal language model of transformers."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from at2_rag.errors import InputError
from at2_rag.model_hub import DEFAULT_MODEL, resolve_model
from at2_rag.model_loading import load_model, preferred_dtype
from at2_rag.token_counting import TokenCounter, resolve_token_counter
from at2_rag_evals.model_record import eval_device, model_record
from at2_rag_evals.provenance import files_sha256, without_folder
from at2_rag_evals.qa.generators.base import Answer, Failure

BATCH_TOKENS = 4096
"""Most tokens (padding included) of one batch; a longer prompt has one of its own."""

BATCH_ROWS = 16
"""Most prompts of one batch."""

_MARK = "\ue000at2-rag\ue000"
_PLAIN_ANSWER = "\n\nAnswer:"


class HuggingFaceGenerator:
    """Answers greedily, by the chat template where the model has one, batches of like length.

    The model is loaded when the first prompt is to be answered or counted. Control tokens in a
    prompt are the plain text they are. Prompts of a batch are padded on the left; which prompts
    share one can change an answer by rounding alone.

    Args:
        model: A known name, a folder or a hub id; None for the default model.
        answer_tokens: Most new tokens.

    Raises:
        ModelNotFoundError: If the model can't be found or fetched.
    """

    def __init__(self, model: str | None = None, *, answer_tokens: int = 32) -> None:
        self._model_name = model or DEFAULT_MODEL
        self._answer_tokens = answer_tokens
        self.name = without_folder(self._model_name)
        self.settings: Mapping[str, object] = {
            **model_record(self._model_name, ["model_loading"]),
            "generator_sha256": files_sha256(Path(__file__).parent, [Path(__file__).name]),
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
        for place, row in enumerate(rows):
            if len(row) > limit:
                yield (
                    place,
                    Failure(
                        f"the prompt has {len(row)} tokens and its answer up to "
                        f"{self._answer_tokens}, the model takes {self._window}"
                    ),
                )
            else:
                fitting.append(place)
        for batch in _batches(fitting, [len(row) for row in rows]):
            yield from zip(batch, self._answer_batch([rows[place] for place in batch]), strict=True)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        device = eval_device()
        return load_model(
            resolve_model(self._model_name), device=device, dtype=preferred_dtype(device)
        )

    @cached_property
    def _counter(self) -> TokenCounter:
        from transformers import AutoTokenizer

        folder = resolve_model(self._model_name)
        # By itself: a run whose answers are all stored counts, but needs no model.
        return resolve_token_counter(
            AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        )

    @cached_property
    def _window(self) -> int:
        config = self._loaded[0].config.get_text_config()
        return int(getattr(config, "max_position_embeddings", None) or 2**31)

    @cached_property
    def _cache_name(self) -> str:
        """What this version of transformers calls the keys and values of the tokens before."""
        parameters = inspect.signature(self._loaded[0].forward).parameters
        return "cache" if "cache" in parameters else "past_key_values"

    @cached_property
    def _end_ids(self) -> frozenset[int]:
        model, tokenizer = self._loaded
        ids = model.generation_config.eos_token_id
        ids = tokenizer.eos_token_id if ids is None else ids
        return frozenset([] if ids is None else ids if isinstance(ids, list) else [ids])

    @cached_property
    def _around(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Token ids before and after what the user says."""
        tokenizer = self._loaded[1]
        if tokenizer.chat_template is None:
            head = tuple(tokenizer("", add_special_tokens=True)["input_ids"])
            head = head[:-1] if head and head[-1] == tokenizer.eos_token_id else head
            return head, self._encode(_PLAIN_ANSWER)
        rendered = tokenizer.apply_chat_template(
            [{"role": "user", "content": _MARK}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
        )
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
        tokenizer = self._loaded[1]
        ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)
        return tuple(ids["input_ids"])

    def _answer_batch(self, rows: Sequence[Sequence[int]]) -> Iterator[Answer]:
        start = time.perf_counter()
        made, prefill = self._generate(rows)
        seconds = time.perf_counter() - start
        tokenizer, size = self._loaded[1], len(rows)
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

    def _generate(self, rows: Sequence[Sequence[int]]) -> tuple[list[list[int]], float]:
        """Return each row's new tokens, its end token included, and the seconds of the prefill."""
        model = self._loaded[0]
        start = time.perf_counter()
        width = max(map(len, rows))
        ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
        pads = torch.tensor([width - len(row) for row in rows])
        places = torch.arange(width)
        # Without padding there is nothing to mask but the future, which models do by themselves
        # and quicker: attention computes no more than it needs, and copies no keys and values.
        mask = (places >= pads[:, None]).long().to(model.device) if pads.any() else None
        positions = (places - pads[:, None]).clamp(min=0).to(model.device)
        made: list[list[int]] = [[] for _ in rows]
        with torch.inference_mode():
            output = model(
                input_ids=ids.to(model.device),
                attention_mask=mask,
                position_ids=positions,
                use_cache=True,
                logits_to_keep=1,
            )
            token = self._take(output.logits, made)
            prefill = time.perf_counter() - start
            for _ in range(self._answer_tokens - 1):
                if all(self._ended(row) for row in made):
                    break
                if mask is not None:
                    mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
                positions = positions[:, -1:] + 1
                output = model(
                    input_ids=token[:, None],
                    attention_mask=mask,
                    position_ids=positions,
                    use_cache=True,
                    **{self._cache_name: output[self._cache_name]},
                )
                token = self._take(output.logits, made)
        return made, prefill

    def _take(self, logits: Tensor, made: list[list[int]]) -> Tensor:
        """Add the likeliest next token to each row that hasn't ended; return them all, [B]."""
        token = logits[:, -1].argmax(dim=-1)
        for row, new in zip(made, token.tolist(), strict=True):
            if not self._ended(row):
                row.append(new)
        return token

    def _ended(self, tokens: Sequence[int]) -> bool:
        return bool(tokens) and tokens[-1] in self._end_ids


def _batches(places: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """Group places by length, longest first, within the bounds of a batch."""
    batch: list[int] = []
    for place in sorted(places, key=lambda place: -lengths[place]):
        longest = lengths[batch[0]] if batch else 0
        if batch and (len(batch) == BATCH_ROWS or longest * (len(batch) + 1) > BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
