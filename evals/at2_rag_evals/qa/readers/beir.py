"""BEIR folders: `corpus.jsonl`, `queries.jsonl`, `qrels/*.tsv`, and a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from at2_rag.data.examples import Example
from at2_rag.errors import DataError
from at2_rag_evals.qa.readers.records import Record, read_json_lines, read_lines

RUN_NAMES = ("run.trec", "run.txt", "run.tsv")
FILES = ("corpus.jsonl*", "queries.jsonl*", "qrels/*.tsv", *RUN_NAMES)


def read_beir(folder: Path) -> Iterator[Example]:
    """Read the judged queries with the first twenty documents that a run found.

    N. Thakur et al., "BEIR: A Heterogeneous Benchmark for Zero-shot Evaluation of Information
    Retrieval Models", NeurIPS 2021. The run is `run.trec`, `run.txt` or `run.tsv` in the folder, as
    TREC's six columns (query, Q0, document, rank, score, tag) or as query, document and score; its
    order is that of scores. Relevance above 0 is gold. Of `qrels` the file `test.tsv` is read, or
    the only one. BEIR has no answers but in the `metadata` of some queries (`answer` or
    `answers`).
    """
    relevant = _qrels(folder)
    run = _run(folder)
    retrieved = {document for query in relevant for document in run.get(query, ())}
    documents = {
        record.text("_id"): record.chunk("text", default="")
        for record in read_json_lines(_file(folder, "corpus.jsonl"))
        if record.text("_id") in retrieved
    }
    for query in read_json_lines(_file(folder, "queries.jsonl")):
        identifier = query.text("_id")
        if identifier not in relevant or not query.text("text").strip():
            continue
        names = [name for name in run.get(identifier, ()) if name in documents][:20]
        yield Example(
            id=identifier,
            source=folder.resolve().name,
            query=query.text("text"),
            chunks=tuple(documents[name] for name in names),
            labels=tuple(name in relevant[identifier] for name in names),
            answers=_answers(query),
        )


def _answers(query: Record) -> tuple[str, ...]:
    metadata = query.values.get("metadata")
    if not isinstance(metadata, dict):
        return ()
    value = metadata.get("answers", metadata.get("answer"))
    values = value if isinstance(value, list) else [value]
    return tuple(answer for answer in values if isinstance(answer, str) and answer)


def _qrels(folder: Path) -> dict[str, set[str]]:
    """Return judged query -> relevant documents."""
    files = sorted((folder / "qrels").glob("*.tsv"))
    chosen = [path for path in files if path.name == "test.tsv"] or files
    if len(chosen) != 1:
        names = ", ".join(path.name for path in files) or "nothing"
        raise DataError(f"{folder / 'qrels'} holds {names}; expected test.tsv or one file")
    judged: dict[str, set[str]] = {}
    for location, parts in _rows(chosen[0], {3: "query, document, relevance", 4: "TREC's four"}):
        relevant = judged.setdefault(parts[0], set())
        if _number(parts[-1], location) > 0:
            relevant.add(parts[-2])
    return judged


def _run(folder: Path) -> dict[str, list[str]]:
    """Return query -> documents, best first, each once."""
    path = next((folder / name for name in RUN_NAMES if (folder / name).exists()), None)
    if path is None:
        raise DataError(
            f"{folder} holds no run; put what a retriever found into {' or '.join(RUN_NAMES)}"
        )
    scored: dict[str, dict[str, float]] = {}
    for location, parts in _rows(path, {3: "query, document, score", 6: "TREC's six"}):
        document, score = (parts[1], parts[2]) if len(parts) == 3 else (parts[2], parts[4])
        scores = scored.setdefault(parts[0], {})
        scores[document] = max(_number(score, location), scores.get(document, float("-inf")))
    return {
        query: sorted(scores, key=lambda document: -scores[document])
        for query, scores in scored.items()
    }


def _rows(path: Path, columns: Mapping[int, str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the location and columns of each line but a heading.

    Args:
        path: The file.
        columns: How many columns there may be -> which they are.
    """
    for number, line in enumerate(read_lines(path), start=1):
        parts = line.split()
        if parts and parts[0] not in ("query-id", "query_id"):
            location = f"{path}, line {number}"
            if len(parts) not in columns:
                expected = ", or ".join(columns.values())
                raise DataError(f"{location}: {len(parts)} columns; expected {expected}")
            yield location, parts


def _number(text: str, location: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise DataError(f"{location}: {text!r:.80} is no number") from error


def _file(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.exists():
            return path
    raise DataError(f"{folder} holds no {name}; pass a folder as BEIR lays it out")
