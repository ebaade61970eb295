"""What a call costs by the number of layers in use: seconds, and bytes of a chunk's state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from depth_quality import Design, stand_in_weights
from interleaved import Case, Sample, Spread, ratios
from measured_model import MeasuredModel
from speed_cases import UNIT, forward_case, prune_case
from speed_prompts import Prompt

from at2_rag.pruner import AT2Pruner
from at2_rag.states.store import ChunkCache

COLD, WARM = "cold", "warm"


@dataclass(frozen=True, slots=True)
class DesignTime:
    """What a design costs.

    Attributes:
        design: The design.
        cold: Ratio of a whole call to the unit, every chunk read in the call.
        warm: The same with the chunks' states in a store's memory.
        cold_seconds: Median seconds of a cold call.
        warm_seconds: Median seconds of a warm call.
        bytes_a_chunk: Mean size of a chunk's state.
    """

    design: Design
    cold: Spread
    warm: Spread
    cold_seconds: float
    warm_seconds: float
    bytes_a_chunk: float


class DesignCases:
    """Calls of every design, cold and warm, beside the unit.

    Args:
        measured: The model.
        prompts: What is asked.
        designs: The designs.
    """

    def __init__(
        self, measured: MeasuredModel, prompts: Sequence[Prompt], designs: Sequence[Design]
    ) -> None:
        self.cases: dict[str, Case] = {UNIT: forward_case(measured, prompts)}
        self._sizes: dict[Design, float] = {}
        heads = measured.model.config.num_attention_heads
        chunks = {chunk.rendered: chunk for own in prompts for chunk in own.chunks}.values()
        for design in designs:
            for kind in (COLD, WARM):
                store = ChunkCache(max_memory_bytes=2**40) if kind == WARM else None
                pruner = AT2Pruner(
                    measured.loaded,
                    head_weights=stand_in_weights(design, heads=heads),
                    chunk_cache=store,
                )
                if store is not None:
                    pruner.index(list(chunks))
                    self._sizes[design] = store.counts.memory_bytes / len(chunks)
                self.cases[_name(design, kind)] = prune_case(pruner, prompts)

    def summarise(self, samples: Sequence[Sample]) -> list[DesignTime]:
        """Return each design's times."""
        found = []
        for design, size in self._sizes.items():
            cold, warm = (_name(design, kind) for kind in (COLD, WARM))
            found.append(
                DesignTime(
                    design,
                    Spread.of(ratios(samples, cold, reference=UNIT)),
                    Spread.of(ratios(samples, warm, reference=UNIT)),
                    _median_seconds(samples, cold),
                    _median_seconds(samples, warm),
                    size,
                )
            )
        return found


def _median_seconds(samples: Sequence[Sample], case: str) -> float:
    return median(sample.seconds for sample in samples if sample.case == case)


def _name(design: Design, kind: str) -> str:
    return f"{kind}, {design.name}"
