"""Answers without padding: prompts, then their newest tokens, packed into one row.

The attention keeps prompts apart, as in independent reading (see `chunk_states`). Nothing is
padded, masked or copied: keys and values stay where they were first written, query heads that share
them are read as rows of one product, and an answer that has ended costs nothing more.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from at2_rag.attention import AttentionCall
from at2_rag.training.answer_model import AnswerModel
from at2_rag_evals.qa.generators.greedy import GreedyAnswers

BATCH_TOKENS = 16384
"""Most tokens of prompts that are answered together; a longer prompt is by itself."""

BATCH_ROWS = 64
"""Most prompts that are answered together."""

PACK_TOKENS = 2048
"""Most tokens of prompts that are read in one row; a longer prompt has one of its own."""


class PackedGeneration:
    """Answers prompts packed into rows.

    Args:
        model: A causal language model; not changed.
        tokenizer: Its fast tokenizer.
        end_ids: Tokens that end an answer.

    Raises:
        UnsupportedModelError: If the model can't read chunks independently.
    """

    batch_tokens = BATCH_TOKENS
    batch_rows = BATCH_ROWS

    def __init__(self, model: Any, tokenizer: Any, end_ids: Collection[int]) -> None:
        self._model = AnswerModel(model, tokenizer)
        self._model.scoring_model.check_independent()
        self._end_ids = end_ids

    def generate(
        self, rows: Sequence[Sequence[int]], answer_tokens: int
    ) -> tuple[list[list[int]], float]:
        """Return each row's new tokens, its end token included, and the seconds of the prefill."""
        start = time.perf_counter()
        answers = GreedyAnswers(len(rows), self._end_ids)
        reading = _PackedReading(len(row) + answer_tokens - 1 for row in rows)
        for pack in _packs(rows):
            answers.take(self._read(reading, pack, [rows[place] for place in pack]), pack)
        prefill = time.perf_counter() - start
        for _ in range(answer_tokens - 1):
            going = answers.going
            if not going:
                break
            newest = [answers.tokens[place][-1:] for place in going]
            answers.take(self._read(reading, going, newest), going)
        return answers.tokens, prefill

    def _read(
        self, reading: _PackedReading, places: Sequence[int], texts: Sequence[Sequence[int]]
    ) -> Tensor:
        """Read what comes next of some prompts; return the logits of what follows, [B, V]."""
        lengths = [len(text) for text in texts]
        positions = reading.begin(places, lengths)
        return self._model.run_packed(
            torch.tensor([token for text in texts for token in text]),
            positions,
            reading,
            rows=torch.tensor(lengths).cumsum(0) - 1,
        )


class _PackedReading:
    """Keys and values of several texts, and the attention of what comes next in some of them.

    Args:
        rooms: For each text the tokens that it will have at most.
    """

    def __init__(self, rooms: Iterator[int]) -> None:
        self._rooms = list(rooms)
        self._read = [0] * len(self._rooms)
        self._states: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        self._pieces: list[tuple[int, slice, int]] = []

    def begin(self, places: Sequence[int], lengths: Sequence[int]) -> Tensor:
        """Set which texts are read on in the next pass, and by how many tokens.

        A text is read from its start at once, and then token by token.

        Returns:
            [N] int64, the tokens' positions in their texts.
        """
        self._pieces, positions, end = [], [], 0
        for place, length in zip(places, lengths, strict=True):
            before = self._read[place]
            self._pieces.append((place, slice(end, end + length), before))
            positions.append(torch.arange(before, before + length))
            self._read[place] += length
            end += length
        return torch.cat(positions)

    def attend(self, call: AttentionCall) -> Tensor:
        """Return what each text's tokens read in their own text, [1, N, H, D]."""
        read = [self._attend_text(call, *piece) for piece in self._pieces]
        return torch.cat(read, dim=1).transpose(0, 1)[None]

    def _attend_text(self, call: AttentionCall, place: int, own: slice, before: int) -> Tensor:
        """Keep a text's new keys and values; return what its queries read, [H, Q, D]."""
        query, key, value = (part[:, :, own] for part in (call.query, call.key, call.value))
        keys, values = self._states_of(call, place)
        after = before + query.shape[2]
        keys[:, :, before:after], values[:, :, before:after] = key, value
        if not before:
            return scaled_dot_product_attention(
                query, key, value, is_causal=True, scale=call.scaling, enable_gqa=True
            )[0]
        # One token: query heads that share a key head are rows of it.
        folded = query.reshape(1, key.shape[1], -1, query.shape[3])
        output = scaled_dot_product_attention(
            folded, keys[:, :, :after], values[:, :, :after], scale=call.scaling
        )
        return output.reshape(query.shape[1], 1, -1)

    def _states_of(self, call: AttentionCall, place: int) -> tuple[Tensor, Tensor]:
        """Return where a text's keys and values of a layer are, each [1, Hkv, room, D]."""
        states = self._states.get((call.layer, place))
        if states is None:
            room = self._rooms[place]
            keys, values = (
                part.new_empty(1, part.shape[1], room, part.shape[3])
                for part in (call.key, call.value)
            )
            states = self._states[call.layer, place] = keys, values
        return states


def _packs(rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Group rows in their order, so that few tokens are read at a time."""
    pack: list[int] = []
    for place, row in enumerate(rows):
        if pack and sum(len(rows[own]) for own in pack) + len(row) > PACK_TOKENS:
            yield pack
            pack = []
        pack.append(place)
    if pack:
        yield pack
