"""What `at2-rag eval qa` does: read, prune, answer, judge, report."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import click
from rich.console import Console

from at2_rag.data.examples import read_examples
from at2_rag.errors import DataError, InputError
from at2_rag.files import write_whole
from at2_rag.progress import StepProgress
from at2_rag.text.chunks import Chunk
from at2_rag_evals.bootstrap import LEVEL, RESAMPLES
from at2_rag_evals.clusters import item_clusters
from at2_rag_evals.folder_lock import only_writer
from at2_rag_evals.provenance import (
    file_record,
    git_state,
    package_versions,
)
from at2_rag_evals.qa.browsing import BrowsedItem, browsed_items
from at2_rag_evals.qa.chosen import Choice, choices_table, choose_budgets
from at2_rag_evals.qa.cli import DEFAULT_PRUNERS, MORE_PRUNERS
from at2_rag_evals.qa.folder_format import FORMAT, SUMMARY_FILE, claim_folder
from at2_rag_evals.qa.generators.registry import make_generator
from at2_rag_evals.qa.gold_position import SHARES, movable_items, with_gold_at
from at2_rag_evals.qa.items import QASet, answerable_items
from at2_rag_evals.qa.page import qa_page
from at2_rag_evals.qa.position_summary import summarise_positions
from at2_rag_evals.qa.pruners.registry import PrunerOptions, make_pruners
from at2_rag_evals.qa.report import (
    NOTES,
    Section,
    generator_section,
    item_lines,
    item_tables,
    qa_markdown,
    summary_record,
)
from at2_rag_evals.qa.request import QARequest
from at2_rag_evals.qa.run import CellResult, Plan, run_cells
from at2_rag_evals.qa.side_by_side import side_by_side
from at2_rag_evals.qa.stage_peaks import StagePeaks
from at2_rag_evals.qa.summary import GeneratorSummary, Summariser
from at2_rag_evals.qa.wording import prompt_text
from at2_rag_evals.rankers import RankerOptions
from at2_rag_evals.tables import to_rich

_BASELINES = frozenset({*DEFAULT_PRUNERS, *MORE_PRUNERS}) - {
    *("at2", "at2_adaptive", "at2_adaptive_multi_hop", "at2_adaptive_once", "at2_joint")
}
_PLAIN_WIDTH = 160


def run_qa(request: QARequest, *, as_json: bool) -> None:
    """Run the QA eval, print its report and write it into the output folder.

    Raises:
        AT2Error: If a file, a pruner, a generator or the folder can't be used.
        ImportError: If a package of the `evals` extra is missing.
    """
    with only_writer(request.output):
        claim_folder(request.output)
        items = _items(request)
        plan = _plan(request, items)
        choices = _choices(request, plan)
        if request.gold_position:
            found = _run_positions(request, plan)
        else:
            found = _run_natural(request, plan, choices)
        report = _report(request, plan, items, found)
        write_whole(request.output / "items.jsonl", "".join(found.lines).encode())
        page = qa_page(
            report,
            found.sections,
            item_tables=item_tables(items),
            browsed=found.browsed,
            ours=tuple(name for name in request.judged if name not in _BASELINES),
        )
        write_whole(request.output / "report.html", page.encode())
        write_whole(request.output / "qa.md", qa_markdown(report, items, found.sections).encode())
        write_whole(request.output / SUMMARY_FILE, (json.dumps(report, indent=2) + "\n").encode())
    _print(report, items, found, as_json=as_json)


@dataclass(frozen=True, slots=True)
class _Findings:
    """What a run found.

    Attributes:
        records: What `summary.json` holds of it, by key.
        sections: The report's sections.
        lines: The lines of `items.jsonl`.
        browsed: Items to read, by source.
    """

    records: dict[str, Any]
    sections: Sequence[Section]
    lines: Sequence[str]
    browsed: Mapping[str, Sequence[BrowsedItem]] = field(default_factory=dict)


def _choices(request: QARequest, plan: Plan) -> list[Choice]:
    """Return the budgets that were chosen on another run, if one was named."""
    if request.chosen_on is None:
        return []
    if request.gold_position:
        raise InputError(
            "--chosen-on was given with --gold-position, which reports no chosen budgets; leave "
            "one of them off"
        )
    judged = {
        generator.name: [
            cell for pruner in plan.pruners for cell, _ in plan.cells(pruner, generator)
        ]
        for generator in plan.generators
    }
    return choose_budgets(
        request.chosen_on, judged=judged, items=plan.items, settings=_settings(request, plan)
    )


def _run_natural(request: QARequest, plan: Plan, choices: Sequence[Choice]) -> _Findings:
    clusters = item_clusters(plan.items)
    with StepProgress() as progress:
        results = run_cells(plan, progress=progress)
    summariser = Summariser(
        items=plan.items,
        clusters=clusters,
        baselines=_BASELINES,
        seed=request.seed,
        resamples=RESAMPLES,
        prices=request.prices,
    )
    summaries = [summariser.summarise(own) for own in _by_generator(results).values()]
    return _Findings(
        {
            "generators": [summary_record(summary) for summary in summaries],
            "gold_position": [],
            "chosen": [choice.to_dict() for choice in choices],
        },
        [
            *(_section(request, summary, choices) for summary in summaries),
            *([side_by_side(summaries)] if len(summaries) > 1 else []),
        ],
        list(item_lines(plan.items, results, clusters)),
        browsed_items(plan.items, results),
    )


def _run_positions(request: QARequest, plan: Plan) -> _Findings:
    by_place: dict[str, dict[str, list[CellResult]]] = {}
    lines: list[str] = []
    clusters = item_clusters(plan.items)
    with StepProgress() as progress:
        for place, share in SHARES.items():
            moved = [with_gold_at(item, share) for item in plan.items]
            results = run_cells(
                replace(plan, items=moved),
                progress=lambda stage, done, total, own=place: progress(  # type: ignore[misc]
                    f"gold {own}, {stage}", done, total
                ),
            )
            by_place[place] = _by_generator(results)
            lines += item_lines(moved, results, clusters, gold_position=place)
    summaries = [
        summarise_positions(
            plan.items,
            {place: own[generator.name] for place, own in by_place.items()},
            clusters,
            seed=request.seed,
            resamples=RESAMPLES,
        )
        for generator in plan.generators
    ]
    return _Findings(
        {
            "generators": [],
            "gold_position": [summary.to_dict() for summary in summaries],
            "chosen": [],
        },
        [Section(f"Generator {own.name}", (), tuple(own.tables())) for own in summaries],
        lines,
    )


def _section(request: QARequest, summary: GeneratorSummary, choices: Sequence[Choice]) -> Section:
    """Return a generator's part of the report, with the budgets chosen for it second."""
    section = generator_section(summary)
    own = [choice for choice in choices if choice.generator == summary.name]
    if not own or request.chosen_on is None:
        return section
    overview, *others = section.tables
    table = choices_table(summary, own, request.chosen_on)
    return replace(section, tables=(overview, table, *others))


