"""Speed of at2_rag against one full forward pass of the same model.

python benchmarks/speed.py
python benchmarks/speed.py --data FILE.jsonl.gz --peers --output benchmarks/results/speed

README.md beside this file says what is measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import torch
from callers import caller_rows, longest_wait
from cases import (
    COLD,
    MINILM_COLD,
    REFERENCE,
    REMOVALS,
    UNIT,
    WARM,
    Ablations,
    forward_case,
    peer_cases,
    prune_case,
    prune_cases,
    reference_case,
)
from floor import floor_case
from models import (
    DEFAULT,
    FAST,
    JOINT,
    PRESETS,
    make_pruner,
    prompt_builder,
    weights_record,
)
from prompts import Prompt, PromptSet, joint_tokens
from reference_at2 import ReferenceAT2
from report import (
    POSITIVE,
    Report,
    Row,
    SharedOptions,
    ablation_options,
    share_note,
    shared_options,
)
from timing import (
    Case,
    Spread,
    TimedRun,
    core_share,
    exponent,
    ratios,
    seconds_of,
    stage_medians,
    time_cases,
)

from at2_rag.model.loading import LoadedModel
from at2_rag.pruner import AT2Pruner
from at2_rag.states.store import ChunkCache

SEED = 0
SCALING_ROUNDS, GENERATION_ROUNDS = 3, 2
GENERATION_CHUNKS = (10, 20)
EXPONENT_FROM = 50  # the time of fewer chunks is mostly a call's fixed cost
OURS = tuple(f"{preset}, {state}" for preset in (DEFAULT, FAST) for state in (COLD, WARM))
NO_LIMIT = 2**40


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What every part of a run needs: the model, what it reads, and where figures go."""

    model: LoadedModel
    prompts: PromptSet
    report: Report


@click.command("speed", context_settings={"show_default": True})
@shared_options
@ablation_options
@click.option("--items", type=POSITIVE, default=8, help="Prompts that are timed.")
@click.option("--repeats", type=POSITIVE, default=5, help="Rounds on each of them.")
@click.option("--peers", is_flag=True, help="Also embeddings by MiniLM.")
@click.option("--scaling", type=POSITIVE, multiple=True, help="Also with N chunks; repeat.")
@click.option("--callers", type=POSITIVE, multiple=True, help="Also N threads at once; repeat.")
@click.option("--calls", type=POSITIVE, default=200, help="Calls of all those threads together.")
@click.option("--generate", type=POSITIVE, help="Also pruning and then generating N tokens.")
def main(
    *,
    shared: SharedOptions,
    items: int,
    repeats: int,
    peers: bool,
    ablations: bool,
    reference: tuple[Path, ...],
    scaling: tuple[int, ...],
    callers: tuple[int, ...],
    calls: int,
    generate: int | None,
) -> None:
    """Time whole calls of `prune` against one full forward pass of the same model."""
    model = shared.subject.load()
    prompts = shared.prompts(model, items)
    settings: dict[str, Any] = {
        "repeats": repeats,
        "seed": SEED,
        "head_weights": weights_record(model, (*PRESETS, JOINT)),
    }
    slow: dict[str, Case] = {}
    if reference:
        original = ReferenceAT2.load(model, reference)
        readable = original.readable(prompts)
        settings["unreadable_by_reference"] = len(prompts.prompts) - len(readable.prompts)
        prompts = readable
        slow[REFERENCE] = reference_case(original, prompts.prompts)
    if ablations:
        removals = Ablations.of(model, prompts.prompts, seed=SEED)
        settings["masks_at_a_time"], slow[REMOVALS] = removals.fastest()
    layouts = prompt_builder(model)
    settings["prompt_tokens"] = [joint_tokens(layouts, prompt) for prompt in prompts.prompts]
    report = shared.report("speed", "Speed", model, **settings)
    benchmark = Benchmark(model, prompts, report)
    embedding = peer_cases(prompts.prompts) if peers else {}
    time_calls(benchmark, embedding, slow)
    if scaling:
        time_scaling(benchmark, scaling)
    if callers:
        time_callers(benchmark, callers, calls=calls)
    if generate:
        time_generation(benchmark, generate)


