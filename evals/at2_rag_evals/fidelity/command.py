"""What `at2-rag eval fidelity` does: answer, remove, score, judge, report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from at2_rag.cli.step_progress import StepProgress
from at2_rag.data.examples import read_examples
from at2_rag.errors import DataError, InputError
from at2_rag.files import write_whole
from at2_rag_evals.bootstrap import LEVEL, RESAMPLES
from at2_rag_evals.clusters import item_clusters
from at2_rag_evals.extras import import_extra
from at2_rag_evals.fidelity.answering import answering_model, answering_settings
from at2_rag_evals.fidelity.judging import judge
from at2_rag_evals.fidelity.masks import KEEP_RATES, MaskPlan
from at2_rag_evals.fidelity.removal import AnswerSource, RemovalReader
from at2_rag_evals.fidelity.report import (
    NOTES,
    fidelity_markdown,
    fidelity_tables,
    judged_lines,
    shares_note,
    summary_record,
)
from at2_rag_evals.fidelity.sources import MAX_SENTENCES, Unit, sourced_set
from at2_rag_evals.fidelity.summary import FidelitySummary, summarise_fidelity
from at2_rag_evals.fidelity.systems.base import FidelitySystem
from at2_rag_evals.fidelity.systems.registry import HEAD_COUNTS, SystemOptions, make_systems
from at2_rag_evals.items import rankable_items
from at2_rag_evals.named_weights import NamedWeights, with_named
from at2_rag_evals.provenance import (
    file_record,
    git_state,
    package_versions,
    weights_arguments,
    without_folder,
)
from at2_rag_evals.rankers import RankerOptions
from at2_rag_evals.store import STORE_FILE
from at2_rag_evals.tables import to_rich

REPORT_FORMAT = 2
_PLAIN_WIDTH = 160


@dataclass(frozen=True, slots=True)
class FidelityRequest:
    """What was asked for; the fields are the command's arguments."""

    files: tuple[Path, ...]
    systems: tuple[str, ...]
    output: Path | None = None
    limit: int | None = None
    seed: int = 0
    model: str | None = None
    head_weights: str | None = None
    embedding_model: str | None = None
    weights: tuple[NamedWeights, ...] = ()
    answer_weights: str | None = None
    unit: Unit = "chunk"
    max_sentences: int = MAX_SENTENCES
    train: tuple[Path, ...] = ()
    masks: int = 32
    answers: AnswerSource = "generated"
    answer_tokens: int = 32

    @property
    def command(self) -> str:
        """The command line, with the names of files and folders but not where they are."""
        parts = ["at2-rag eval fidelity", *(path.name for path in self.files)]
        parts += [] if self.limit is None else [f"--limit {self.limit}"]
        if self.unit == "sentence":
            parts += [f"--unit {self.unit}", f"--max-sentences {self.max_sentences}"]
        parts += [f"--seed {self.seed}", f"--masks {self.masks}", f"--answers {self.answers}"]
        parts += [f"--answer-tokens {self.answer_tokens}"]
        parts += [f"--train {path.name}" for path in self.train]
        for option, value in (
            ("--model", self.model),
            ("--head-weights", self.head_weights),
            ("--answer-weights", self.answer_weights),
            ("--embedding-model", self.embedding_model),
            ("--output", None if self.output is None else str(self.output)),
        ):
            parts += [] if value is None else [f"{option} {without_folder(value)}"]
        parts += weights_arguments(self.weights)
        return " ".join([*parts, *(f"--system {name}" for name in self.systems)])

    @property
    def left_out(self) -> Mapping[str, str]:
        """Systems that this run can't have -> why."""
        reasons = {}
        if not self.train:
            reasons = dict.fromkeys(HEAD_COUNTS, "choosing heads needs --train FILE")
        if self.unit == "sentence":
            reasons["masked_regression"] = "masked chunk states have no sentence form"
        return {name: reasons[name] for name in self.systems if name in reasons}

    @property
    def judged(self) -> tuple[str, ...]:
        """The systems' names, in the report's order, without those left out."""
        names = with_named(self.systems, self.weights)
        return tuple(name for name in names if name not in self.left_out)