def _by_generator(results: Sequence[CellResult]) -> dict[str, list[CellResult]]:
    found: dict[str, list[CellResult]] = {}
    for result in results:
        found.setdefault(result.generator, []).append(result)
    return found


def _items(request: QARequest) -> QASet:
    examples = read_examples(request.files, labelled=False, chunkless=True)
    examples += [example for dataset in request.datasets for example in dataset.read()]
    items = answerable_items(examples, limit=request.limit)
    if request.gold_position:
        items = movable_items(items)
    if not items.items:
        more = ", and one gold chunk among five for --gold-position" * request.gold_position
        raise DataError(
            f"none of the {len(examples)} items can be judged (left out: "
            f"{json.dumps(items.left_out)}); an item needs a chunk and an answer{more}"
        )
    return items


def _plan(request: QARequest, items: QASet) -> Plan:
    options = PrunerOptions(
        RankerOptions(
            seed=request.seed,
            model=request.model,
            head_weights=request.head_weights,
            embedding_model=request.embedding_model,
            weights=request.weights,
            remember=False,
        ),
        train=request.train,
        folder=request.output / "scores",
        max_missed=request.max_missed,
    )
    generators = [make_generator(spec, request.generator) for spec in request.generators]
    names = [generator.name for generator in generators]
    if len(set(names)) < len(names):
        raise InputError(
            f"two generators have the same name ({', '.join(names)}); give their folders "
            "different names, or use two runs"
        )
    return Plan(
        items=items.items,
        generators=generators,
        pruners=make_pruners(request.judged, options),
        budgets=request.budgets,
        orders=request.orders,
        may_decline=request.may_decline,
        folder=request.output / "answers",
        peaks=StagePeaks(request.output / "peaks.jsonl"),
    )


