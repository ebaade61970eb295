"""The whole model with its LM head: answers questions, and says how likely an answer is.

What an ablation does to an answer is measured here in two ways. *Removal*: the prompt is laid out
again without the chunk and read in full, which is what a generator meets after pruning. *Masked
states*: every chunk is read once, independently, and an ablation hides states from question and
answer, so that many ablations cost little more than one reading.

Likelihoods are logit-probabilities, see `logit_probabilities`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

import torch
from torch import Tensor

from at2_rag.errors import InputError, PromptTooLongError
from at2_rag.prompt.layout import AnswerLayout, PromptLayout
from at2_rag.reading.attention import READING_KEYWORD, AttentionCall, AttentionReader
from at2_rag.reading.chunk_states import ChunkState, encode_prefix, encode_sources
from at2_rag.reading.scoring_model import ScoringModel, shared_view
from at2_rag.training.answering.logit_probabilities import token_logit_probabilities
from at2_rag.training.answering.packed_decoding import attend_over

BATCH_TOKENS = 4096
"""Most tokens (padding included) of one forward pass; a longer prompt has a pass of its own."""

LOGIT_ROWS = 1024
"""Most rows of next-token logits held at a time."""


class AnswerModel:
    """A causal language model that answers, and reads answers under ablations.

    The caller's model is not changed. Thread-safe for models whose position embedding doesn't
    follow the prompt's length (longrope's does).

    Args:
        model: A transformers causal LM with its LM head.
        tokenizer: Its fast tokenizer.

    Raises:
        UnsupportedModelError: As `ScoringModel`.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.scoring_model = ScoringModel(model, tokenizer)
        self.prompts = self.scoring_model.prompts
        self._tokenizer = tokenizer
        self._view = shared_view(model)
        self._prefix: ChunkState | None = None
        self._prefix_lock = threading.Lock()

    def generate(
        self,
        prompts: Sequence[PromptLayout],
        *,
        max_new_tokens: int = 32,
        workers: Executor | None = None,
    ) -> list[str]:
        """Return the greedy answer to each joint prompt, at most so many tokens long.

        Args:
            prompts: Joint prompts.
            max_new_tokens: Most tokens of an answer.
            workers: Threads that each answer batches; None for the caller's alone. The batches,
                and so the answers, don't depend on their number.

        Raises:
            PromptTooLongError: If a prompt and its answer may exceed the model's window.
        """
        bridge = self.prompts.bridge_ids
        rows = [(*prompt.input_ids, *bridge) for prompt in prompts]
        self.check_window(len(row) + max_new_tokens for row in rows)
        batches = list(_batches([len(row) for row in rows]))

        def answer(batch: Sequence[int]) -> list[str]:
            return self._generate_batch([rows[index] for index in batch], max_new_tokens)

        answers = [""] * len(rows)
        answered = workers.map(answer, batches) if workers else map(answer, batches)
        for batch, texts in zip(batches, answered, strict=True):
            for index, text in zip(batch, texts, strict=True):
                answers[index] = text
        return answers

    def _generate_batch(self, rows: Sequence[Sequence[int]], max_new_tokens: int) -> list[str]:
        ids, mask, _ = self._left_padded(rows)
        with torch.inference_mode():
            output = self._view.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                repetition_penalty=1.0,
                pad_token_id=_any_id(self._tokenizer.pad_token_id, self._tokenizer.eos_token_id),
            )
        return [self.decode(row) for row in output[:, ids.shape[1] :].tolist()]

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

    def read(self, layouts: Sequence[AnswerLayout]) -> list[Tensor]:
        """Read prompts with their answers in full.

        Args:
            layouts: Joint prompts with answers.

        Returns:
            For each the logit-probability of every answer token, [A] float32.

        Raises:
            PromptTooLongError: If one exceeds the model's window.
        """
        rows = [layout.input_ids for layout in layouts]
        self.check_window(map(len, rows))
        results: list[Tensor | None] = [None] * len(rows)
        for batch in _batches([len(row) for row in rows]):
            longest = max(len(layouts[index].answer_ids) for index in batch)
            ids, mask, positions = self._left_padded([rows[index] for index in batch])
            with torch.inference_mode():
                logits = self._view(
                    input_ids=ids,
                    attention_mask=mask,
                    position_ids=positions,
                    use_cache=False,
                    logits_to_keep=longest + 1,
                ).logits
            for row, index in zip(logits, batch, strict=True):
                answer = torch.tensor(layouts[index].answer_ids, device=ids.device)
                results[index] = token_logit_probabilities(row[-len(answer) - 1 : -1], answer)
        return [result for result in results if result is not None]

    def encode(self, sources: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], ChunkState]:
        """Return the state of each source, all layers, values of the last included.

        Args:
            sources: Token ids of different sources, none empty.

        Raises:
            UnsupportedModelError: If the model's family can't read chunks independently.
        """
        self.scoring_model.check_independent()
        return encode_sources(self.scoring_model, self._prefix_state(), sources)

    def _prefix_state(self) -> ChunkState:
        with self._prefix_lock:
            if self._prefix is None:
                self._prefix = encode_prefix(self.scoring_model, last_values=True)
            return self._prefix

    def read_masked(
        self,
        layout: AnswerLayout,
        masks: Tensor,
        *,
        states: Mapping[tuple[int, ...], ChunkState] | None = None,
        question: bool = False,
    ) -> Tensor:
        """Read an answer with sources hidden, over states of sources that were read alone.

        Args:
            layout: An independent prompt with an answer.
            masks: [M, S] bool over the prompt's sources, True for those that are seen.
            states: What `encode` returned for the prompt's sources; None to encode them here.
            question: Read the query's Q tokens too, before the answer's.

        Returns:
            The logit-probability of every token under every mask, [M, A] or [M, Q + A] float32.

        Raises:
            UnsupportedModelError: If the model's family can't read chunks independently.
        """
        model, sources = self.scoring_model, layout.prompt.source_ids
        if states is None:
            states = self.encode(list(dict.fromkeys(sources)))
        prefix = self._prefix_state()
        keys, values = self.gather(layout.prompt, states)
        lengths = torch.tensor([len(ids) for ids in sources], device=model.device)
        past = torch.ones(len(masks), prefix.tokens, dtype=torch.bool, device=model.device)
        seen = torch.cat([past, masks.to(model.device).repeat_interleave(lengths, dim=1)], dim=1)
        start = prefix.tokens + max(map(len, sources), default=0)
        total = len(layout.query_ids)
        positions = list(range(total - len(layout.answer_ids), total))
        if question:
            positions = [*range(*layout.prompt.target), *positions]
        step = max(1, min(BATCH_TOKENS // total, LOGIT_ROWS // len(positions)))
        return torch.cat(
            [
                self._run_masked(
                    layout.query_ids, start, positions, _MaskedReading(keys, values, rows)
                )
                for rows in torch.split(seen, step)
            ]
        )

    def gather(
        self,
        prompt: PromptLayout,
        states: Mapping[tuple[int, ...], ChunkState],
        *,
        room: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """Return keys and values of prefix and sources one after another, each [L, Hkv, W, D].

        Args:
            prompt: An independent prompt.
            states: What `encode` returned for its sources.
            room: Columns left free (undefined) at the end, for tokens that are still to be read.
        """
        ordered = [self._prefix_state(), *(states[ids] for ids in prompt.source_ids)]
        first = ordered[0].keys
        free = [first.new_empty(*first.shape[:2], room, first.shape[3])] if room else []
        keys = torch.cat([*(state.keys for state in ordered), *free], dim=2)
        values = torch.cat([*(state.values for state in ordered), *free], dim=2)
        return keys, values

    def empty_past(self, room: int) -> tuple[Tensor, Tensor]:
        """Return room (undefined) for keys and values of so many tokens, each [L, Hkv, W, D]."""
        prefix = self._prefix_state()
        keys, values = (
            like.new_empty(*like.shape[:2], room, like.shape[3])
            for like in (prefix.keys, prefix.values)
        )
        return keys, values

    def run_packed(
        self, input_ids: Tensor, position_ids: Tensor, reading: AttentionReader, *, rows: Tensor
    ) -> Tensor:
        """Run texts packed into one row through the whole model, see `ScoringModel.run_packed`.

        Args:
            input_ids: [N] int64, the texts one after another.
            position_ids: [N] int64, each token's position in its text.
            reading: Serves the attention by itself, to the last layer.
            rows: [K] int64, tokens whose next-token logits are wanted.

        Returns:
            [K, V] logits in the model's dtype.
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

    def _run_masked(
        self, ids: Sequence[int], start: int, positions: Sequence[int], reading: _MaskedReading
    ) -> Tensor:
        """Return the logit-probabilities [M, K] of the tokens at K positions of `ids`."""
        copies, length = len(reading.seen), len(ids)
        tokens, wanted = torch.tensor(ids), torch.tensor(positions)
        logits = self.run_packed(
            tokens.repeat(copies),
            torch.arange(start, start + length).repeat(copies),
            reading,
            rows=(torch.arange(copies)[:, None] * length + wanted - 1).flatten(),
        )
        targets = tokens[wanted].repeat(copies).to(logits.device)
        return token_logit_probabilities(logits, targets).view(copies, -1)

    def _left_padded(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor]:
        device = self.scoring_model.device
        width = max(map(len, rows))
        ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows], device=device)
        pads = torch.tensor([width - len(row) for row in rows], device=device)
        columns = torch.arange(width, device=device)
        mask = (columns >= pads[:, None]).long()
        return ids, mask, (columns - pads[:, None]).clamp(min=0)

    def check_window(self, lengths: Iterable[int]) -> None:
        """Check that prompts with their answers, so many tokens long, fit the model's window.

        Raises:
            PromptTooLongError: If the longest doesn't.
        """
        longest, limit = max(lengths, default=0), self.prompts.max_tokens
        if longest > limit:
            raise PromptTooLongError(
                f"prompt and answer have {longest} tokens, the model takes {limit}; pass fewer "
                "chunks or a shorter answer"
            )


class _MaskedReading:
    """Copies of question and answer, packed in one row.

    Each sees the prefix, the sources chosen for it, and itself causally.

    Args:
        keys: [L, Hkv, W, D] of prefix and sources.
        values: The same shape.
        seen: [M, W] bool, what each copy sees.
    """

    def __init__(self, keys: Tensor, values: Tensor, seen: Tensor) -> None:
        self.seen = seen
        self._keys, self._values = keys, values
        self._columns = [row.nonzero().flatten() for row in seen]

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


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield indices in batches of similar length within the token budget."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batch and (len(batch) + 1) * lengths[batch[0]] > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _any_id(*ids: int | None) -> int:
    known = [token for token in ids if token is not None]
    if not known:
        raise InputError("the tokenizer has neither a padding nor an end token; set one of them")
    return known[0]
