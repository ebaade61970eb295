"""What a scored query costs: at2_rag, ablations and the reference AT2, side by side.

python benchmarks/cost.py
python benchmarks/cost.py --data FILE.jsonl.gz --reference REFERENCE NEEDS --output FOLDER

README.md beside this file says what is measured and how.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from command_line import add_shared_options, command_of, exit_code, positive
from cost_cases import (
    ATTRIBUTION,
    BATCH_SIZES,
    MASKING,
    OURS,
    REFERENCES,
    REMOVAL,
    CostCases,
    answer_attributor,
    make_questions,
)
from cost_figures import COLLECTION, check_record, memory_checks, summarise, time_checks
from cost_memory import measure_case, measure_collection
from cost_tables import check_table, cost_table, memory_table, remarks
from interleaved import core_share, time_cases
from machine import busy_share, machine_class
from measured_model import JOINT, MeasuredModel, Subject, load
from reference_at2 import ReferenceAT2, load_reference, reference_version
from report_files import show_report, write_report
from rich.console import Console
from rich.progress import Progress
from speed_prompts import CHUNKS, PromptSet, joint_tokens, read_prompts

from at2_rag.errors import InputError
from at2_rag.readout.head_weights import UNIFORM
from at2_rag.training.answering.answer_model import BATCH_TOKENS
from at2_rag_evals.provenance import file_record, git_state, package_versions, without_folder
from at2_rag_evals.tables import Table

FORMAT = 1
SEED = 0
_SLOW_RUNS = 2  # of the reference and of answer attribution in a round, at most


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    return exit_code(_run, _parser().parse_args(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="What a scored query costs, beside ablations and the reference AT2.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_shared_options(parser, report="cost")
    add = parser.add_argument
    add("--items", type=positive, default=6, help="prompts, each with a round of its own")
    add("--repeats", type=positive, default=5, help="runs of the cheap cases in a round")
    add("--reference", type=Path, nargs="+", metavar="PATH", help="folders with at2 0.0.1")
    add("--no-memory", action="store_true", help="leave the peaks out")
    return parser


def _run(options: argparse.Namespace) -> None:
    busy = busy_share()
    subject = Subject(options.model, options.dtype, options.threads)
    measured = load(subject)
    reference, note = _reference(options, measured)
    prompts = read_prompts(
        options.data,
        measured.pruner(JOINT).scoring_model.prompts,
        count=options.items,
        lengths=tuple(options.prompt_tokens),
    )
    if reference is not None:
        given = len(prompts.prompts)
        prompts = reference.readable(prompts)
        note += f" Prompts left out because it fails on them: {given - len(prompts.prompts)}."
    questions = make_questions(measured, prompts.prompts, seed=SEED)
    cases = CostCases(measured, questions, reference)
    batches = _time_batches(cases)
    batch = min(batches, key=lambda size: batches[size])
    times = _runs_a_round(options.repeats, reference=reference is not None)
    report = _head(options, measured, prompts)
    report["settings"] |= {"runs_a_round": times, "batch": batch, "reference": note}
    report["machine"]["busy_before"] = None if busy is None else round(busy, 2)
    report["removal_batches"] = batches
    tables: list[Table] = []
    try:
        with Progress(console=Console(stderr=True), auto_refresh=False) as progress:
            for name, record, drawn in _parts(options, subject, cases, batch, times, progress):
                report[name] = record
                tables += drawn
                if options.output is not None:
                    write_report(
                        options.output / "cost",
                        report,
                        title="Cost of a scored query",
                        remarks=remarks(report),
                        tables=tables,
                    )
    finally:  # what was measured is shown even if a later part fails
        show_report(remarks(report) if tables else (), tables)


def _reference(
    options: argparse.Namespace, measured: MeasuredModel
) -> tuple[ReferenceAT2 | None, str]:
    """Return the reference, or None if it isn't there, and what the report says of it."""
    try:
        reference = load_reference(measured, options.reference or ())
    except InputError as error:
        if options.reference:
            raise
        return None, f"Without the reference AT2: {error}."
    return reference, (
        f"Reference: at2 {reference_version()} on the same model object, in its own wording, "
        "chunks as documents; an answer it generates has at most 32 tokens."
    )


