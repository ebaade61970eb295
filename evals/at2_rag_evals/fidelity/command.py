"""What `at2-rag eval fidelity` does: answer, remove, score, judge, report."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial

import click

from at2_rag.data.clusters import clusters_by_id
from at2_rag.data.examples import read_examples
from at2_rag.errors import InputError
from at2_rag.progress import StepProgress
from at2_rag_evals.extras import import_extra
from at2_rag_evals.fidelity.judging import judge
from at2_rag_evals.fidelity.masks import KEEP_RATES, MaskPlan
from at2_rag_evals.fidelity.removal import RemovalReader, load_answer_model
from at2_rag_evals.fidelity.report import (
    NOTES,
    fidelity_tables,
    item_records,
    shares_note,
    verdict,
)
from at2_rag_evals.fidelity.request import FidelityRequest
from at2_rag_evals.fidelity.sources import sourced_set
from at2_rag_evals.fidelity.summary import summarise_fidelity
from at2_rag_evals.fidelity.systems.registry import make_systems
from at2_rag_evals.items import RANKABLE, none_usable, rankable_items
from at2_rag_evals.model_record import model_record
from at2_rag_evals.report import Report, publish, run_record


def run_fidelity(request: FidelityRequest, *, as_json: bool) -> None:
    """Run the fidelity eval, print its report and write it to the output folder, if any."""
    for module in ("scipy", "sklearn"):
        import_extra(module)
    by_reason: dict[str, list[str]] = {}
    for name, reason in request.left_out.items():
        by_reason.setdefault(reason, []).append(name)
    notes = [f"{', '.join(names)} left out: {reason}" for reason, names in by_reason.items()]
    for note in notes:
        click.echo(note, err=True)
    if not request.judged:
        fix = "another --system or --unit chunk"
        if request.unit == "chunk":
            fix = "--train FILE or another --system"
        raise InputError(f"no system is left to judge; pass {fix}")
    examples = read_examples(request.files)
    items = rankable_items(examples, limit=request.limit)
    if not items.items:
        raise none_usable(len(examples), items.left_out, RANKABLE)
    sourced = sourced_set(items, request.unit, max_sentences=request.max_sentences)
    plan = MaskPlan(held=request.masks, seed=request.seed)
    reader = RemovalReader(
        partial(load_answer_model, request.model),
        settings=model_record(request.model),
        answers=request.answers,
        answer_tokens=request.answer_tokens,
        path=request.store,
    )
    systems = make_systems(request, reader, plan)
    with StepProgress() as progress:
        judged = judge(sourced, systems, reader, plan=plan, path=request.store, progress=progress)
    if not judged.items:
        needed = "an item needs an answer that fits the model's window"
        raise none_usable(len(examples), judged.left_out, needed)
    names = [system.name for system in systems]
    clusters = clusters_by_id(items.items)
    summary = summarise_fidelity(judged, clusters, names, seed=request.seed)
    settings = {
        "unit": request.unit,
        "max_sentences": request.max_sentences if request.unit == "sentence" else None,
        "masks": request.masks,
        "keep_rates": list(KEEP_RATES),
        "answers": request.answers,
        "answer_tokens": request.answer_tokens,
        "reading": dict(reader.settings),
        "shares": {
            system.name: "softmax" if system.shares_are_softmax else "as they are"
            for system in systems
        },
        "systems": {system.name: dict(system.settings) for system in systems},
    }
    report = Report(
        record=run_record("fidelity", request, settings) | asdict(summary),
        sections={"": list(fidelity_tables(summary))},
        notes=[*NOTES, shares_note(systems), *notes],
        item_records=list(item_records(judged)),
        verdicts=[verdict(summary)],
        details=f"; {request.answers} answers, read by {reader.settings['model']}, "
        f"{request.masks} held masks a keep rate; sources are {request.unit}s",
    )
    publish(report, folder=request.output, as_json=as_json)
