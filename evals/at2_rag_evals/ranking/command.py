"""What `at2-rag eval ranking` does: read, rank, rate, report."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from at2_rag.cli.step_progress import StepProgress
from at2_rag.data.examples import read_examples
from at2_rag.errors import DataError
from at2_rag.files import write_whole
from at2_rag_evals.bootstrap import LEVEL, RESAMPLES
from at2_rag_evals.clusters import item_clusters
from at2_rag_evals.extras import import_extra
from at2_rag_evals.items import ItemSet, rankable_items
from at2_rag_evals.named_weights import NamedWeights, with_named
from at2_rag_evals.padding import DistractorPool, padded_set
from at2_rag_evals.provenance import (
    file_record,
    git_state,
    package_versions,
    weights_arguments,
    without_folder,
)
from at2_rag_evals.rankers import Ranker, RankerOptions, make_ranker
from at2_rag_evals.ranking.rating import RatedSet, rate_systems
from at2_rag_evals.report import NOTES, item_lines, report_markdown, set_record, summary_tables
from at2_rag_evals.store import STORE_FILE
from at2_rag_evals.summary import SetSummary, summarise
from at2_rag_evals.tables import to_rich

REPORT_FORMAT = 1
_PLAIN_WIDTH = 120


@dataclass(frozen=True, slots=True)
class RankingRequest:
    """What was asked for; the fields are the command's arguments."""

    files: tuple[Path, ...]
    systems: tuple[str, ...]
    output: Path | None = None
    pad_to: tuple[int, ...] = ()
    limit: int | None = None
    seed: int = 0
    model: str | None = None
    head_weights: str | None = None
    embedding_model: str | None = None
    weights: tuple[NamedWeights, ...] = ()

    @property
    def judged(self) -> tuple[str, ...]:
        """All systems' names, in the report's order."""
        return with_named(self.systems, self.weights)

    @property
    def command(self) -> str:
        """The command line, with the names of files and folders but not where they are."""
        parts = ["at2-rag eval ranking", *(path.name for path in self.files)]
        parts += [f"--pad-to {size}" for size in self.pad_to]
        parts += [] if self.limit is None else [f"--limit {self.limit}"]
        parts += [f"--seed {self.seed}"]
        for option, value in (
            ("--model", self.model),
            ("--head-weights", self.head_weights),
            ("--embedding-model", self.embedding_model),
            ("--output", None if self.output is None else str(self.output)),
        ):
            parts += [] if value is None else [f"{option} {without_folder(value)}"]
        parts += weights_arguments(self.weights)
        return " ".join([*parts, *(f"--system {name}" for name in self.systems)])


def run_ranking(request: RankingRequest, *, as_json: bool) -> None:
    """Run the ranking eval, print its report and write it where asked to.

    Raises:
        AT2Error: If a file, a model or the head weights can't be used.
        ImportError: If a package of the `evals` extra is missing.
    """
    import_extra("ir_measures")
    if request.output is not None:
        request.output.mkdir(parents=True, exist_ok=True)
    options = RankerOptions(
        seed=request.seed,
        model=request.model,
        head_weights=request.head_weights,
        embedding_model=request.embedding_model,
        weights=request.weights,
    )
    sets = _item_sets(request)
    rankers = [make_ranker(name, options) for name in request.judged]
    with StepProgress() as progress:
        rated_sets = rate_systems(
            sets,
            rankers,
            path=None if request.output is None else request.output / STORE_FILE,
            progress=progress,
        )
    numbers = item_clusters(sets[0].items)
    clusters = {
        (item.source, item.id): number for item, number in zip(sets[0].items, numbers, strict=True)
    }
    summaries = [
        summarise(rated, clusters, seed=request.seed, resamples=RESAMPLES) for rated in rated_sets
    ]
    report = _report(request, rankers, summaries)
    if request.output is not None:
        _write(request.output, report, summaries, rated_sets)
    _print(report, summaries, as_json=as_json)


def _item_sets(request: RankingRequest) -> list[ItemSet]:
    examples = read_examples(request.files)
    natural = rankable_items(examples, limit=request.limit)
    if not natural.items:
        raise DataError(
            f"none of the {len(examples)} items can be judged (left out: "
            f"{json.dumps(natural.left_out)}); an item needs four chunks, gold and not gold"
        )
    if not request.pad_to:
        return [natural]
    pool = DistractorPool(examples)
    padded = [padded_set(natural, pool, size, seed=request.seed) for size in request.pad_to]
    for item_set, size in zip(padded, request.pad_to, strict=True):
        if not item_set.items:
            raise DataError(
                f"no item can be padded to {size} chunks (left out: "
                f"{json.dumps(item_set.left_out)}); pass a smaller --pad-to or more items"
            )
    return [natural, *padded]


def _report(
    request: RankingRequest, rankers: Iterable[Ranker], summaries: Iterable[SetSummary]
) -> dict[str, Any]:
    return {
        "format": REPORT_FORMAT,
        "command": request.command,
        "settings": {
            "files": [file_record(path) for path in request.files],
            "seed": request.seed,
            "limit": request.limit,
            "pad_to": list(request.pad_to),
            "resamples": RESAMPLES,
            "level": LEVEL,
            "interval": "percentile bootstrap over clusters, stratified by source",
            "systems": {ranker.name: dict(ranker.settings) for ranker in rankers},
        },
        "git": git_state(),
        "packages": package_versions(),
        "sets": [set_record(summary) for summary in summaries],
        "notes": list(NOTES),
    }


def _write(
    folder: Path,
    report: dict[str, Any],
    summaries: list[SetSummary],
    rated_sets: list[RatedSet],
) -> None:
    lines = (line for rated in rated_sets for line in item_lines(rated))
    write_whole(folder / "items.jsonl", "".join(lines).encode())
    write_whole(folder / "ranking.md", report_markdown(report, summaries).encode())
    write_whole(folder / "ranking.json", (json.dumps(report, indent=2) + "\n").encode())


def _print(report: dict[str, Any], summaries: list[SetSummary], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PLAIN_WIDTH)
    for summary in summaries:
        for table in summary_tables(summary):
            console.print(to_rich(table))
    for note in NOTES:
        console.print(note, style="dim", markup=False, highlight=False)