def _time_batches(cases: CostCases) -> dict[int, float]:
    """Return the seconds of the removals of the first question, by masks read at a time."""
    cases.case(MASKING, batch=1)(0)  # so that the first doesn't pay for the start
    seconds = {}
    for size in BATCH_SIZES:
        run, start = cases.removal(size), time.perf_counter()
        run(0)
        seconds[size] = time.perf_counter() - start
    return seconds


def _runs_a_round(repeats: int, *, reference: bool) -> dict[str, int]:
    """Return how often each case runs in a round; the longest ones, not named, run once."""
    few = (ATTRIBUTION, *REFERENCES) if reference else (ATTRIBUTION,)
    return {**dict.fromkeys(OURS, repeats), **dict.fromkeys(few, min(_SLOW_RUNS, repeats))}


def _head(
    options: argparse.Namespace, measured: MeasuredModel, prompts: PromptSet
) -> dict[str, Any]:
    """Return the settings of a run and what it ran on."""
    layouts = measured.pruner(JOINT).scoring_model.prompts
    layers = measured.model.config.num_hidden_layers
    readouts = {}
    for readout in dict.fromkeys(OURS.values()):
        name, weights = measured.head_weights(readout)
        readouts[readout] = f"{name}, {weights.layers} of {layers} layers"
    own = answer_attributor(measured).head_weights
    shipped = "shipped" if own.fingerprint else UNIFORM
    readouts["answers"] = f"{shipped}, {own.layers} of {layers} layers"
    return {
        "format": FORMAT,
        "command": command_of("benchmarks/cost.py", _parser(), options),
        "settings": {
            "model": without_folder(options.model),
            "dtype": str(measured.model.dtype).removeprefix("torch."),
            "threads": options.threads,
            "data": None if options.data is None else file_record(options.data),
            "source": prompts.source,
            "chunks": CHUNKS,
            "prompt_tokens": [joint_tokens(layouts, prompt) for prompt in prompts.prompts],
            "batch_tokens": BATCH_TOKENS,
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
    cases: CostCases,
    batch: int,
    times: dict[str, int],
    progress: Progress,
) -> Iterator[tuple[str, dict[str, Any], list[Table]]]:
    """Measure part by part; yield each part's name, figures and tables."""
    made, count = cases.all(batch=batch), len(cases.questions)
    warm = made.keys() - OURS.keys()
    for name in warm - {REMOVAL, MASKING}:  # those two ran already
        made[name](0)
    runs = time_cases(made, prompts=count, repeats=1, seed=SEED, times=times, warm=warm)
    total = count * sum(times.get(name, 1) for name in made)
    samples = list(progress.track(runs, total=total, description="time"))
    figures = summarise(samples)
    checks = time_checks(figures)
    record = {
        "rows": [asdict(own) for own in figures],
        "checks": [check_record(check) for check in checks],
        "core_share": core_share(samples, REMOVAL, threads=options.threads),
    }
    yield "cost", record, [cost_table(figures), check_table("Limits of time", checks)]

    if not options.no_memory:
        question, folders = cases.questions[0], options.reference or ()
        peaks = {
            name: measure_case(subject, name, question, batch=batch, reference=folders)
            for name in progress.track(list(made), description="memory")
        }
        peaks[COLLECTION] = measure_collection(subject, question.prompt)
        checks = memory_checks(peaks)
        record = {
            "peaks": {name: asdict(peak) for name, peak in peaks.items()},
            "checks": [check_record(check) for check in checks],
        }
        yield "memory", record, [memory_table(peaks), check_table("Limits of memory", checks)]


if __name__ == "__main__":
    sys.exit(main())
