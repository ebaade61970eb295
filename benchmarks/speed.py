"""Speed of at2_rag against one full forward pass of the same model.

python benchmarks/speed.py
python benchmarks/speed.py --data FILE.jsonl.gz --peers --output benchmarks/results/speed

README.md beside this file says what is measured.
"""

from __future__ import annotations

import statistics
import timeit
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
    REMOVALS,
    WARM,
    forward_case,
    peer_cases,
    prune_case,
    prune_cases,
    removal_cases,
)
from floor import floor_case
from models import (
    DEFAULT,
    FAST,
    JOINT,
    NO_LIMIT,
    PRESETS,
    make_pruner,
    prompt_builder,
    weights_record,
)
from prompts import Prompt, PromptSet, joint_tokens
from reference_at2 import REFERENCE, load_reference, readable
from report import (
    POSITIVE,
    Report,
    Row,
    SharedOptions,
    ablations_option,
    growth_notes,
    reference_option,
    share_note,
    shared_options,
)
from timing import UNIT, Case, TimedRun, median_ms, ratio, stage_medians, time_cases

from at2_rag.model.loading import LoadedModel
from at2_rag.pruner import AT2Pruner
from at2_rag.states.store import ChunkCache

SEED = 0
SCALING_ROUNDS, GENERATION_ROUNDS = 3, 2
GENERATION_CHUNKS = (10, 20)
SLOW_FROM = 500  # chunks of a cold call that is timed once
EXPONENT_FROM = 50  # the time of fewer chunks is mostly a call's fixed cost
OURS = tuple(f"{preset}, {state}" for preset in (DEFAULT, FAST) for state in (COLD, WARM))


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What every part of a run needs: the model, what it reads, and where figures go."""

    model: LoadedModel
    prompts: PromptSet
    report: Report


@click.command("speed", context_settings={"show_default": True})
@shared_options
@ablations_option
@reference_option
@click.option("--items", type=POSITIVE, default=8, help="Prompts that are timed.")
@click.option("--repeats", type=POSITIVE, default=5, help="Rounds on each of them.")
@click.option("--peers", is_flag=True, help="Also embeddings by MiniLM.")
@click.option(
    "--embedding-model",
    "embedding_models",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    multiple=True,
    help="Also embeddings by a sentence-transformers model.",
)
@click.option("--scaling", type=POSITIVE, multiple=True, help="Also with N chunks; repeat.")
@click.option("--callers", type=POSITIVE, multiple=True, help="Also N threads at once; repeat.")
@click.option("--calls", type=POSITIVE, default=200, help="Calls of all those threads together.")
@click.option("--without-limit", type=POSITIVE, help="Also calls without a limit, on N prompts.")
@click.option("--generate", type=POSITIVE, help="Also pruning and then generating N tokens.")
def main(
    *,
    shared: SharedOptions,
    items: int,
    repeats: int,
    peers: bool,
    embedding_models: tuple[Path, ...],
    ablations: bool,
    reference: tuple[Path, ...],
    scaling: tuple[int, ...],
    callers: tuple[int, ...],
    calls: int,
    without_limit: int | None,
    generate: int | None,
) -> None:
    """Time whole calls of `prune` against one full forward pass of the same model."""
    model = shared.load()
    prompts = shared.prompts(model, items)
    settings: dict[str, Any] = {
        "repeats": repeats,
        "seed": SEED,
        "head_weights": weights_record(model, *PRESETS, JOINT),
    }
    slow: dict[str, Case] = {}
    if reference:
        attribute = load_reference(model, reference)
        fitting = readable(attribute, prompts)
        settings["unreadable_by_reference"] = len(prompts.prompts) - len(fitting.prompts)
        prompts = fitting
        slow[REFERENCE] = lambda index: attribute(fitting.prompts[index])
    if ablations:
        removals = removal_cases(model, prompts.prompts, seed=SEED)
        batch = settings["masks_at_a_time"] = fastest(removals)
        slow[REMOVALS] = removals[batch]
    layouts = prompt_builder(model)
    settings["prompt_tokens"] = [joint_tokens(layouts, prompt) for prompt in prompts.prompts]
    benchmark = Benchmark(model, prompts, Report("Speed", shared, model, **settings))
    cases: dict[str, Case] = {}
    for folder in (*([None] if peers else []), *embedding_models):
        cases |= peer_cases(prompts.prompts, folder)
    time_calls(benchmark, cases, slow)
    if scaling:
        time_scaling(benchmark, scaling)
    if callers:
        time_callers(benchmark, callers, calls=calls)
    if without_limit:
        time_without_limit(benchmark, shared.prompts(model, without_limit).prompts)
    if generate:
        time_generation(benchmark, generate)


def fastest(cases: Mapping[int, Case]) -> int:
    """Return the key of the case that takes the least time on the first prompt."""
    return min(cases, key=lambda key: timeit.timeit(lambda: cases[key](0), number=1))


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
        share_note(runs, threads=report.settings["threads"]),
    )
    report.add("Stages, median ms", [stage_row(runs, case) for case in ours])
    if floors:
        rows = [floor_row(runs, f"{preset}, {COLD}") for preset in PRESETS]
        report.add("Cold calls, by the matrix products they need", rows)
    rows = [other_row(runs, other, case) for other in slow for case in OURS]
    rows += [other_row(runs, peer, f"{FAST}, {peer.rpartition(', ')[2]}") for peer in peers]
    if rows:
        report.add("Other ways, by our time", rows)


def floor_name(case: str) -> str:
    """Return the name of a cold case's floor."""
    return f"floor of {case}"


