"""What `at2-rag eval qa` does: read, prune, answer, judge, report."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import click

from at2_rag.data.clusters import item_clusters
from at2_rag.data.examples import read_examples
from at2_rag.errors import InputError
from at2_rag.files import write_whole
from at2_rag.progress import StepProgress
from at2_rag.report.verdict import Verdict
from at2_rag.text.chunks import Chunk
from at2_rag_evals.items import none_usable
from at2_rag_evals.named_systems import with_named
from at2_rag_evals.names import shown
from at2_rag_evals.provenance import file_record
from at2_rag_evals.qa.chosen import Choice, choose_budgets
from at2_rag_evals.qa.generators.registry import make_generators
from at2_rag_evals.qa.gold_position import (
    SHARES,
    movable_items,
    summarise_positions,
    with_gold_at,
)
from at2_rag_evals.qa.items import QASet, answerable_items
from at2_rag_evals.qa.page import browsed_items, qa_page
from at2_rag_evals.qa.pruners.registry import make_pruners
from at2_rag_evals.qa.report import NOTES, item_lines, qa_markdown
from at2_rag_evals.qa.request import DEFAULT_PRUNERS, MORE_PRUNERS, QARequest
from at2_rag_evals.qa.results_folder import FORMAT, ITEMS_FILE, SUMMARY_FILE, read_summary
from at2_rag_evals.qa.run import CellResult, Plan, run_cells
from at2_rag_evals.qa.stage_peaks import StagePeaks
from at2_rag_evals.qa.summary import summarise
from at2_rag_evals.qa.tables import Section, generator_section, item_tables, side_by_side
from at2_rag_evals.qa.verdict import position_verdict, qa_verdict
from at2_rag_evals.qa.wording import prompt_text
from at2_rag_evals.report import run_record
from at2_rag_evals.tables import Table, print_report


def _baselines(request: QARequest) -> frozenset[str]:
    """Return the names of the pruners that aren't ours."""
    known = [name for name in DEFAULT_PRUNERS + MORE_PRUNERS if name.partition("_")[0] != "at2"]
    return frozenset(with_named(known, embeddings=request.embeddings))


@dataclass(frozen=True, slots=True, kw_only=True)
class QAReport:
    """The results of a run.

    Attributes:
        summary: What `summary.json` holds.
        sections: The tables of each generator.
        item_tables: How many items were judged, left out or odd.
        verdicts: What the figures say, one for each generator.
    """

    summary: Mapping[str, Any]
    sections: Sequence[Section]
    item_tables: Sequence[Table]
    verdicts: Sequence[Verdict]


def run_qa(request: QARequest, *, as_json: bool) -> None:
    """Run the QA eval as `qa_report` does, and print its report."""
    report = qa_report(request)
    if as_json:
        click.echo(_json(report.summary), nl=False)
        return
    remarks = [remark for section in report.sections for remark in section.remarks]
    print_report(
        [*(table for section in report.sections for table in section.tables), *report.item_tables],
        [*remarks, *report.summary["notes"]],
        [(verdict.question, verdict.statement) for verdict in report.verdicts],
    )


def qa_report(request: QARequest) -> QAReport:
    """Run the QA eval and write its report into the output folder.

    Raises:
        AT2Error: If a file, a pruner, a generator or the folder can't be used.
        ImportError: If a package of the `evals` extra is missing.
    """
    request.output.mkdir(parents=True, exist_ok=True)
    if (request.output / SUMMARY_FILE).exists():
        read_summary(request.output)  # refuses results of another version
    items = _items(request)
    plan = Plan(
        items=items.items,
        generators=make_generators(request),
        pruners=make_pruners(request),
        budgets=request.budgets,
        orders=tuple(dict.fromkeys(request.orders)),
        may_decline=request.may_decline,
        store=request.store,
        peaks=StagePeaks(request.store),
    )
    settings = _settings(request, plan)
    choices = _choices(request, plan, settings)
    results = (_run_positions if request.gold_position else _run_natural)(request, plan, choices)
    report = {
        "format": FORMAT,
        **run_record("qa", request, settings),
        "items": {
            "judged": len(items.items),
            "left_out": items.left_out,
            "remarks": items.remarks,
        },
        "generators": results.generators,
        "gold_position": results.gold_position,
        "verdicts": [verdict.to_dict() for verdict in results.verdicts],
        "chosen": [choice.to_dict() for choice in choices],
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
    tables = item_tables(items)
    page = qa_page(
        report,
        results.sections,
        verdicts=results.verdicts,
        item_tables=tables,
        browsed=results.browsed,
        ours=tuple(name for name in request.judged if name not in _baselines(request)),
    )
    for name, text in (
        (ITEMS_FILE, "".join(results.lines)),
        ("report.html", page),
        ("qa.md", qa_markdown(report, results.sections, tables, results.verdicts)),
        (SUMMARY_FILE, _json(report)),  # last: it marks a finished run
    ):
        write_whole(request.output / name, text.encode())
    return QAReport(
        summary=report, sections=results.sections, item_tables=tables, verdicts=results.verdicts
    )


def _json(summary: Mapping[str, Any]) -> str:
    return json.dumps(summary, indent=2) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Results:
    """What the files show of a run."""

    sections: Sequence[Section]
    verdicts: Sequence[Verdict]
    lines: Sequence[str]  # of items.jsonl
    generators: Sequence[Mapping[str, Any]] = ()  # figures, as in summary.json
    gold_position: Sequence[Mapping[str, Any]] = ()
    browsed: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)