def run_fidelity(request: FidelityRequest, *, as_json: bool) -> None:
    """Run the fidelity eval, print its report and write it where asked to.

    Raises:
        AT2Error: If a file, a model or the head weights can't be used.
        ImportError: If a package of the `evals` extra is missing.
    """
    for module in ("scipy", "sklearn"):
        import_extra(module)
    notes: list[str] = []
    for reason in dict.fromkeys(request.left_out.values()):
        names = [name for name, own in request.left_out.items() if own == reason]
        notes.append(f"{', '.join(names)} left out: {reason}")
        click.echo(notes[-1], err=True)
    path = None if request.output is None else request.output / STORE_FILE
    examples = read_examples(request.files)
    items = rankable_items(examples, limit=request.limit)
    if not items.items:
        raise DataError(
            f"none of the {len(examples)} items can be judged (left out: "
            f"{json.dumps(items.left_out)}); an item needs four chunks, gold and not gold"
        )
    sourced = sourced_set(items, request.unit, max_sentences=request.max_sentences)
    plan = MaskPlan(held=request.masks, seed=request.seed)
    reader = RemovalReader(
        answering_model(request.model),
        settings=answering_settings(request.model),
        answers=request.answers,
        answer_tokens=request.answer_tokens,
        path=path,
    )
    ranker = RankerOptions(
        seed=request.seed,
        model=request.model,
        head_weights=request.head_weights,
        embedding_model=request.embedding_model,
        weights=request.weights,
    )
    options = SystemOptions(reader, plan, ranker, request.answer_weights, request.train)
    systems = make_systems(request.judged, options)
    if not systems:
        raise InputError(
            "no system is left to judge; pass --train FILE or another --system"
            if request.unit == "chunk"
            else "no system is left to judge; pass another --system or --unit chunk"
        )
    with StepProgress() as progress:
        judged = judge(sourced, systems, reader, plan=plan, path=path, progress=progress)
    if not judged.items:
        raise DataError(
            f"none of the {len(examples)} items can be judged (left out: "
            f"{json.dumps(judged.left_out)}); pass items with answers that fit the model's window"
        )
    clusters = {
        (item.source, item.id): number
        for item, number in zip(items.items, item_clusters(items.items), strict=True)
    }
    names = [system.name for system in systems]
    summary = summarise_fidelity(judged, clusters, names, seed=request.seed, resamples=RESAMPLES)
    report = _report(request, reader, systems, summary, [*NOTES, shares_note(systems), *notes])
    if request.output is not None:
        write_whole(request.output / "items.jsonl", "".join(judged_lines(judged)).encode())
        write_whole(request.output / "fidelity.md", fidelity_markdown(report, summary).encode())
        write_whole(request.output / "fidelity.json", (json.dumps(report) + "\n").encode())
    _print(report, summary, as_json=as_json)


def _report(
    request: FidelityRequest,
    reader: RemovalReader,
    systems: Sequence[FidelitySystem],
    summary: FidelitySummary,
    notes: Sequence[str],
) -> dict[str, Any]:
    return {
        "format": REPORT_FORMAT,
        "command": request.command,
        "settings": {
            "files": [file_record(path) for path in request.files],
            "seed": request.seed,
            "limit": request.limit,
            "unit": request.unit,
            "max_sentences": request.max_sentences if request.unit == "sentence" else None,
            "masks": request.masks,
            "keep_rates": list(KEEP_RATES),
            "answers": request.answers,
            "answer_tokens": request.answer_tokens,
            "reading": dict(reader.settings),
            "resamples": RESAMPLES,
            "level": LEVEL,
            "interval": "percentile bootstrap over clusters, stratified by source",
            "shares": {
                system.name: "softmax" if system.shares_are_softmax else "as they are"
                for system in systems
            },
            "systems": {system.name: dict(system.settings) for system in systems},
        },
        "git": git_state(),
        "packages": package_versions(),
        **summary_record(summary),
        "notes": list(notes),
    }


def _print(report: dict[str, Any], summary: FidelitySummary, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PLAIN_WIDTH)
    for table in fidelity_tables(summary):
        console.print(to_rich(table))
    for note in report["notes"]:
        console.print(note, style="dim", markup=False, highlight=False)