def time_calls(benchmark: Benchmark, peers: Mapping[str, Case], slow: Mapping[str, Case]) -> None:
    """Add the tables of whole calls, their stages and floors, and of other ways."""
    report, prompts = benchmark.report, benchmark.prompts.prompts
    floors: dict[str, Case] = {}
    for preset in PRESETS:
        if (floor := floor_case(benchmark.model, prompts, preset)) is not None:
            floors[floor_name(f"{preset}, {COLD}")] = floor
    unit = {UNIT: forward_case(benchmark.model, prompts)}
    with TemporaryDirectory() as folder:
        ours = prune_cases(benchmark.model, prompts, Path(folder))
        runs = time_cases(
            {**unit, **ours, **peers, **floors, **slow},
            prompts=len(prompts),
            repeats=report.settings["repeats"],
            seed=SEED,
            slow=slow,
        )
    weights = "; ".join(f"{name}: {text}" for name, text in report.settings["head_weights"].items())
    report.add(
        "Whole calls, by one full forward pass",
        [call_row(runs, case) for case in (*unit, *ours, *peers, *slow)],
        f"Prompts: {len(prompts)} from {benchmark.prompts.source}, {len(prompts[0].chunks)} chunks "
        f"each. Rounds on each: {report.settings['repeats']}, every case once a round in a new "
        "order. A ratio is taken within a round; shown are medians and quartiles.",
        f"Head weights: {weights}.",
        share_note("the unit", core_share(runs, UNIT, threads=report.settings["threads"])),
    )
    report.add("Stages, median ms", [stage_row(runs, case) for case in ours])
    if floors:
        rows = [floor_row(runs, f"{preset}, {COLD}") for preset in PRESETS]
        report.add("Cold calls, by the matrix products they need", rows)
    rows = [other_row(runs, other, case) for other in slow for case in OURS]
    rows += [other_row(runs, MINILM_COLD, f"{FAST}, {COLD}")] if MINILM_COLD in peers else []
    if rows:
        report.add("Other ways, by our time", rows)


def floor_name(case: str) -> str:
    """Return the name of a cold case's floor."""
    return f"floor of {case}"


def call_row(runs: Sequence[TimedRun], case: str) -> Row:
    """Return a case's ratio to the unit, and its time."""
    return {
        "case": case,
        "ratio": Spread.of(ratios(runs, case, to=UNIT)),
        "ms": 1000 * statistics.median(seconds_of(runs, case)),
    }


def stage_row(runs: Sequence[TimedRun], case: str) -> Row:
    """Return the median milliseconds of a case's stages."""
    stages = stage_medians(runs, case)
    return {"case": case, **{name: 1000 * seconds for name, seconds in stages.items()}}


def floor_row(runs: Sequence[TimedRun], case: str) -> Row:
    """Return a cold case's floor, and how many times as long the case takes."""
    floor = floor_name(case)
    work = stage_medians(runs, floor)["gflop"]
    seconds = statistics.median(seconds_of(runs, floor))
    return {
        "case": case,
        "GFLOP": work,
        "GFLOP/s": work / seconds,
        "floor, ms": 1000 * seconds,
        "times the floor": Spread.of(ratios(runs, case, to=floor)),
    }


def other_row(runs: Sequence[TimedRun], other: str, case: str) -> Row:
    """Return how many times as long another way takes as one of our calls."""
    times = Spread.of(ratios(runs, other, to=case))
    return {"other way": other, "our call": case, "times as long": times}


def time_scaling(benchmark: Benchmark, sizes: Sequence[int]) -> None:
    """Add the time of a call by its number of chunks, and the exponent of its growth."""
    cold, warm = cold_and_warm(benchmark.model)
    prompts = {size: benchmark.prompts.of_size(size) for size in sizes}
    cases: dict[str, Case] = {}
    for size, prompt in prompts.items():
        cases[f"{COLD}, {size}"] = prune_case(cold, [prompt])
        cases[f"{WARM}, {size}"] = prune_case(warm, [prompt])
    runs = time_cases(cases, prompts=1, repeats=SCALING_ROUNDS, seed=SEED)
    rows: list[dict[str, Any]] = [
        {
            "chunks": size,
            "tokens": warm.prune(prompt.query, prompt.chunks, top_k=3).tokens_before,
            **{
                f"{state}, ms": 1000 * statistics.median(seconds_of(runs, f"{state}, {size}"))
                for state in (COLD, WARM)
            },
        }
        for size, prompt in prompts.items()
    ]
    benchmark.report.add(f"A call by its chunks, {DEFAULT}", rows, *growth_notes(rows))