def call_row(runs: Sequence[TimedRun], case: str) -> Row:
    """Return a case's ratio to the unit, and its time."""
    return {"case": case, "ratio": ratio(runs, case, to=UNIT), "ms": median_ms(runs, case)}


def stage_row(runs: Sequence[TimedRun], case: str) -> Row:
    """Return the median milliseconds of a case's stages."""
    stages = stage_medians(runs, case)
    return {"case": case, **{name: 1000 * seconds for name, seconds in stages.items()}}


def floor_row(runs: Sequence[TimedRun], case: str) -> Row:
    """Return a cold case's floor, and how many times as long the case takes."""
    floor = floor_name(case)
    work, ms = stage_medians(runs, floor)["gflop"], median_ms(runs, floor)
    return {
        "case": case,
        "GFLOP": work,
        "GFLOP/s": 1000 * work / ms,
        "floor, ms": ms,
        "times the floor": ratio(runs, case, to=floor),
    }


def other_row(runs: Sequence[TimedRun], other: str, case: str) -> Row:
    """Return how many times as long another way takes as one of our calls."""
    return {"other way": other, "our call": case, "times as long": ratio(runs, other, to=case)}


def time_scaling(benchmark: Benchmark, sizes: Sequence[int]) -> None:
    """Add the time of a call by its number of chunks, and the exponent of its growth."""
    cold, warm = cold_and_warm(benchmark.model)
    cache = warm.chunk_cache
    pruners = {f"{DEFAULT}, {COLD}": cold} | {
        f"{name}, {WARM}": make_pruner(benchmark.model, name, chunk_cache=cache) for name in PRESETS
    }
    prompts = {size: benchmark.prompts.of_size(size) for size in sizes}
    cases = {
        f"{name}, {size}": prune_case(pruner, [prompt])
        for size, prompt in prompts.items()
        for name, pruner in pruners.items()
    }
    slow = [f"{DEFAULT}, {COLD}, {size}" for size in sizes if size >= SLOW_FROM]
    runs = time_cases(cases, prompts=1, repeats=SCALING_ROUNDS, seed=SEED, slow=slow)
    rows: list[Row] = [
        {
            "chunks": size,
            "tokens": warm.prune(prompt.query, prompt.chunks, top_k=3).tokens_before,
            **{f"{name}, ms": median_ms(runs, f"{name}, {size}") for name in pruners},
        }
        for size, prompt in prompts.items()
    ]
    large = [row for row, size in zip(rows, prompts, strict=True) if size >= EXPONENT_FROM]
    times = [f"{name}, ms" for name in pruners]
    notes = growth_notes(large if len(large) > 1 else rows, times)
    benchmark.report.add("A call by its chunks", rows, *notes)


def time_callers(benchmark: Benchmark, numbers: Sequence[int], *, calls: int) -> None:
    """Add latency and throughput of threads that call one warm pruner."""
    _, pruner = cold_and_warm(benchmark.model)
    prompts = benchmark.prompts.prompts
    rows = list(caller_rows(pruner, prompts, numbers, calls=calls))
    wait = longest_wait(pruner, prompts, calls=calls)
    note = f"An event loop that awaited {calls} calls was held up for at most {1000 * wait:.1f} ms."
    benchmark.report.add(f"Callers of one pruner, {DEFAULT}, {WARM}", rows, note)


def time_without_limit(benchmark: Benchmark, prompts: Sequence[Prompt]) -> None:
    """Add what a call takes without a limit, where the question may be read again."""
    states = dict(zip((COLD, WARM), cold_and_warm(benchmark.model), strict=True))
    cases: dict[str, Case] = {}
    for state, pruner in states.items():
        cases[f"{state}, top 3"] = prune_case(pruner, prompts)
        cases[f"{state}, no limit"] = prune_case(pruner, prompts, top_k=None)
    runs = time_cases(cases, prompts=len(prompts), repeats=1, seed=SEED)
    rows: list[Row] = [
        {
            "state": state,
            "top 3, ms": median_ms(runs, f"{state}, top 3"),
            "no limit, ms": median_ms(runs, f"{state}, no limit"),
            "times as long": ratio(runs, f"{state}, no limit", to=f"{state}, top 3"),
        }
        for state in states
    ]
    note = f"{len(prompts)} prompts, one round on each."
    benchmark.report.add(f"Calls without a limit, {DEFAULT}", rows, note)


def time_generation(benchmark: Benchmark, tokens: int) -> None:
    """Add answers of exactly `tokens` tokens from full and pruned context, pruning included."""
    full = "full context"
    rows: list[Row] = []
    count = len(benchmark.prompts.prompts)
    for size in GENERATION_CHUNKS:
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
                "ratio": ratio(runs, case, to=full),
                "ms": median_ms(runs, case),
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
