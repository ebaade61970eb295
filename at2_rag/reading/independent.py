"""Independent reading: chunks are read each by itself, then the question late, together or apart.

The one way to read so, for pruning, training and evals.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from at2_rag.model.forks import ForkLock
from at2_rag.progress import Stopwatch
from at2_rag.prompt.layout import PromptLayout
from at2_rag.prompt.sentence_tokens import SourcePart
from at2_rag.reading.chunk_states import ChunkState, StateStore, encode_prefix, encode_sources
from at2_rag.reading.features import Pass
from at2_rag.reading.late import KeyHeads, LateReader, all_heads
from at2_rag.reading.question_pass import QuestionReading, run_readings
from at2_rag.reading.scoring_model import ScoringModel

States = dict[tuple[int, ...], ChunkState]
"""States of sources by their token ids."""


@dataclass(frozen=True, slots=True, eq=False)
class LayoutPasses:
    """An independent layout with at least one source, and what its question is read over."""

    layout: PromptLayout
    # Each pass with the parts it reads; None for the whole sources.
    passes: Mapping[Pass, tuple[SourcePart, ...] | None]


class IndependentReader:
    """Reads the prefix once, each source alone after it, and questions over what that left.

    Thread-safe.

    Args:
        model: The scoring model.
        heads: Key heads whose attention is read late; None for all.
        store: What is kept of sources between calls; None for nothing. What a store has is not read
            again, and is the same from the first call on.
        scope: All that decides what is kept besides the source, see `states_scope`.

    Raises:
        UnsupportedModelError: If the model's chunks can't be read independently.
    """

    def __init__(
        self,
        model: ScoringModel,
        *,
        heads: KeyHeads | None = None,
        store: StateStore | None = None,
        scope: str = "",
    ) -> None:
        model.check_independent()
        self.model, self.store = model, store
        self._scope = scope
        self._heads = heads
        self._prefix: ChunkState | None = None
        self._prefix_lock = ForkLock()

    def prefix(self) -> ChunkState:
        """Return the prefix's state."""
        with self._prefix_lock:
            if self._prefix is None:
                self._prefix = encode_prefix(self.model)
            return self._prefix

    def forgetful(self) -> IndependentReader:
        """Return a reader with the same prefix that keeps nothing."""
        reader = IndependentReader(self.model, heads=self._heads)
        reader._prefix = self.prefix()
        return reader

    def states(self, sources: Iterable[tuple[int, ...]], ready: States | None = None) -> States:
        """Return the states of sources; what neither the store has nor `ready` is read."""
        return encode_sources(
            self.model,
            self.prefix(),
            sources,
            ready=ready or {},
            store=self.store,
            scope=self._scope,
        )

    def keep_keys(self, sources: Sequence[tuple[int, ...]]) -> None:
        """Read the sources of which the store has no keys, and leave them there."""
        for _ in self._late().keys(sources, {}, Stopwatch()):
            pass

    def read(
        self,
        wanted: Sequence[LayoutPasses],
        *,
        states: States | None = None,
        keep_states: bool = False,
        watch: Stopwatch | None = None,
    ) -> list[dict[Pass, Tensor]]:
        """Read layouts' sources and their questions; sources that layouts share are read once.

        Args:
            wanted: What to read.
            states: Known states of sources, by their token ids, which are not read again.
            keep_states: Whether those of sources that have to be read are added.
            watch: Takes the time of "encode" and "question".

        Returns:
            The attention to the sources (or parts) of each layout and pass, see `features`.
        """
        watch, states = watch or Stopwatch(), {} if states is None else states
        over_states = [one for one in wanted if one.passes.keys() - {"late"}]
        sources = {ids for one in over_states for ids in one.layout.source_ids}
        with torch.inference_mode():
            with watch.stage("encode"):
                ready = self.states(sources, states) if sources else {}
            late = self._read_late(
                wanted, {**states, **ready} if ready else states, keep_states, watch
            )
            with watch.stage("question"):
                others = self._read_over_states(over_states, ready)
        by_layout: list[dict[Pass, Tensor]] = []
        for one in wanted:
            attention: dict[Pass, Tensor] = {}
            if "late" in one.passes:
                attention["late"] = late.pop(0)
            attention |= others.pop(0) if one.passes.keys() - {"late"} else {}
            by_layout.append({name: attention[name] for name in one.passes})
        return by_layout

    def _late(self) -> LateReader:
        prefix = self.prefix()
        heads = all_heads(prefix) if self._heads is None else self._heads
        return LateReader(self.model, prefix, heads, store=self.store, scope=self._scope)

    def _read_late(
        self, wanted: Sequence[LayoutPasses], states: States, keep_states: bool, watch: Stopwatch
    ) -> list[Tensor]:
        # A layout that is wanted whole and in parts is read once.
        layouts: dict[int, tuple[PromptLayout, list[SourcePart]]] = {}
        spans = []
        for one in wanted:
            if "late" in one.passes:
                parts = one.passes["late"]
                _, every = layouts.setdefault(id(one.layout), (one.layout, []))
                start = len(every)
                every += _whole(one.layout) if parts is None else parts
                spans.append((id(one.layout), start, len(every)))
        if not spans:
            return []
        reader = self._late()
        ratios = reader.read(list(layouts.values()), states, watch, keep_states=keep_states)
        read = {
            key: self._by_head(reader.heads, values)
            for key, values in zip(layouts, ratios, strict=True)
        }
        return [read[key][..., start:end] for key, start, end in spans]

    def _by_head(self, heads: KeyHeads, ratios: Tensor) -> Tensor:
        """Return log ratios [G, R, n] as [L, H, n]; 0 for heads that weren't read."""
        _, shared, parts = ratios.shape
        every = ratios.new_zeros(self.model.depth, self.model.heads // shared, shared, parts)
        layers, numbers = (list(one) for one in zip(*heads, strict=True))
        every[layers, numbers] = ratios
        return every.flatten(1, 2)

    def _read_over_states(
        self, wanted: Sequence[LayoutPasses], states: States
    ) -> list[dict[Pass, Tensor]]:
        readings: list[dict[Pass, QuestionReading]] = []
        for one in wanted:
            by_pass: dict[Pass, QuestionReading] = {}
            for name, parts in one.passes.items():
                if name != "late":
                    by_pass[name] = QuestionReading(
                        self.model,
                        self.prefix(),
                        one.layout,
                        states,
                        _whole(one.layout) if parts is None else parts,
                        together=name == "together",
                    )
            readings.append(by_pass)
        run_readings(self.model, [one for by_pass in readings for one in by_pass.values()])
        return [{name: one.mass() for name, one in by_pass.items()} for by_pass in readings]


def _whole(layout: PromptLayout) -> tuple[SourcePart, ...]:
    return tuple(SourcePart(index, 0, len(ids)) for index, ids in enumerate(layout.source_ids))