def growth_notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the exponents of growth in words, from `EXPONENT_FROM` chunks on where there are."""
    large = [row for row in rows if row["chunks"] >= EXPONENT_FROM]
    rows = large if len(large) > 1 else rows
    if len(rows) < 2:
        return []
    sizes = [row["chunks"] for row in rows]
    exponents = (
        f"{exponent(sizes, [row[f'{state}, ms'] for row in rows]):.3f} ({state})"
        for state in (COLD, WARM)
    )
    return [
        f"From {sizes[0]} to {sizes[-1]} chunks, time grows with their number to the power of "
        f"{' and '.join(exponents)}."
    ]


def time_callers(benchmark: Benchmark, numbers: Sequence[int], *, calls: int) -> None:
    """Add latency and throughput of threads that call one warm pruner."""
    _, pruner = cold_and_warm(benchmark.model)
    prompts = benchmark.prompts.prompts
    rows = list(caller_rows(pruner, prompts, numbers, calls=calls))
    wait = longest_wait(pruner, prompts, calls=calls)
    note = f"An event loop that awaited {calls} calls was held up for at most {1000 * wait:.1f} ms."
    benchmark.report.add(f"Callers of one pruner, {DEFAULT}, {WARM}", rows, note)


def time_generation(benchmark: Benchmark, tokens: int) -> None:
    """Add answers of exactly `tokens` tokens from full and pruned context, pruning included."""
    full = "full context"
    rows: list[Row] = []
    for size in GENERATION_CHUNKS:
        count = len(benchmark.prompts.prompts)
        prompts = [benchmark.prompts.of_size(size, index) for index in range(count)]
        cold, warm = cold_and_warm(benchmark.model)
        pruners = {full: None, f"pruned, {COLD}": cold, f"pruned, {WARM}": warm}
        cases = {
            name: answer_case(benchmark.model, pruner, prompts, tokens=tokens)
            for name, pruner in pruners.items()
        }
        runs = time_cases(cases, prompts=count, repeats=GENERATION_ROUNDS, seed=SEED)
        kept = statistics.fmean(len(warm.prune(p.query, p.chunks).kept) for p in prompts)
        rows += [
            {
                "chunks": size,
                "context": case,
                "kept": float(size if case == full else kept),
                "ratio": Spread.of(ratios(runs, case, to=full)),
                "ms": 1000 * statistics.median(seconds_of(runs, case)),
            }
            for case in cases
        ]
    benchmark.report.add(f"Answers of {tokens} tokens", rows)


def answer_case(
    model: LoadedModel, pruner: AT2Pruner | None, prompts: Sequence[Prompt], *, tokens: int
) -> Case:
    """Return greedy answers of exactly `tokens` tokens; the model's wish to end is ignored."""
    layouts = prompt_builder(model)

    def run(index: int) -> None:
        query, chunks = prompts[index].query, prompts[index].chunks
        if pruner is not None:
            chunks = tuple(scored.chunk for scored in pruner.prune(query, chunks).kept)
        layout = layouts.joint(query, chunks)
        ids = torch.tensor([[*layout.input_ids, *layouts.bridge_ids]])
        with torch.inference_mode():
            model.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                min_new_tokens=tokens,
                max_new_tokens=tokens,
                pad_token_id=0,
            )

    return run


def cold_and_warm(model: LoadedModel) -> tuple[AT2Pruner, AT2Pruner]:
    """Return pruners with the default weights, without a cache and with one that drops nothing."""
    cache = ChunkCache(max_memory_bytes=NO_LIMIT)
    return make_pruner(model, DEFAULT), make_pruner(model, DEFAULT, chunk_cache=cache)


if __name__ == "__main__":
    main()
