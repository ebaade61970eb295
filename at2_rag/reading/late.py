"""Late reading: the question is read once, alone, and its queries meet the keys of the chunks.

As in ColBERT's late interaction (Khattab and Zaharia, SIGIR 2020), but in the attention space of a
causal model, over layers and heads: the prefix is read, each chunk alone after it, and the question
alone after it, `OFFSET` positions later. The queries are those of the question's content words. No
value of a chunk flows into the question, so a chunk's features depend on nothing but the chunk and
the question, and keys are all that is kept of a chunk.

Keys are rounded to eight bits as soon as they are there, so that a kept chunk has the features of a
fresh one. Only keys of the heads that the head weights look at are kept.

Shapes in here: G key heads of any layers, R = H / Hkv query heads that share one, T tokens of the
question's content words.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from at2_rag.model.forks import forks
from at2_rag.progress import Stopwatch
from at2_rag.prompt.layout import PromptLayout
from at2_rag.prompt.sentence_tokens import SourcePart
from at2_rag.reading.attention import AttentionCall, Span
from at2_rag.reading.chunk_states import (
    PACK_TOKENS,
    ChunkState,
    Kept,
    StateStore,
    canonical,
    encode_pack,
    packs,
    read_pack,
    runs_of,
)
from at2_rag.reading.kept_heads import KeptHeads
from at2_rag.reading.scoring_model import ScoringModel, between_steps

KeyHeads = tuple[tuple[int, int], ...]
"""Pairs of a layer and the number of a key head in it, ascending."""

OFFSET = 160  # positions between prefix and question, where a chunk would stand
TARGET_TOKENS = 128  # most tokens of a query that are read; of a longer one the first and the last
TARGET_ROWS = 32  # most tokens of a question whose logits over a block of chunks are held at a time

LOG_RATIO_LIMIT = 50.0

# Above `LOG_RATIO_LIMIT`, and so far below overflow that any window's sum stays finite.
_MOST_EXPONENT = 70.0


@dataclass(frozen=True, slots=True, eq=False)
class LateQuestion:
    """What is kept of a question that was read alone."""

    queries: Tensor  # [G, R, T, D] float32, scaled
    prefix: Tensor  # [G, R, T] float32, log-sum-exp of the logits over the prefix's tokens

    def log_ratios(self, keys: KeptHeads, spans: Sequence[Span]) -> Tensor:
        """Return the log ratio of each of n spans of `keys`, see `features`: [G, R, n].

        Log-sum-exp of the logits over a span's tokens less that over the prefix's, averaged over
        the question's tokens T.
        """
        between_steps()
        with forks.held_off(), torch.inference_mode():
            return self._log_ratios(*_only(keys, spans))

    def _log_ratios(self, keys: KeptHeads, spans: Sequence[Span]) -> Tensor:
        heads, shared, rows, _ = self.queries.shape
        # Where each token belongs; tokens may be in several spans or in none.
        member = torch.zeros(keys.tokens, len(spans), device=self.queries.device)
        for column, (start, end) in enumerate(spans):
            member[start:end, column] = 1
        ratios = member.new_empty(heads, shared, len(spans))
        for head in range(heads):  # one at a time, so that its logits stay in the processor's cache
            levels = keys.levels[head].float()
            total = member.new_zeros(shared, len(spans))
            for first in range(0, rows, TARGET_ROWS):
                part = slice(first, min(first + TARGET_ROWS, rows))
                queries, prefix = self.queries[head, :, part], self.prefix[head, :, part]
                weights = queries.flatten(0, 1) @ levels.T  # [R * T, W]
                if keys.scales is not None:
                    weights.mul_(keys.scales[head].float())
                weights = weights.sub_(prefix.reshape(-1, 1)).clamp_(max=_MOST_EXPONENT).exp_()
                sums = (weights @ member).log_().clamp_(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
                total += sums.view(shared, part.stop - first, -1).sum(1)
            ratios[head] = total / rows
        return ratios


def _only(keys: KeptHeads, spans: Sequence[Span]) -> tuple[KeptHeads, Sequence[Span]]:
    """Leave out tokens that no span has, if they are many."""
    wanted = torch.zeros(keys.tokens, dtype=torch.bool)
    for start, end in spans:
        wanted[start:end] = True
    tokens = wanted.nonzero().flatten()
    if 2 * len(tokens) > keys.tokens:
        return keys, spans
    before = wanted.cumsum(0) - wanted.long()  # tokens that stay, before each
    spans = [
        (int(before[start]), int(before[start]) + end - start) if start < end else (0, 0)
        for start, end in spans
    ]
    return keys.tokens_at(tokens.to(keys.levels.device)), spans


def read_questions(
    model: ScoringModel, prefix: ChunkState, layouts: Sequence[PromptLayout], heads: KeyHeads
) -> list[LateQuestion]:
    """Read the questions of layouts, each alone after the prefix."""
    layouts = [layout.with_short_query(TARGET_TOKENS) for layout in layouts]
    questions: list[LateQuestion] = []
    for run in runs_of([len(layout.question_ids) for layout in layouts], PACK_TOKENS):
        questions += _read_questions(model, prefix, layouts[run], heads)
    return questions


def _read_questions(
    model: ScoringModel, prefix: ChunkState, layouts: Sequence[PromptLayout], heads: KeyHeads
) -> list[LateQuestion]:
    """Read questions in one forward pass, each as far as its last token of a content word."""
    pack = [layout.question_ids[: layout.rows[-1] + 1] for layout in layouts]
    edges = accumulate(map(len, pack), initial=0)
    targets = [
        [start + row for row in layout.rows] for start, layout in zip(edges, layouts, strict=False)
    ]
    read: list[list[LateQuestion]] = [[] for _ in pack]  # of each question by layer

    def keep(call: AttentionCall) -> None:
        numbers = _numbers(heads, call.layer)
        if not numbers:
            return
        before = prefix.keys[call.layer, numbers].float()[:, None]  # [g, 1, P, D]
        for parts, target in zip(read, targets, strict=True):
            queries = call.query[0, :, target].float() * call.scaling  # [H, T, D]
            shape = call.key.shape[1], -1, *queries.shape[1:]
            queries = queries.reshape(shape)[numbers]  # [g, R, T, D]
            parts.append(LateQuestion(queries, (queries @ before.mT).logsumexp(-1)))

    room = model.prompts.max_tokens - prefix.tokens
    starts = [prefix.tokens + min(OFFSET, max(0, room - len(ids))) for ids in pack]
    read_pack(model, prefix, pack, keep, starts=starts)
    return [
        LateQuestion(
            torch.cat([part.queries for part in parts]),
            torch.cat([part.prefix for part in parts]),
        )
        for parts in read
    ]


class LateReader:
    """Reads questions late: each source once, what a store has of it not at all.

    Args:
        model: The scoring model, as deep as the deepest of the heads.
        prefix: The prefix's state.
        heads: Whose keys are kept and met.
        store: See `Kept`, like `scope`.
    """

    def __init__(
        self,
        model: ScoringModel,
        prefix: ChunkState,
        heads: KeyHeads,
        *,
        store: StateStore | None = None,
        scope: str = "",
    ) -> None:
        self.heads = heads
        self._model, self._prefix = model, prefix
        shape = len(heads), prefix.keys.shape[3]
        self._kept = Kept(store, f"{scope} late {heads}", *shape, torch.int8)

    def read(
        self,
        wanted: Sequence[tuple[PromptLayout, Sequence[SourcePart]]],
        states: dict[tuple[int, ...], ChunkState],
        watch: Stopwatch,
        *,
        keep_states: bool = False,
    ) -> list[Tensor]:
        """Return the log ratios [G, R, n] of the n parts wanted of each layout's sources.

        Of sources whose `states` are known, by their token ids, the keys are taken from there. With
        `keep_states` those of sources that have to be read are added.
        """
        with watch.stage("question"):
            layouts = [layout for layout, _ in wanted]
            questions = read_questions(self._model, self._prefix, layouts, self.heads)
        ratios = [
            question.queries.new_full((*question.queries.shape[:2], len(parts)), -LOG_RATIO_LIMIT)
            for question, (_, parts) in zip(questions, wanted, strict=True)
        ]
        # By a source's ids: whose question, and which of its parts.
        parts_of: dict[tuple[int, ...], list[tuple[int, int]]] = defaultdict(list)
        for number, (layout, parts) in enumerate(wanted):
            for index, part in enumerate(parts):
                parts_of[layout.source_ids[part.source]].append((number, index))
        for sources, keys in self.keys(parts_of, states, watch, keep_states=keep_states):
            with watch.stage("question"):
                # By question and span: the parts there. Equal ones share a column, since two of a
                # matrix product may differ in their last bits.
                spans: dict[int, dict[Span, list[int]]] = defaultdict(lambda: defaultdict(list))
                start = 0
                for ids in sources:
                    for number, index in parts_of[ids]:
                        part = wanted[number][1][index]
                        spans[number][start + part.start, start + part.end].append(index)
                    start += len(ids)
                for number, of_spans in spans.items():
                    read = questions[number].log_ratios(keys, list(of_spans))
                    for column, indices in enumerate(of_spans.values()):
                        ratios[number][..., indices] = read[..., column, None]
        return ratios

    def keys(
        self,
        sources: Iterable[tuple[int, ...]],
        states: dict[tuple[int, ...], ChunkState],
        watch: Stopwatch,
        *,
        keep_states: bool = False,
    ) -> Iterator[tuple[Sequence[tuple[int, ...]], KeptHeads]]:
        """Yield sources, a few at a time, and their keys one after another."""
        missing: list[tuple[int, ...]] = []
        for some in packs(sorted({ids for ids in sources if ids}, key=canonical)):
            with watch.stage("encode"):
                known = {ids: self._of_state(states[ids]) for ids in some if ids in states}
                for ids in some:
                    if ids not in known and (kept := self._kept.get(ids)) is not None:
                        known[ids] = kept
                missing += [ids for ids in some if ids not in known]
                keys = KeptHeads.joined(list(known.values())) if known else None
            if keys is not None:
                yield list(known), keys.to(self._model.device)
        for pack in packs(missing):
            with watch.stage("encode"):
                if keep_states:
                    new = encode_pack(self._model, self._prefix, pack)
                    states |= zip(pack, new, strict=True)
                    keys = KeptHeads.joined([self._of_state(state) for state in new])
                else:
                    keys = self._read_pack(pack)
                for ids, kept in zip(pack, keys.split(list(map(len, pack))), strict=True):
                    self._kept.put(ids, kept)
            yield pack, keys

    def _of_state(self, state: ChunkState) -> KeptHeads:
        layers, numbers = (list(one) for one in zip(*self.heads, strict=True))
        return KeptHeads.rounded(state.keys[layers, numbers])

    def _read_pack(self, pack: Sequence[tuple[int, ...]]) -> KeptHeads:
        """Read sources in one forward pass."""
        parts: list[KeptHeads] = []

        def keep(call: AttentionCall) -> None:
            numbers = _numbers(self.heads, call.layer)
            if numbers:
                parts.append(KeptHeads.rounded(call.key[0, numbers]))

        read_pack(self._model, self._prefix, pack, keep)
        return KeptHeads.joined(parts, dim=0)


def all_heads(prefix: ChunkState) -> KeyHeads:
    """Return all key heads of the layers in use, by the prefix's state."""
    layers, heads = prefix.keys.shape[:2]
    return tuple((layer, head) for layer in range(layers) for head in range(heads))


def _numbers(heads: KeyHeads, layer: int) -> list[int]:
    """Return the key heads wanted of a layer."""
    return [number for of_layer, number in heads if of_layer == layer]
