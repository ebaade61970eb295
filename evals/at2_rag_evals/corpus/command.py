"""What `at2-rag eval corpus` does: chunk, retrieve, label, then the other evals on the items."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from at2_rag.data.examples import Example
from at2_rag.errors import DataError
from at2_rag.files import write_whole
from at2_rag.progress import StepProgress
from at2_rag.readout.head_weights import UNIFORM
from at2_rag.readout.shipped import load_head_weights, named_or_folder
from at2_rag_evals.corpus.documents import Corpus, read_corpus
from at2_rag_evals.corpus.gold import GoldFinder
from at2_rag_evals.corpus.items import CorpusItem, corpus_item, example_record, item_record
from at2_rag_evals.corpus.questions import read_questions
from at2_rag_evals.corpus.report import NOTES, retrieval_tables, retrieval_verdict
from at2_rag_evals.corpus.request import CorpusRequest
from at2_rag_evals.corpus.retrieval import make_retrievers, retrieve, uses_minilm
from at2_rag_evals.keeping.command import keeping_report
from at2_rag_evals.keeping.request import KeepingRequest
from at2_rag_evals.qa.command import qa_report
from at2_rag_evals.qa.request import QARequest
from at2_rag_evals.ranking.command import ranking_report
from at2_rag_evals.ranking.request import DEFAULT_SYSTEMS, RankingRequest
from at2_rag_evals.report import Report, publish, run_record
from at2_rag_evals.store import hash_of
from at2_rag_evals.tables import Table

RETRIEVED, NOT_RETRIEVED = "retrieved.jsonl", "not_retrieved.jsonl"
"""The files of built items: those that the evals judge, and those without gold to be kept."""

_PRUNERS = ("none", "closed_book", "oracle", "first_k", "bm25", "minilm", "at2")


def run_corpus(request: CorpusRequest, *, as_json: bool) -> None:
    """Build the items, run the evals on them, print the report and write it.

    Raises:
        AT2Error: If a file, the documents, a model or the folder can't be used, or no question can
            be judged.
        ImportError: If a package of the `evals` extra is missing.
    """
    corpus = read_corpus(request.documents)
    items = _items(request, corpus)
    judged = [item.example for item in items if item.outcome in ("retrieved", "unanswerable")]
    missed = [item.example for item in items if item.outcome == "not retrieved"]
    request.output.mkdir(parents=True, exist_ok=True)
    path = request.output / RETRIEVED
    _write_examples(path, judged)
    _write_examples(request.output / NOT_RETRIEVED, missed)
    verdict = retrieval_verdict(items, request.retrieve)
    if not any(any(example.labels) for example in judged):
        raise DataError(
            f"no question can be judged, since no gold chunk was retrieved for any of {len(items)} "
            f"({verdict.statement}); check the quotes, answers and ids of the questions"
        )
    shared = _shared(request, path)
    ranking = ranking_report(
        RankingRequest(
            **shared,
            output=request.output / "ranking",
            weights=request.weights,
            systems=_installed(request, DEFAULT_SYSTEMS),
        )
    )
    ranking.write(request.output / "ranking")
    verdicts = list(ranking.verdicts)
    sections: dict[str, list[Table]] = {
        "retrieval": list(retrieval_tables(items, seed=request.seed)),
        "ranking": ranking.tables,
    }
    notes = list(NOTES)
    unlimited = _is_calibrated(request.head_weights)
    if unlimited:
        keeping = keeping_report(
            KeepingRequest(**shared, systems=_installed(request, ("bm25", "minilm")))
        )
        keeping.write(request.output / "keeping")
        verdicts += keeping.verdicts
        sections["keeping"] = keeping.tables
    else:
        notes.append(
            "What pruning keeps without a limit isn't judged, since the head weights aren't "
            "calibrated; see at2-rag calibrate."
        )
    if request.generators:
        answers = qa_report(
            QARequest(
                **shared,
                output=request.output / "qa",
                weights=request.weights,
                pruners=_installed(request, (*_PRUNERS, *["at2_adaptive"] * unlimited)),
                generators=request.generators,
                base_url=request.base_url,
                token_counter=request.token_counter,
            )
        )
        verdicts = [*answers.verdicts, *verdicts]
        sections |= {f"QA, {each.title}": list(each.tables) for each in answers.sections}
    if corpus.skipped:
        skipped = ", ".join(f"{number} {ending}" for ending, number in corpus.skipped.items())
        notes.append(f"Files that were not read: {skipped}.")
    report = Report(
        record=run_record("corpus", request, _settings(request, corpus)),
        sections=sections,
        notes=notes,
        item_records=[item_record(item, [chunk.id for chunk in corpus.chunks]) for item in items],
        verdicts=[*verdicts, verdict],
    )
    publish(report, folder=request.output, as_json=as_json)


def _items(request: CorpusRequest, corpus: Corpus) -> list[CorpusItem]:
    questions = read_questions(request.files)
    with StepProgress() as progress:
        retrievers = make_retrievers(
            request,
            corpus.chunks,
            progress=lambda done, total: progress("embedding the chunks", done, total),
        )
        finder = GoldFinder(corpus)
        items = []
        for done, question in enumerate(questions, start=1):
            retrieved = retrieve(question.text, retrievers, request.retrieve)
            items.append(corpus_item(question, retrieved, corpus, finder))
            progress("retrieving", done, len(questions))
    return items


def _shared(request: CorpusRequest, items: Path) -> dict[str, Any]:
    """Return the options that the other evals take as they are."""
    names = ("limit", "seed", "model", "head_weights", "embeddings", "embedding_model")
    return {"files": (items,)} | {name: getattr(request, name) for name in names}


def _installed(request: CorpusRequest, systems: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in systems if name != "minilm" or uses_minilm(request))


def _is_calibrated(head_weights: str | None) -> bool:
    """Return whether at2 can choose without a limit; the weights shipped for a model can."""
    if head_weights is None:
        return True
    if head_weights == UNIFORM:
        return False
    return load_head_weights(named_or_folder(head_weights)).calibration is not None


def _write_examples(path: Path, examples: Iterable[Example]) -> None:
    lines: Iterator[str] = (json.dumps(example_record(each)) + "\n" for each in examples)
    write_whole(path, "".join(lines).encode())


def _settings(request: CorpusRequest, corpus: Corpus) -> dict[str, object]:
    chunks = [[chunk.id, chunk.title, chunk.text] for chunk in corpus.chunks]
    return {
        "retrieve": request.retrieve,
        "documents": {
            "name": corpus.name,
            "documents": len(set(corpus.documents)),
            "chunks": len(chunks),
            "sha256": hash_of(chunks),
            "skipped": dict(corpus.skipped),
        },
    }
