"""Late reading: the question is read once, alone, and its queries meet the keys of the chunks.

As in ColBERT's late interaction (Khattab and Zaharia, SIGIR 2020), but in the attention space of a
causal model, over layers and heads: the prefix is read, each chunk alone after it, and the question
alone after it, `OFFSET` positions later. No value of a chunk flows into the question, so a chunk's
features depend on nothing but the chunk and the question, and keys are all that is kept of a chunk.

Keys are rounded to eight bits as soon as they are there, so that a kept chunk has the features of a
fresh one. Only keys of the heads that the head weights look at are kept.

Shapes in here: G key heads of any layers, R = H / Hkv query heads that share one, T target tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from at2_rag.prompt.layout import PromptLayout
from at2_rag.reading.attention import LOG_RATIO_LIMIT, AttentionCall, Span
from at2_rag.reading.chunk_states import PACK_TOKENS, ChunkState, packs, read_pack, runs_of
from at2_rag.reading.scoring_model import ScoringModel

KeyHeads = tuple[tuple[int, int], ...]
"""Pairs of a layer and the number of a key head in it, ascending."""

OFFSET = 160  # positions between prefix and question, where a chunk would stand
TARGET_TOKENS = 128  # most tokens of a query that are read; of a longer one the first and the last
TARGET_ROWS = 32  # most target tokens whose logits over a block of chunks are held at a time

_LEVELS = 127  # of eight bits, on either side of 0
# Above `LOG_RATIO_LIMIT`, and so far below overflow that any window's sum stays finite.
_MOST_EXPONENT = 70.0


@dataclass(frozen=True, slots=True, eq=False)
class ChunkKeys:
    """Keys of one source, or of several one after another, of W tokens, in eight bits."""

    levels: Tensor  # [G, W, D] int8
    scales: Tensor  # [G, W] float16; a key is its levels times its scale

    @classmethod
    def of(cls, keys: Tensor) -> ChunkKeys:
        """Round keys [G, W, D]."""
        keys = keys.float()
        scales = (keys.abs().amax(-1) / _LEVELS).half()
        divisors = scales.float().clamp(min=torch.finfo(torch.float32).tiny)
        levels = (keys / divisors[..., None]).round_().clamp_(-_LEVELS, _LEVELS)
        return cls(levels.to(torch.int8), scales)

    @classmethod
    def joined(cls, parts: Sequence[ChunkKeys], dim: int = 1) -> ChunkKeys:
        """Put sources one after another, or with `dim=0` key heads."""
        return cls(
            torch.cat([part.levels for part in parts], dim=dim),
            torch.cat([part.scales for part in parts], dim=dim),
        )

    def split(self, lengths: Sequence[int]) -> list[ChunkKeys]:
        """Return each of several sources, in memory of its own."""
        levels, scales = (torch.split(one, list(lengths), 1) for one in (self.levels, self.scales))
        return [
            ChunkKeys(level.clone(), scale.clone())
            for level, scale in zip(levels, scales, strict=True)
        ]

    @property
    def tokens(self) -> int:
        """Number of tokens, W."""
        return self.levels.shape[1]

    @property
    def nbytes(self) -> int:
        """Size in memory."""
        return self.levels.nbytes + self.scales.nbytes


@dataclass(frozen=True, slots=True, eq=False)
class LateQuestion:
    """What is kept of a question that was read alone."""

    queries: Tensor  # [G, R, T, D] float32, scaled
    prefix: Tensor  # [G, R, T] float32, log-sum-exp of the logits over the prefix's tokens

    def log_ratios(self, keys: ChunkKeys, spans: Sequence[Span]) -> Tensor:
        """Return the log ratio of each of n spans of `keys`, as in `SpanAttention`: [G, R, n].

        Log-sum-exp of the logits over a span's tokens less that over the prefix's, averaged over
        the target tokens.
        """
        heads, shared, rows, _ = self.queries.shape
        # Where each token belongs; tokens may be in several spans or in none.
        member = torch.zeros(keys.tokens, len(spans), device=self.queries.device)
        for column, (start, end) in enumerate(spans):
            member[start:end, column] = 1
        ratios = member.new_empty(heads, shared, len(spans))
        for head in range(heads):  # one at a time, so that its logits stay in the processor's cache
            levels, scales = keys.levels[head].float(), keys.scales[head].float()
            total = member.new_zeros(shared, len(spans))
            for part in torch.arange(rows).split(TARGET_ROWS):
                queries, prefix = self.queries[head][:, part], self.prefix[head][:, part]
                weights = (queries.flatten(0, 1) @ levels.T).mul_(scales)  # [R * T, W]
                weights = weights.sub_(prefix.reshape(-1, 1)).clamp_(max=_MOST_EXPONENT).exp_()
                sums = (weights @ member).log_().clamp_(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
                total += sums.view(shared, len(part), -1).sum(1)
            ratios[head] = total / rows
        return ratios


def read_questions(
    model: ScoringModel, prefix: ChunkState, layouts: Sequence[PromptLayout], heads: KeyHeads
) -> list[LateQuestion]:
    """Read the questions of layouts, each alone after the prefix."""
    layouts = [layout.with_short_query(TARGET_TOKENS) for layout in layouts]
    room = model.prompts.max_tokens - prefix.tokens
    questions: list[LateQuestion] = []
    for run in runs_of([len(layout.question_ids) for layout in layouts], PACK_TOKENS):
        pack = [layout.question_ids for layout in layouts[run]]
        edges = accumulate(map(len, pack), initial=0)
        targets = [
            slice(start + layout.target[0], start + layout.target[1])
            for start, layout in zip(edges, layouts[run], strict=False)
        ]
        read: list[list[LateQuestion]] = [[] for _ in pack]

        def keep(call: AttentionCall) -> None:
            numbers = _numbers(heads, call.layer)
            if not numbers:
                return
            before = prefix.keys[call.layer, numbers].float()[:, None]  # [g, 1, P, D]
            for parts, target in zip(read, targets, strict=True):
                queries = call.query[0, :, target].float() * call.scaling  # [H, T, D]
                queries = queries.unflatten(0, (call.key.shape[1], -1))[numbers]  # [g, R, T, D]
                parts.append(LateQuestion(queries, (queries @ before.mT).logsumexp(-1)))

        starts = [prefix.tokens + min(OFFSET, max(0, room - len(ids))) for ids in pack]
        read_pack(model, prefix, pack, keep, starts=starts)
        questions += [
            LateQuestion(
                torch.cat([part.queries for part in parts]),
                torch.cat([part.prefix for part in parts]),
            )
            for parts in read
        ]
    return questions


def read_keys(
    model: ScoringModel,
    prefix: ChunkState,
    sources: Sequence[tuple[int, ...]],
    heads: KeyHeads,
) -> Iterator[tuple[Sequence[tuple[int, ...]], ChunkKeys]]:
    """Read sources in few forward passes; yield those of each pass, and their keys together."""
    for pack in packs(sources):
        parts: list[ChunkKeys] = []

        def keep(call: AttentionCall) -> None:
            numbers = _numbers(heads, call.layer)
            if numbers:
                parts.append(ChunkKeys.of(call.key[0, numbers]))

        read_pack(model, prefix, pack, keep)
        yield pack, ChunkKeys.joined(parts, dim=0)


def _numbers(heads: KeyHeads, layer: int) -> list[int]:
    """Return the key heads wanted of a layer."""
    return [number for of_layer, number in heads if of_layer == layer]
