"""Prune and generate, beside generating from the full context: the same model does both.

Pruned without a limit, as the shipped weights come.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from interleaved import Case, Sample, Spread, ratios, time_cases
from measured_model import DEFAULT, MeasuredModel
from report_files import in_milliseconds, verdict
from speed_prompts import Prompt, PromptSet

from at2_rag.pruner import AT2Pruner
from at2_rag.states.store import ChunkCache
from at2_rag.text.chunks import Chunk
from at2_rag_evals.tables import Cell, Table

SIZES = (10, 20)
"""Chunks of a context."""

FULL = "full context"
COLD, WARM = "pruned, cold", "pruned, warm"


@dataclass(frozen=True, slots=True)
class GenerationTime:
    """What an answer took.

    Attributes:
        chunks: Chunks of the context.
        case: `FULL`, `COLD` (every chunk read in the call) or `WARM` (states in memory).
        ratio: To the full context's time, by round.
        seconds: Wall clock, pruning included.
        kept: Mean number of chunks that the answer is from.
    """

    chunks: int
    case: str
    ratio: Spread
    seconds: Spread
    kept: float


def time_generation(
    measured: MeasuredModel, prompts: PromptSet, *, tokens: int, repeats: int, seed: int
) -> list[GenerationTime]:
    """Time whole answers of exactly `tokens` new tokens, all cases in the same rounds.

    Args:
        measured: The model, as scorer and as generator.
        prompts: What is asked.
        tokens: New tokens; the model's wish to end is ignored.
        repeats: Rounds on each prompt.
        seed: Of the orders.
    """
    found = []
    for size in SIZES:
        asked = list(_of_size(prompts, size))
        store = ChunkCache(max_memory_bytes=2**40)
        warm = measured.pruner(DEFAULT, chunk_cache=store)
        for prompt in asked:
            warm.index(prompt.chunks)
        pruners = {FULL: None, COLD: measured.pruner(DEFAULT), WARM: warm}
        cases = {
            name: _answer(measured, pruner, asked, tokens=tokens)
            for name, pruner in pruners.items()
        }
        samples = list(time_cases(cases, prompts=len(asked), repeats=repeats, seed=seed))
        kept = statistics.fmean(len(warm.prune(own.query, own.chunks).kept) for own in asked)
        found += [_summary(samples, size, name, size if name == FULL else kept) for name in cases]
    return found


def generation_record(times: Sequence[GenerationTime], *, tokens: int) -> dict[str, Any]:
    """Return the times as JSON-ready values, and whether pruning made every answer faster."""
    rows = [
        {**asdict(own), "met": None if own.case == FULL else own.ratio.median < 1} for own in times
    ]
    return {"new_tokens": tokens, "rows": rows}


def generation_table(record: Mapping[str, Any]) -> Table:
    """Lay out what answers took."""
    rows = [
        [
            Cell(str(own["chunks"])),
            Cell(own["case"]),
            Cell(f"{own['kept']:.1f}"),
            Cell(in_milliseconds(own["seconds"]["median"])),
            Cell(
                "1"
                if own["met"] is None
                else f"{own['ratio']['median']:.3f} (below 1 {verdict(own['met'])})"
            ),
            Cell("" if own["met"] is None else _quartiles(own["ratio"])),
        ]
        for own in record["rows"]
    ]
    header = [Cell(text) for text in ("chunks", "context", "kept", "ms", "ratio", "quartiles")]
    title = f"Answers of {record['new_tokens']} tokens"
    return Table(title, header, rows)


def _of_size(prompts: PromptSet, size: int) -> Iterator[Prompt]:
    """Yield the prompts with so many chunks, their own first."""
    for prompt in prompts.prompts:
        own: dict[str, Chunk] = {chunk.rendered: chunk for chunk in prompt.chunks}
        for chunk in prompts.chunks():
            if len(own) >= size:
                break
            own.setdefault(chunk.rendered, chunk)
        yield Prompt(prompt.query, tuple(itertools.islice(own.values(), size)))


def _answer(
    measured: MeasuredModel, pruner: AT2Pruner | None, prompts: Sequence[Prompt], *, tokens: int
) -> Case:
    layouts = measured.pruner(DEFAULT).scoring_model.prompts

    def run(number: int) -> Mapping[str, float]:
        query, chunks = prompts[number].query, prompts[number].chunks
        if pruner is not None:
            result = pruner.prune(query, chunks)
            chunks = tuple(scored.chunk for scored in result.kept)
        layout = layouts.joint(query, chunks)
        ids = torch.tensor([[*layout.input_ids, *layouts.bridge_ids]])
        with torch.inference_mode():
            measured.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                min_new_tokens=tokens,
                max_new_tokens=tokens,
                pad_token_id=0,
            )
        return {}

    return run


def _summary(samples: Sequence[Sample], size: int, case: str, kept: float) -> GenerationTime:
    own = [sample for sample in samples if sample.case == case]
    ratio = Spread.of(ratios(samples, case, reference=FULL))
    return GenerationTime(size, case, ratio, Spread.of([one.seconds for one in own]), kept)


def _quartiles(spread: Mapping[str, float]) -> str:
    return f"{spread['low']:.3f}-{spread['high']:.3f}"
