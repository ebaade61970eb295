"""Speed and memory of at2_rag against one full forward pass of the same model.

python benchmarks/speed.py
python benchmarks/speed.py --data FILE.jsonl.gz --output benchmarks/results/speed --extremes

README.md beside this file says what is measured and how.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from command_line import add_shared_options, command_of, exit_code, positive
from concurrency import concurrency_record, concurrency_table, longest_wait, time_callers
from floor import floor_cases, floor_table, summarise_floors
from generation import generation_record, generation_table, time_generation
from interleaved import core_share, time_cases
from machine import busy_share, machine_class
from measured_model import DEFAULT, JOINT, STAND_IN, MeasuredModel, Subject, load
from other_ways import (
    ablation_cases,
    ablations_record,
    ablations_table,
    rounds_between,
    summarise_ablations,
)
from peak_memory import PeakMemory, measure_peak
from peers import peer_cases
from reference_at2 import ReferenceAT2, load_reference
from report_files import show_report, write_report
from rich.console import Console
from rich.progress import Progress
from scaling import scaling_record, scaling_table, time_sizes
from speed_cases import COLD_CASES, READOUTS_OF_CASES, UNIT, speed_cases
from speed_figures import (
    memory_checks,
    speed_record,
    stage_medians,
    summarise,
)
from speed_prompts import PromptSet, joint_tokens, read_prompts
from speed_tables import (
    PLOT,
    check_table,
    extremes_table,
    memory_table,
    remarks,
    speed_plot,
    speed_table,
    stage_table,
)

from at2_rag_evals.provenance import file_record, git_state, package_versions, without_folder
from at2_rag_evals.resident_memory import resident
from at2_rag_evals.tables import Table

FORMAT = 2
SEED = 0
LONG_BYTES, MANY_CHUNKS = 1_000_000, 1_000
SCALING_ROUNDS = 3
GENERATION_ROUNDS = 2
CALLS = 200


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of the report: JSON-ready figures, and how they are shown."""

    name: str
    record: dict[str, Any]
    tables: list[Table]
    plots: Mapping[str, str] = field(default_factory=dict)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    return exit_code(_run, _parser().parse_args(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Speed and memory of at2_rag against one full forward pass.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_shared_options(parser, report="speed")
    add = parser.add_argument
    add("--items", type=positive, default=8, help="prompts that are timed")
    add("--repeats", type=positive, default=5, help="rounds on each of them")
    add("--chunks", type=positive, nargs="+", default=[10, 20, 50, 100, 200, 500], metavar="N")
    add("--peers", action="store_true", help="also MiniLM, and LongLLMLingua if it is installed")
    add("--ablations", action="store_true", help="also 32 ablations by removal; takes minutes")
    add(
        "--reference", type=Path, nargs="+", metavar="PATH", help="also at2 0.0.1, in these folders"
    )
    add("--scaling", type=positive, nargs="+", metavar="N", help="also times with N chunks")
    add("--callers", type=positive, nargs="+", metavar="N", help="also N threads at once")
    add("--generate", type=positive, metavar="N", help="also prune and generate N tokens")
    add("--extremes", action="store_true", help="also a chunk of 1 MB, and 1,000 chunks")
    return parser


def _run(options: argparse.Namespace) -> None:
    if options.callers:
        resident()  # before hours of measuring
    busy = busy_share()
    subject = Subject(options.model, options.dtype, options.threads)
    measured = load(subject)
    prompts = read_prompts(
        options.data,
        measured.pruner(JOINT).scoring_model.prompts,
        count=options.items,
        lengths=tuple(options.prompt_tokens),
    )
    reference = load_reference(measured, options.reference) if options.reference else None
    given = len(prompts.prompts)
    if reference is not None:
        prompts = reference.readable(prompts)
    report = _head(options, measured, prompts)
    report["settings"]["unreadable_by_reference"] = given - len(prompts.prompts)
    report["machine"]["busy_before"] = None if busy is None else round(busy, 2)
    tables: list[Table] = []
    plots: dict[str, str] = {}
    try:
        with Progress(console=Console(stderr=True), auto_refresh=False) as progress:
            for part in _parts(options, subject, measured, prompts, reference, progress):
                report[part.name] = part.record
                tables += part.tables
                plots |= part.plots
                if options.output is not None:
                    write_report(
                        options.output / "speed",
                        report,
                        title="Speed and memory",
                        remarks=remarks(report),
                        tables=tables,
                        plots=plots,
                    )
    finally:  # what was measured is shown even if a later part fails
        show_report(remarks(report) if tables else (), tables)


def _head(
    options: argparse.Namespace, measured: MeasuredModel, prompts: PromptSet
) -> dict[str, Any]:
    """Return the settings of a run and what it ran on."""
    layouts = measured.pruner(JOINT).scoring_model.prompts
    readouts = {}
    for readout in dict.fromkeys(READOUTS_OF_CASES.values()):
        name, weights = measured.head_weights(readout)
        readouts[readout] = {
            "head_weights": name,
            "passes": " + ".join(weights.spec.passes),
            "layers": weights.layers,
        }
    return {
        "format": FORMAT,
        "command": command_of("benchmarks/speed.py", _parser(), options),
        "settings": {
            "model": without_folder(options.model),
            "layers": measured.model.config.num_hidden_layers,
            "dtype": str(measured.model.dtype).removeprefix("torch."),
            "threads": options.threads,
            "data": None if options.data is None else file_record(options.data),
            "source": prompts.source,
            "prompt_tokens": [joint_tokens(layouts, prompt) for prompt in prompts.prompts],
            "repeats": options.repeats,
            "seed": SEED,
            "readouts": readouts,
        },
        "machine": machine_class(),
        "git": git_state(),
        "packages": package_versions(),
    }


def _parts(
    options: argparse.Namespace,
    subject: Subject,
    measured: MeasuredModel,
    prompts: PromptSet,
    reference: ReferenceAT2 | None,
    progress: Progress,
) -> Iterator[_Part]:
    """Measure part by part."""
    count = len(prompts.prompts)
    with TemporaryDirectory() as folder:
        cases = speed_cases(measured, prompts.prompts, Path(folder))
        cases |= floor_cases(measured, prompts.prompts, COLD_CASES)
        if options.peers:
            cases |= peer_cases(prompts.prompts, model=options.model)
        slow = ablation_cases(
            measured,
            prompts.prompts,
            removals=options.ablations,
            reference=reference,
            seed=SEED,
        )
        between = rounds_between(count)
        runs = time_cases(
            cases | slow,
            prompts=count,
            repeats=options.repeats,
            seed=SEED,
            warm=slow.keys(),
            between=dict.fromkeys(slow, between),
        )
        rounds = count * options.repeats
        total = rounds * len(cases) + math.ceil(rounds / between) * len(slow)
        samples = list(progress.track(runs, total=total, description="speed"))
    figures, stages = summarise(samples), stage_medians(samples)
    share = core_share(samples, UNIT, threads=options.threads)
    floors = summarise_floors(samples, COLD_CASES)
    stand_ins = {
        case
        for case, readout in READOUTS_OF_CASES.items()
        if measured.head_weights(readout)[0] == STAND_IN
    }
    tables = [speed_table(figures, stand_ins), stage_table(stages)]
    tables += [floor_table(floors)] if floors else []
    beside = summarise_ablations(samples)
    tables += [ablations_table(beside)] if beside else []
    yield _Part(
        "speed",
        {
            **speed_record(figures, stages, share),
            "floors": list(map(asdict, floors)),
            "beside": ablations_record(beside),
        },
        tables,
        {PLOT: speed_plot(figures)},
    )

    layouts = measured.pruner(JOINT).scoring_model.prompts
    peaks: dict[str, list[PeakMemory]] = {"joint": [], "independent": [], "kept": []}
    for size in progress.track(sorted(set(options.chunks)), description="memory"):
        prompt = prompts.of_size(size)
        peaks["independent"].append(measure_peak(subject, DEFAULT, prompt))
        peaks["kept"].append(measure_peak(subject, DEFAULT, prompt, kept=True))
        if joint_tokens(layouts, prompt) is not None:
            peaks["joint"].append(measure_peak(subject, JOINT, prompt))
    checks = memory_checks(peaks)
    taken = {reading: [asdict(peak) for peak in own] for reading, own in peaks.items()}
    drawn = [memory_table(peaks), check_table(checks)]
    yield _Part("memory", {**taken, "checks": checks}, drawn)

    if options.scaling:
        sizes = time_sizes(measured, prompts, options.scaling, repeats=SCALING_ROUNDS, seed=SEED)
        grown = scaling_record(list(sizes))
        yield _Part("scaling", grown, [scaling_table(grown)])

    if options.callers:
        times = time_callers(measured, prompts.prompts, options.callers, calls=CALLS)
        wait = longest_wait(measured, prompts.prompts, calls=CALLS)
        shared = concurrency_record(times, wait)
        yield _Part("concurrency", shared, [concurrency_table(shared)])

    if options.generate:
        answers = time_generation(
            measured, prompts, tokens=options.generate, repeats=GENERATION_ROUNDS, seed=SEED
        )
        answered = generation_record(answers, tokens=options.generate)
        yield _Part("generation", answered, [generation_table(answered)])

    if options.extremes:
        inputs = [
            ("one chunk of 1 MB", prompts.of_one_chunk(LONG_BYTES)),
            (f"{MANY_CHUNKS:,} chunks", prompts.of_size(MANY_CHUNKS)),
        ]
        pruner = measured.pruner(DEFAULT)
        extremes: dict[str, tuple[float, PeakMemory]] = {}
        for name, prompt in progress.track(inputs, description="extremes"):
            start = time.perf_counter()
            pruner.prune(prompt.query, prompt.chunks, top_k=3)
            seconds = time.perf_counter() - start
            extremes[name] = seconds, measure_peak(subject, DEFAULT, prompt)
        figures_of = {
            name: {"seconds": seconds, **asdict(peak)} for name, (seconds, peak) in extremes.items()
        }
        yield _Part("extremes", figures_of, [extremes_table(extremes)])


if __name__ == "__main__":
    sys.exit(main())
