"""Depth against quality: how few layers of the scoring model do.

python benchmarks/depth.py --train FILE.jsonl.gz ... --collected FOLDER --dev FILE.jsonl.gz ...

README.md beside this file says what is measured and how.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from command_line import add_shared_options, command_of, exit_code, positive
from depth_quality import (
    OBJECTIVE,
    QUANTITY,
    Design,
    DesignQuality,
    cross_validate_designs,
    summarise_designs,
)
from depth_tables import (
    PLOT,
    cheapest_not_inferior,
    depth_plot,
    depth_table,
    remarks,
    source_table,
)
from depth_times import DesignCases, DesignTime
from interleaved import core_share, time_cases
from machine import busy_share, machine_class
from measured_model import JOINT, MeasuredModel, Subject, load
from report_files import busy_remark, show_report, write_report
from rich.console import Console
from rich.progress import Progress
from speed_cases import UNIT
from speed_prompts import read_prompts

from at2_rag.data.examples import draw_per_source, read_files
from at2_rag.errors import InputError
from at2_rag.reading.features import Pass
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.training.answering.answer_model import AnswerModel
from at2_rag.training.collection.ablations import AblationPlan
from at2_rag.training.collection.gathered_ablations import GatheredAblations, gather_ablations
from at2_rag.training.collection.store import reading_depth
from at2_rag.training.fitting.dev_figures import (
    DEV_FOLDER,
    DevSet,
    choose_dev,
    collect_dev,
    count_shared,
)
from at2_rag_evals.provenance import file_record, git_state, package_versions, without_folder

FORMAT = 1
SEED = 0
ITEMS, REPEATS = 4, 3
PASSES: tuple[tuple[Pass, ...], ...] = (("together",), ("together", "apart"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    return exit_code(_run, _parser().parse_args(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Quality and cost of pruning by the layers in use.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add_shared_options(parser, report="depth")
    add("--train", type=Path, nargs="+", metavar="FILE", help="as for at2-rag train")
    add("--dev", type=Path, nargs="+", default=[], metavar="FILE", help="also judge on these")
    add("--collected", type=Path, help="what at2-rag train --signal both collected, or is to be")
    add("--depths", type=positive, nargs="+", default=[4, 6, 8, 10, 12, 14, 16, 18, 22, 26, 30])
    add("--limit", type=positive, help="examples of each source, as for at2-rag train")
    add("--masks", type=positive, default=32, help="as for at2-rag train")
    add("--answer-tokens", type=positive, default=32, help="as for at2-rag train")
    add("--folds", type=positive, default=5, help="as for at2-rag train")
    return parser


def _run(options: argparse.Namespace) -> None:
    if not options.train or options.collected is None:
        raise InputError("pass --train FILE ..., and --collected with the folder of what is read")
    busy = busy_share()
    measured = load(Subject(options.model, options.dtype, options.threads))
    designs = [Design(passes, depth) for depth in sorted(set(options.depths)) for passes in PASSES]
    with Progress(console=Console(stderr=True), auto_refresh=False) as progress:
        gathered, dev = _gather(options, measured, progress)
        results = list(
            progress.track(
                cross_validate_designs(gathered, designs), total=len(designs), description="folds"
            )
        )
        rows = summarise_designs(
            gathered, results, dev, heads=measured.model.config.num_attention_heads, seed=SEED
        )
        times, share = _time(options, measured, designs, progress)
    _report(options, measured, rows, times, busy=busy, share=share, dev=dev)


def _gather(
    options: argparse.Namespace, measured: MeasuredModel, progress: Progress
) -> tuple[GatheredAblations, DevSet | None]:
    """Read the examples, and what of them isn't collected yet."""
    examples = [own for file in read_files(list(map(str, options.train))) for own in file]
    if options.limit is not None:
        examples = draw_per_source(examples, options.limit, seed=SEED)
    places = (options.collected, options.collected / DEV_FOLDER)
    layers = measured.model.config.num_hidden_layers
    depth = reading_depth(max(options.depths), places, layers=layers)
    model = ScoringModel(measured.model, measured.tokenizer, depth=depth)
    workers = os.cpu_count() or 1
    shared: dict[str, Any] = {"fingerprint": measured.fingerprint, "workers": workers}
    bars = {stage: progress.add_task(stage, total=None) for stage in ("reading", "reading dev")}

    def tell(stage: str, done: int, total: int) -> None:
        progress.update(bars[stage], completed=done, total=total, refresh=True)

    torch.set_num_threads(1)  # as at2-rag train reads
    try:
        gathered = gather_ablations(
            model,
            AnswerModel(measured.model, measured.tokenizer),
            examples,
            options.collected,
            signal="both",
            plan=AblationPlan(options.masks, options.answer_tokens),
            folds=options.folds,
            seed=SEED,
            progress=tell,
            **shared,
        )
        if not options.dev:
            return gathered, None
        own = [example for file in read_files(list(map(str, options.dev))) for example in file]
        chosen, left_out = choose_dev(model, own, reading="independent")
        count_shared(chosen, examples)  # warns
        dev = collect_dev(
            model,
            chosen,
            options.collected / DEV_FOLDER,
            left_out=left_out,
            reading="independent",
            progress=lambda done, total: tell("reading dev", done, total),
            **shared,
        )
        return gathered, dev
    finally:
        torch.set_num_threads(options.threads)


