"""What `at2-rag train` does: read, collect, choose, fit, judge, report."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from at2_rag.files import check_writable, remove_leftovers, without_folder, write_whole
from at2_rag.progress import StepProgress
from at2_rag.readout.files import DESCRIPTION_FILE
from at2_rag.report.training_page import training_page, training_verdict
from at2_rag.training.collection.features import Features
from at2_rag.training.commands.collecting import (
    CollectionRequest,
    Questions,
    open_input,
    read_questions,
)
from at2_rag.training.commands.loading import writing_to
from at2_rag.training.commands.record import (
    PAGE_FILE,
    RECORD_FILE,
    dev_record,
    file_records,
    training_record,
)
from at2_rag.training.fitting.dev import count_shared, judge_on_dev
from at2_rag.training.fitting.objectives import ABLATED, Objective
from at2_rag.training.fitting.trainer import Training, train
from at2_rag.training.fitting.training_data import TrainingPlan

_ENDLESS = 10**6  # columns of a terminal in which any table fits


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest(CollectionRequest):
    """The arguments of the command."""

    output: str
    objectives: tuple[Objective, ...]
    folds: int
    leave_out_sources: bool
    key_heads: int | None

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments without paths of files and folders, JSON-ready."""
        values = asdict(self)
        for name in ("files", "output", "collected", "dev"):
            del values[name]
        values["shortlist"] = self.shortlist and Path(self.shortlist).name
        return {**values, "model": without_folder(self.model)}

    def plan(self, layers: int) -> TrainingPlan:
        """Return what to learn from and which designs to try, of a model of so many layers."""
        return replace(
            CollectionRequest.plan(self, layers),
            objectives=self.objectives,
            folds=self.folds,
            leave_out_sources=self.leave_out_sources,
            key_heads=self.key_heads,
        )


def run_training(request: TrainRequest, *, command: str) -> None:
    """Fit head weights and write them with a report, which shows the command line."""
    questions = read_questions(request)
    data = file_records(request.files, questions.by_file)
    dev_data = file_records(request.dev, questions.dev_by_file)
    output = Path(request.output)
    check_writable(output)
    remove_leftovers(output)
    with StepProgress() as progress:
        training, dev = _train(request, questions, dev_data, progress)
    record = training_record(
        training,
        command=command,
        settings=request.settings,
        data=data,
        dev=dev,
        seconds=progress.seconds,
    )
    _write(request, training, record)
    console = progress.console
    console.print(_results_table(training, console))
    verdict = training_verdict(record)
    console.print(Text(f"{verdict.question} {verdict.statement}"))
    written = f"wrote {output / DESCRIPTION_FILE}, the weights and {PAGE_FILE} beside it"
    console.out(written, highlight=False)


def _train(
    request: TrainRequest,
    questions: Questions,
    dev_data: Sequence[dict[str, Any]],
    progress: StepProgress,
) -> tuple[Training, dict[str, Any] | None]:
    """Load the model, check everything, read the dev examples, train and judge."""
    opened = open_input(request, questions, progress=progress)
    workers, dev = os.cpu_count() or 1, opened.dev
    if dev is None:
        return train(opened.data, workers=workers, progress=progress), None
    shared = count_shared(dev.examples, questions.examples)
    read = dev.collection.collect(workers=workers, progress=partial(progress, "reading dev"))
    training = train(opened.data, workers=workers, progress=progress)
    features = Features.of(read.rows, dev.collection.passes)
    figures = judge_on_dev(training.weights, dev.examples, features)
    return training, dev_record(figures, data=dev_data, left_out=dev.left_out, shared=shared)


def _write(request: TrainRequest, training: Training, record: dict[str, Any]) -> None:
    settings = record["settings"]
    ablated = ["answers", "masks"] if request.signal in ABLATED else []
    if ablated and request.answers == "generated":
        ablated.append("answer_tokens")
    folds = "leave_out_sources" if request.leave_out_sources else "folds"
    shortlist = () if request.shortlist is None else ("shortlist",)
    names = ("model", "revision", "signal", "seed", folds, *shortlist)
    facts: dict[str, Any] = {
        **{name: settings[name] for name in names},
        "data": [file["name"] for file in record["data"]],
        "samples": record["samples"],
        "left_out": record["left_out"],
        **{name: settings[name] for name in ablated},
        "ridge": training.chosen.candidate.ridge,
        "cross_validation": training.chosen.figures(),
        **({} if record["dev"] is None else {"dev": record["dev"]}),
        "versions": {name: version(name) for name in ("at2-rag", "torch", "transformers")},
    }
    folder = Path(request.output)
    with writing_to(folder, collected=request.folder):
        training.weights.describe(**facts).save(folder)
        text = json.dumps(record, indent=1, allow_nan=False) + "\n"
        write_whole(folder / RECORD_FILE, text.encode())
        write_whole(folder / PAGE_FILE, training_page(record).encode())


def _results_table(training: Training, console: Console) -> Table:
    """Return a table of all designs with their quality, by source, too, where that fits."""
    table = _designs_table(training, list(training.chosen.by_source))
    natural = console.measure(table, options=console.options.update(width=_ENDLESS)).maximum
    return table if natural <= console.width else _designs_table(training, [])


def _designs_table(training: Training, sources: Sequence[str]) -> Table:
    """Return a table of all designs, the chosen one in bold, with columns for some sources."""
    over = ", the teacher's best chunk" if training.judged_by == "teacher" else ""
    title = f"nDCG@10 out of fold{over}"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("features", no_wrap=True)
    for heading in ("objective", "layers", "ridge", "macro", *sources):
        table.add_column(Text(heading), justify="right")
    for result in training.results:
        design = result.candidate
        table.add_row(
            Text(f"{design.spec.quantity}:{'+'.join(design.spec.passes)}"),
            design.objective,
            str(design.depth),
            f"{design.ridge:g}",
            f"{result.ndcg:.3f}",
            *(f"{result.by_source[name]:.3f}" for name in sources),
            style="bold" if result is training.chosen else None,
        )
    return table