def _report(request: QARequest, plan: Plan, items: QASet, found: _Findings) -> dict[str, Any]:
    return {
        "eval": "qa",
        "format": FORMAT,
        "command": request.command,
        "settings": _settings(request, plan),
        "git": git_state(),
        "packages": package_versions(),
        "items": {
            "judged": len(items.items),
            "left_out": {source: dict(own) for source, own in items.left_out.items()},
            "remarks": {source: dict(own) for source, own in items.remarks.items()},
        },
        **found.records,
        "run": {
            "peak_memory_mb": plan.peaks.of_process_mb(),
            "machine": {
                "system": platform.system(),
                "processor": platform.machine(),
                "cores": os.cpu_count(),
            },
        },
        "notes": [*NOTES, *_shared_weights(plan)],
    }


def _settings(request: QARequest, plan: Plan) -> dict[str, Any]:
    return {
        "files": [
            *(file_record(path) for path in request.files),
            *(dataset.record() for dataset in request.datasets),
        ],
        "seed": request.seed,
        "limit": request.limit,
        "orders": list(request.orders),
        "gold_position": request.gold_position,
        "prompt": {
            "yes or no": _prompt("Is {question}", request),
            "other questions": _prompt("{question}", request),
        },
        "budgets": [budget.label for budget in request.budgets],
        "resamples": RESAMPLES,
        "level": LEVEL,
        "interval": "percentile bootstrap over clusters, stratified by source",
        "prices": None if request.prices is None else asdict(request.prices),
        "pruners": {pruner.name: dict(pruner.settings) for pruner in plan.pruners},
        "generators": {own.name: dict(own.settings) for own in plan.generators},
    }


def _prompt(query: str, request: QARequest) -> str:
    return prompt_text(query, (Chunk("{passages}"),), may_decline=request.may_decline)


def _shared_weights(plan: Plan) -> list[str]:
    """Say which generators have the weights of which pruners' scoring model."""
    key = "model_files_sha256"
    notes = []
    for generator in plan.generators:
        own = generator.settings.get(key)
        names = [pruner.name for pruner in plan.pruners if pruner.settings.get(key) == own]
        if own is not None and names:
            notes.append(
                f"The generator {generator.name} has the weights of the model that scores for "
                f"{', '.join(names)}: what one understands, the other does, too. Judge with other "
                "generators before concluding anything about them."
            )
    return notes


def _print(
    report: dict[str, Any],
    items: QASet,
    found: _Findings,
    *,
    as_json: bool,
) -> None:
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PLAIN_WIDTH)
    tables = [table for section in found.sections for table in section.tables]
    for table in [*tables, *item_tables(items)]:
        console.print(to_rich(table))
    remarks = [remark for section in found.sections for remark in section.remarks]
    for note in [*remarks, *report["notes"]]:
        console.print(note, style="dim", markup=False, highlight=False)