def _time(
    options: argparse.Namespace,
    measured: MeasuredModel,
    designs: Sequence[Design],
    progress: Progress,
) -> tuple[list[DesignTime], float]:
    """Time calls of every design; return the times and the unit's share of the cores."""
    layouts = measured.pruner(JOINT).scoring_model.prompts
    lengths = tuple(options.prompt_tokens)
    prompts = read_prompts(options.data, layouts, count=ITEMS, lengths=lengths).prompts
    cases = DesignCases(measured, prompts, designs)
    runs = time_cases(cases.cases, prompts=len(prompts), repeats=REPEATS, seed=SEED)
    total = len(prompts) * REPEATS * len(cases.cases)
    samples = list(progress.track(runs, total=total, description="time"))
    return cases.summarise(samples), core_share(samples, UNIT, threads=options.threads)


def _report(
    options: argparse.Namespace,
    measured: MeasuredModel,
    rows: Sequence[DesignQuality],
    times: Sequence[DesignTime],
    *,
    busy: float | None,
    share: float,
    dev: DevSet | None,
) -> None:
    by_design = {own.design: own for own in times}
    chosen = cheapest_not_inferior(rows, by_design)
    best = max(rows, key=lambda row: row.ndcg.mean).design
    tables = [depth_table(rows, by_design), source_table(rows)]
    told = [
        *remarks(chosen, best, judged=rows[0].ndcg.n, folds=options.folds),
        busy_remark("The unit", share),
    ]
    if options.output is not None:
        files = {name: list(map(file_record, getattr(options, name))) for name in ("train", "dev")}
        report = {
            "format": FORMAT,
            "command": command_of("benchmarks/depth.py", _parser(), options),
            "settings": {
                "model": without_folder(options.model),
                "dtype": str(measured.model.dtype).removeprefix("torch."),
                "threads": options.threads,
                "quantity": QUANTITY,
                "objective": OBJECTIVE,
                "seed": SEED,
                "depths": sorted(set(options.depths)),
                "limit": options.limit,
                "masks": options.masks,
                "answer_tokens": options.answer_tokens,
                "folds": options.folds,
                **files,
            },
            "machine": {**machine_class(), "busy_before": busy, "core_share": share},
            "git": git_state(),
            "packages": package_versions(),
            "dev_examples": None if dev is None else dev.counts,
            "quality": [asdict(row) for row in rows],
            "times": [asdict(own) for own in times],
            "best": asdict(best),
            "cheapest_not_inferior": asdict(chosen),
        }
        write_report(
            options.output / "depth",
            report,
            title="Depth against quality",
            remarks=told,
            tables=tables,
            plots={PLOT: depth_plot(rows)},
        )
    show_report(told, tables)


if __name__ == "__main__":
    sys.exit(main())