def _items(request: QARequest) -> QASet:
    examples = read_examples(request.sources, labelled=False, chunkless=True)
    examples += [example for dataset in request.datasets for example in dataset.read()]
    items = answerable_items(examples, limit=request.limit)
    if request.gold_position:
        items = movable_items(items)
    if not items.items:
        more = ", and one gold chunk among five for --gold-position" * request.gold_position
        raise none_usable(
            len(examples), items.left_out, f"an item needs a chunk and an answer{more}"
        )
    return items


def _choices(request: QARequest, plan: Plan, settings: Mapping[str, Any]) -> list[Choice]:
    """Return the budgets that were chosen on another run, if one was named."""
    if request.chosen_on is None:
        return []
    if request.gold_position:
        raise InputError(
            "--chosen-on was passed with --gold-position, which reports no chosen budgets; leave "
            "one of them off"
        )
    cells = [cell for pruner in plan.pruners for cell in plan.cells(pruner)]
    return choose_budgets(
        request.chosen_on,
        judged={generator.name: cells for generator in plan.generators},
        items=plan.items,
        settings=settings,
    )


def _run_natural(request: QARequest, plan: Plan, choices: Sequence[Choice]) -> _Results:
    """Run the items as they are."""
    with StepProgress() as progress:
        results = run_cells(plan, progress=progress)
    clusters = item_clusters(plan.items)
    baselines = _baselines(request)
    summaries = [
        summarise(
            cells,
            items=plan.items,
            clusters=clusters,
            baselines=baselines,
            seed=request.seed,
            prices=request.prices,
        )
        for cells in _by_generator(results).values()
    ]
    sections = [generator_section(summary, choices, request.chosen_on) for summary in summaries]
    if len(summaries) > 1:
        sections.append(side_by_side(summaries))
    return _Results(
        sections=sections,
        verdicts=[
            qa_verdict(summary, baselines=baselines, choices=choices, chosen_on=request.chosen_on)
            for summary in summaries
        ],
        lines=list(item_lines(plan.items, results, clusters)),
        generators=[summary.to_dict() for summary in summaries],
        browsed=browsed_items(plan.items, results),
    )


def _run_positions(request: QARequest, plan: Plan, choices: Sequence[Choice]) -> _Results:
    """Run the items five times, with their gold chunk at another position each time."""
    clusters = item_clusters(plan.items)
    by_position: dict[str, dict[str, list[CellResult]]] = {}
    lines: list[str] = []
    with StepProgress() as progress:
        for position, share in SHARES.items():
            moved = [with_gold_at(item, share) for item in plan.items]
            results = run_cells(
                replace(plan, items=moved),
                progress=lambda stage, done, total, position=position: progress(  # type: ignore[misc]
                    f"gold {position}, {stage}", done, total
                ),
            )
            by_position[position] = _by_generator(results)
            lines += item_lines(moved, results, clusters, gold_position=position)
    summaries = [
        summarise_positions(
            plan.items,
            {position: results[generator.name] for position, results in by_position.items()},
            clusters,
            seed=request.seed,
        )
        for generator in plan.generators
    ]
    return _Results(
        sections=[
            Section(f"Generator {summary.name}", (), list(summary.tables()))
            for summary in summaries
        ],
        verdicts=list(map(position_verdict, summaries)),
        lines=lines,
        gold_position=[asdict(summary) for summary in summaries],
    )


def _by_generator(results: Sequence[CellResult]) -> dict[str, list[CellResult]]:
    cells: dict[str, list[CellResult]] = {}
    for result in results:
        cells.setdefault(result.generator, []).append(result)
    return cells


def _settings(request: QARequest, plan: Plan) -> dict[str, Any]:
    prices = request.prices
    prompts = {
        kind: prompt_text(query, (Chunk("{passages}"),), may_decline=request.may_decline)
        for kind, query in (("yes or no", "Is {question}"), ("other questions", "{question}"))
    }
    return {
        "files": [
            *(file_record(path) for path in request.sources),
            *(dataset.record() for dataset in request.datasets),
        ],
        "orders": list(plan.orders),
        "gold_position": request.gold_position,
        "prompt": prompts,
        "budgets": [budget.label for budget in request.budgets],
        "prices": prices and {"prompt": prices[0], "answer": prices[1]},
        "pruners": {pruner.name: dict(pruner.settings) for pruner in plan.pruners},
        "generators": {generator.name: dict(generator.settings) for generator in plan.generators},
    }


def _shared_weights(plan: Plan) -> list[str]:
    """Return a note for each generator with the weights of some pruners' scoring model."""
    key = "model_files_sha256"
    notes = []
    for generator in plan.generators:
        sha256 = generator.settings.get(key)
        names = [pruner.name for pruner in plan.pruners if pruner.settings.get(key) == sha256]
        if sha256 is not None and names:
            notes.append(
                f"The generator {generator.name} has the weights of the model that scores for "
                f"{', '.join(map(shown, names))}: what one understands, the other does, too. Judge "
                "with other generators before concluding anything about them."
            )
    return notes
