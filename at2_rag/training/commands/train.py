"""What `at2-rag train` does: read, collect, choose, fit, judge, report."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from at2_rag.data.examples import Example, draw_per_source, read_files
from at2_rag.errors import InputError
from at2_rag.files import check_writable, remove_leftovers, without_folder, write_whole
from at2_rag.progress import StepProgress
from at2_rag.reading.features import FeatureSpec, Reading
from at2_rag.reading.scoring_model import layers_and_heads
from at2_rag.readout.files import DESCRIPTION_FILE
from at2_rag.readout.head_weights import TargetRule
from at2_rag.readout.shipped import load_head_weights, named_or_folder
from at2_rag.readout.shortlist import Shortlist
from at2_rag.report.training_page import training_page, training_verdict
from at2_rag.training.calibrating.held_out import hold_out
from at2_rag.training.collection.ablations import AblationPlan
from at2_rag.training.collection.collection import reading_depth
from at2_rag.training.collection.features import Features
from at2_rag.training.commands.loading import load_for_workers, writing_to
from at2_rag.training.commands.record import (
    PAGE_FILE,
    RECORD_FILE,
    dev_record,
    file_records,
    training_record,
)
from at2_rag.training.fitting.dev import (
    DEV_FOLDER,
    choose_dev,
    count_shared,
    judge_on_dev,
)
from at2_rag.training.fitting.objectives import ABLATED, Objective, Signal
from at2_rag.training.fitting.trainer import Training, train
from at2_rag.training.fitting.training_data import TrainingData, TrainingPlan

_DEPTH_SHARE = 0.6  # of the model's layers, used by default
_ENDLESS = 10**6  # columns of a terminal in which any table fits


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """The arguments of the command."""

    files: tuple[str, ...]
    output: str
    model: str
    revision: str | None
    signal: Signal
    target: TargetRule
    reading: Reading
    depths: tuple[int, ...]
    features: tuple[str, ...]
    objectives: tuple[Objective, ...]
    limit: int | None
    hold_out: int | None
    folds: int
    leave_out_sources: bool
    seed: int
    collected: str | None
    masks: int
    answers: Literal["generated", "reference"]
    answer_tokens: int
    key_heads: int | None
    shortlist: str | None
    dtype: str | None
    dev: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where what is read is kept."""
        return Path(self.collected) if self.collected else Path(self.output) / "features"

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
        shortlist = None if self.shortlist is None else _shortlist(self.shortlist)
        default = round(_DEPTH_SHARE * layers) if shortlist is None else shortlist.layers
        return TrainingPlan(
            signal=self.signal,
            target=self.target,
            reading=self.reading,
            specs=tuple(map(_parse_features, self.features)),
            objectives=self.objectives,
            depths=self.depths or (default,),
            folds=self.folds,
            leave_out_sources=self.leave_out_sources,
            seed=self.seed,
            key_heads=self.key_heads,
            shortlist=shortlist,
            ablations=AblationPlan(
                self.masks, self.answer_tokens, reference=self.answers == "reference"
            ),
        )


def run_training(request: TrainRequest, *, command: str) -> None:
    """Fit head weights and write them with a report, which shows the command line."""
    request.plan(layers=1)  # refuses what doesn't go together before anything is loaded
    if request.target == "answer" and request.dev:
        raise InputError(
            "--target answer fits weights that rank nothing for a question; leave out --dev"
        )
    by_file = read_files(request.files, labelled=request.signal in ("evidence", "both"))
    dev_by_file = read_files(request.dev)
    data = file_records(request.files, by_file)
    dev_data = file_records(request.dev, dev_by_file)
    examples, dev_examples = [*chain.from_iterable(by_file)], [*chain.from_iterable(dev_by_file)]
    if request.hold_out is not None:
        _, examples = hold_out(examples, request.hold_out)
    if request.limit is not None:
        examples = draw_per_source(examples, request.limit, seed=request.seed)
    output = Path(request.output)
    check_writable(output)
    remove_leftovers(output)
    with StepProgress() as progress:
        training, dev = _train(request, examples, dev_examples, dev_data, progress)
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
    examples: Sequence[Example],
    dev_examples: Sequence[Example],
    dev_data: Sequence[dict[str, Any]],
    progress: StepProgress,
) -> tuple[Training, dict[str, Any] | None]:
    """Load the model, check everything, read the dev examples, train and judge."""
    progress("loading the model", 0, 1)
    loaded = load_for_workers(request.model, revision=request.revision, dtype=request.dtype)
    layers, _ = layers_and_heads(loaded.model.base_model.config)
    plan = request.plan(layers)
    dev_folder = request.folder / DEV_FOLDER
    # What was collected deeper serves every smaller depth.
    depth = reading_depth(max(plan.depths), (request.folder, dev_folder), layers=layers)
    data = TrainingData(loaded, examples, request.folder, plan, depth=depth)
    workers = os.cpu_count() or 1
    progress("loading the model", 1, 1)
    data.check()
    if not dev_examples:
        return train(data, workers=workers, progress=progress), None
    chosen, left_out = choose_dev(data.model, dev_examples, reading=plan.reading)
    dev = data.features_of(chosen, dev_folder, seed=0, padded=False)
    dev.check()
    shared = count_shared(chosen, examples)
    read = dev.collect(workers=workers, progress=partial(progress, "reading dev"))
    training = train(data, workers=workers, progress=progress)
    figures = judge_on_dev(training.weights, chosen, Features.of(read.rows, dev.passes))
    return training, dev_record(figures, data=dev_data, left_out=left_out, shared=shared)


def _shortlist(name_or_folder: str) -> Shortlist:
    """Return the shortlist that weights for late reading alone choose."""
    weights = load_head_weights(named_or_folder(name_or_folder))
    if weights.spec != FeatureSpec("log", ("late",)):
        raise InputError(
            f"--shortlist {name_or_folder}: these weights are for the {weights.spec.quantity} of "
            f"{', '.join(weights.spec.passes)}; pass weights for the log of late reading alone"
        )
    return Shortlist(weights.weight[0], weights.bias)


def _parse_features(text: str) -> FeatureSpec:
    quantity, separator, passes = text.partition(":")
    if not separator:
        raise InputError(f"--features is {text!r}; write it as log:together+apart")
    return FeatureSpec(quantity, tuple(passes.split("+")))  # type: ignore[arg-type]


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
