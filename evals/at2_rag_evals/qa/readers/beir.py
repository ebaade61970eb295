"""BEIR folders: `corpus.jsonl`, `queries.jsonl`, `qrels/*.tsv`, and a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from at2_rag.data.examples import Example
from at2_rag.errors import DataError
from at2_rag.text.chunks import Chunk
from at2_rag_evals.qa.readers.records import Record, read_json_lines, read_lines_of

MOST_CHUNKS = 20
RUN_NAMES = ("run.trec", "run.txt", "run.tsv")
FILES = ("corpus.jsonl*", "queries.jsonl*", "qrels/*.tsv", *RUN_NAMES)


def read_beir(folder: Path) -> list[Example]:
    """Read the judged queries with the first twenty documents that a run found.

    N. Thakur et al., "BEIR: A Heterogeneous Benchmark for Zero-shot Evaluation of Information
    Retrieval Models", NeurIPS 2021. The run is `run.trec`, `run.txt` or `run.tsv` in the folder, as
    TREC's six columns (query, Q0, document, rank, score, tag) or as query, document and score; its
    order is that of scores. Relevance above 0 is gold. Of `qrels` the file `test.tsv` is read, or
    the only one. BEIR has no answers but in the `metadata` of some queries (`answer` or
    `answers`).

    Raises:
        DataError: If a file is missing, or isn't of this form.
    """
    relevant = _qrels(folder)
    run = _run(folder)
    wanted = {own for query in relevant for own in run.get(query, ())}
    documents = {
        own.text("_id"): Chunk(own.text("text", default=""), own.text("title", default="") or None)
        for own in read_json_lines(_file(folder, "corpus.jsonl"))
        if own.text("_id") in wanted
    }
    examples = []
    for query in read_json_lines(_file(folder, "queries.jsonl")):
        identifier = query.text("_id")
        if identifier not in relevant or not query.text("text").strip():
            continue
        found = [own for own in run.get(identifier, ()) if own in documents][:MOST_CHUNKS]
        examples.append(
            Example(
                id=identifier,
                source=folder.resolve().name,
                query=query.text("text"),
                chunks=tuple(documents[own] for own in found),
                labels=tuple(own in relevant[identifier] for own in found),
                answers=_answers(query),
            )
        )
    if not examples:
        raise DataError(f"{folder}: none of its queries is judged in its qrels")
    return examples


def _answers(query: Record) -> tuple[str, ...]:
    metadata = query.values.get("metadata")
    if not isinstance(metadata, dict):
        return ()
    value = metadata.get("answers", metadata.get("answer"))
    values = value if isinstance(value, list) else [value]
    return tuple(own for own in values if isinstance(own, str) and own)


def _qrels(folder: Path) -> dict[str, set[str]]:
    """Return judged query -> relevant documents."""
    files = sorted((folder / "qrels").glob("*.tsv"))
    chosen = [path for path in files if path.name == "test.tsv"] or files
    if len(chosen) != 1:
        names = ", ".join(path.name for path in files) or "nothing"
        raise DataError(f"{folder / 'qrels'} holds {names}; expected test.tsv or one file")
    found: dict[str, set[str]] = {}
    for place, parts in _rows(chosen[0]):
        if parts[0] in ("query-id", "query_id"):
            continue
        if len(parts) not in (3, 4):  # TREC's own have a second column of zeros
            raise DataError(f"{place}: {len(parts)} columns; expected query, document, relevance")
        relevant = found.setdefault(parts[0], set())
        if _number(parts[-1], place) > 0:
            relevant.add(parts[-2])
    return found


def _run(folder: Path) -> dict[str, list[str]]:
    """Return query -> documents, best first, each once."""
    path = next((folder / name for name in RUN_NAMES if (folder / name).exists()), None)
    if path is None:
        raise DataError(
            f"{folder} holds no run; put what a retriever found into {' or '.join(RUN_NAMES)}"
        )
    scored: dict[str, dict[str, float]] = {}
    for place, parts in _rows(path):
        if parts[0] in ("query-id", "query_id"):
            continue
        if len(parts) not in (3, 6):
            raise DataError(f"{place}: {len(parts)} columns; expected TREC's six, or three")
        document, score = (parts[1], parts[2]) if len(parts) == 3 else (parts[2], parts[4])
        own = scored.setdefault(parts[0], {})
        own[document] = max(_number(score, place), own.get(document, float("-inf")))
    return {
        query: sorted(own, key=lambda document: -own[document]) for query, own in scored.items()
    }


def _rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    for number, line in enumerate(read_lines_of(path), start=1):
        if line.strip():
            yield f"{path}, line {number}", line.split()


def _number(text: str, place: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise DataError(f"{place}: {text!r:.80} is no number") from error


def _file(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.exists():
            return path
    raise DataError(f"{folder} holds no {name}; pass a folder as BEIR lays it out")
