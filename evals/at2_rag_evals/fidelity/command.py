"""What `at2-rag eval fidelity` does: answer, remove, score, judge, report."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from at2_rag.data.examples import read_examples
from at2_rag.errors import DataError, InputError
from at2_rag.progress import StepProgress
from at2_rag_evals.bootstrap import RESAMPLES
from at2_rag_evals.clusters import clusters_by_id
from at2_rag_evals.extras import import_extra
from at2_rag_evals.fidelity.answering import answering_model, answering_settings
from at2_rag_evals.fidelity.judging import judge
from at2_rag_evals.fidelity.masks import KEEP_RATES, MaskPlan
from at2_rag_evals.fidelity.removal import RemovalReader
from at2_rag_evals.fidelity.report import NOTES, fidelity_tables, item_records, shares_note
from at2_rag_evals.fidelity.request import FidelityRequest
from at2_rag_evals.fidelity.sources import sourced_set
from at2_rag_evals.fidelity.summary import summarise_fidelity
from at2_rag_evals.fidelity.systems.registry import SystemOptions, make_system
from at2_rag_evals.items import rankable_items
from at2_rag_evals.rankers import RankerOptions
from at2_rag_evals.report import Report, run_record


def run_fidelity(request: FidelityRequest, *, as_json: bool) -> None:
    """Run the fidelity eval, print its report and write it to the output folder, if there is one.

    Raises:
        AT2Error: If a file, a model or the head weights can't be used.
        ImportError: If a package of the `evals` extra is missing.
    """
    for module in ("scipy", "sklearn"):
        import_extra(module)
    notes: list[str] = []
    for reason in dict.fromkeys(request.left_out.values()):
        names = [name for name, why in request.left_out.items() if why == reason]
        notes.append(f"{', '.join(names)} left out: {reason}")
        click.echo(notes[-1], err=True)
    if not request.judged:
        raise InputError(
            "no system is left to judge; pass --train FILE or another --system"
            if request.unit == "chunk"
            else "no system is left to judge; pass another --system or --unit chunk"
        )
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
        path=request.store,
    )
    options = SystemOptions(
        reader, plan, RankerOptions.of(request), request.answer_weights, request.train
    )
    systems = [make_system(name, options) for name in request.judged]
    with StepProgress() as progress:
        judged = judge(sourced, systems, reader, plan=plan, path=request.store, progress=progress)
    if not judged.items:
        raise DataError(
            f"none of the {len(examples)} items can be judged (left out: "
            f"{json.dumps(judged.left_out)}); pass items with answers that fit the model's window"
        )
    summary = summarise_fidelity(
        judged,
        clusters_by_id(items.items),
        [system.name for system in systems],
        seed=request.seed,
        resamples=RESAMPLES,
    )
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
        eval="fidelity",
        record={**run_record("fidelity", request, settings), **asdict(summary)},
        sections={"": list(fidelity_tables(summary))},
        notes=[*NOTES, shares_note(systems), *notes],
        item_records=list(item_records(judged)),
        details=f"; {request.answers} answers, read by {reader.settings['model']}, "
        f"{request.masks} held masks a keep rate; sources are {request.unit}s",
    )
    report.publish(request.output, as_json=as_json)
