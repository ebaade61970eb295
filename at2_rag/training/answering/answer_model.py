"""The whole model with its LM head: answers questions, and says how likely an answer is.

It reads over states of chunks that were read once, each by itself, of which masks hide some.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from at2_rag.errors import PromptTooLongError
from at2_rag.prompt.layout import AnswerLayout, PromptLayout
from at2_rag.reading.attention import READING_KEYWORD, AttentionCall, AttentionReader
from at2_rag.reading.chunk_states import ChunkState, encode_prefix, encode_sources
from at2_rag.reading.scoring_model import ScoringModel, shared_view
from at2_rag.training.answering.packed_decoding import attend_over

BATCH_TOKENS = 4096
"""Most tokens of one forward pass; a longer text has a pass of its own."""

LOGIT_ROWS = 1024  # most rows of next-token logits held at a time


class AnswerModel:
    """A causal language model that reads answers under ablations.

    The caller's model is not changed. Thread-safe for models whose position embedding doesn't
    follow the prompt's length (longrope's does).
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.scoring_model = ScoringModel(model, tokenizer)
        self.prompts = self.scoring_model.prompts
        self._tokenizer = tokenizer
        self._view = shared_view(model)

    @cached_property
    def prefix(self) -> ChunkState:
        """The state of what every prompt begins with, all layers."""
        return encode_prefix(self.scoring_model, last_values=True)

    @property
    def end_ids(self) -> frozenset[int]:
        """Ids of the tokens that end an answer."""
        ids = self._view.generation_config.eos_token_id
        if ids is None:
            ids = self._tokenizer.eos_token_id
        return frozenset([] if ids is None else ids if isinstance(ids, list) else [ids])

    def decode(self, tokens: Sequence[int]) -> str:
        """Return an answer's text without control tokens and the space around it."""
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text.strip()

    def check_window(self, lengths: Iterable[int]) -> None:
        """Raise PromptTooLongError if the longest prompt with its answer exceeds the window."""
        longest, limit = max(lengths, default=0), self.prompts.max_tokens
        if longest > limit:
            raise PromptTooLongError(
                f"prompt and answer have {longest} tokens, the model takes {limit}; pass fewer "
                "chunks or a shorter answer"
            )

    def encode(self, sources: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], ChunkState]:
        """Return the state of each source (token ids), all layers, values of the last included."""
        self.scoring_model.check_independent()
        return encode_sources(self.scoring_model, self.prefix, sources)

    def read_masked(
        self,
        layout: AnswerLayout,
        masks: Tensor,
        *,
        states: Mapping[tuple[int, ...], ChunkState] | None = None,
        question: bool = False,
    ) -> Tensor:
        """Read an answer with sources hidden, over states of sources that were read alone.

        Returns the logit-probability of every token under every mask, [M, A] float32; with
        `question` [M, Q + A], the query's tokens first. `masks` is [M, S] bool over the independent
        prompt's sources, `states` what `encode` returned for them; None to encode them here.
        """
        sources, ids = layout.prompt.source_ids, torch.tensor(layout.query_ids)
        if states is None:
            states = self.encode(list(dict.fromkeys(sources)))
        keys, values = self.gather(layout.prompt, states)
        lengths = torch.tensor([len(source) for source in sources], device=keys.device)
        past = torch.ones(len(masks), self.prefix.tokens, dtype=torch.bool, device=keys.device)
        seen = torch.cat([past, masks.to(keys.device).repeat_interleave(lengths, dim=1)], dim=1)
        start, total = self.prefix.tokens + max(map(len, sources), default=0), len(ids)
        positions = list(range(total - len(layout.answer_ids), total))
        if question:
            positions = [*range(*layout.prompt.target), *positions]
        wanted = torch.tensor(positions)
        read = []
        step = max(1, min(BATCH_TOKENS // total, LOGIT_ROWS // len(positions)))
        for rows in torch.split(seen, step):
            copies = len(rows)
            logits = self.run_packed(
                ids.repeat(copies),
                torch.arange(start, start + total).repeat(copies),
                _MaskedReading(keys, values, rows),
                rows=(torch.arange(copies)[:, None] * total + wanted - 1).flatten(),
            )
            targets = ids[wanted].repeat(copies).to(logits.device)
            read.append(token_logit_probabilities(logits, targets).view(copies, -1))
        return torch.cat(read)

    def gather(
        self,
        prompt: PromptLayout,
        states: Mapping[tuple[int, ...], ChunkState],
        *,
        room: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """Return keys and values of prefix and sources one after another, each [L, Hkv, W, D].

        `room` columns at the end are left free (undefined) for tokens that are still to be read.
        """
        ordered = [self.prefix, *(states[ids] for ids in prompt.source_ids)]
        free_keys, free_values = self.empty_past(room)
        keys = torch.cat([*(state.keys for state in ordered), free_keys], dim=2)
        return keys, torch.cat([*(state.values for state in ordered), free_values], dim=2)

    def empty_past(self, room: int) -> tuple[Tensor, Tensor]:
        """Return room (undefined) for keys and values of so many tokens, each [L, Hkv, W, D]."""
        keys, values = (
            like.new_empty(*like.shape[:2], room, like.shape[3])
            for like in (self.prefix.keys, self.prefix.values)
        )
        return keys, values

    def run_packed(
        self, input_ids: Tensor, position_ids: Tensor, reading: AttentionReader, *, rows: Tensor
    ) -> Tensor:
        """Run texts packed into one row through the whole model, see `ScoringModel.run_packed`.

        Returns the next-token logits of the K tokens `rows`, [K, V] in the model's dtype.
        `reading` serves the attention by itself, to the last layer.
        """
        device = self.scoring_model.device
        # A mask of four dimensions is taken as it is, which keeps transformers from building one.
        unused = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)
        with torch.inference_mode():
            logits: Tensor = self._view(
                input_ids=input_ids[None].to(device),
                position_ids=position_ids[None].to(device),
                attention_mask=unused,
                use_cache=False,
                logits_to_keep=rows.to(device),
                **{READING_KEYWORD: reading},
            ).logits
        return logits[0]


class _MaskedReading:
    """Copies of question and answer in one row, each seeing what its mask leaves, and itself."""

    def __init__(self, keys: Tensor, values: Tensor, seen: Tensor) -> None:
        self._keys, self._values = keys, values  # [L, Hkv, W, D] of prefix and sources
        self._columns = [row.nonzero().flatten() for row in seen]  # [M, W] bool

    def attend(self, call: AttentionCall) -> Tensor:
        length = call.query.shape[2] // len(self._columns)
        causal = torch.ones(length, length, dtype=torch.bool, device=call.query.device).tril()
        outputs = []
        # One by one, each over nothing but what it sees: a batch would pay for hidden states too.
        for copy, columns in enumerate(self._columns):
            rows = slice(copy * length, (copy + 1) * length)
            keys, values = (
                torch.cat([past[call.layer].index_select(1, columns), states[0, :, rows]], dim=1)
                for past, states in ((self._keys, call.key), (self._values, call.value))
            )
            mask = torch.cat([causal.new_ones(length, len(columns)), causal], dim=1)
            query = call.query[0, :, rows]
            outputs.append(attend_over(query, keys, values, mask, call.scaling))
        return torch.cat(outputs, dim=1).transpose(0, 1)[None]


def token_logit_probabilities(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return log p - log(1 - p) of each token, exact where p is next to 0 or 1.

    [..., A, V] next-token logits, [..., A] tokens -> [..., A] float32. Logit-probabilities are
    additive where probabilities saturate (B. Cohen-Wang et al., "ContextCite: Attributing Model
    Generation to Context", NeurIPS 2024, section 3).
    """
    logits, index = logits.float(), tokens[..., None]
    others = logits.scatter(-1, index, -torch.inf).logsumexp(-1)
    return logits.gather(-1, index).squeeze(-1) - others
