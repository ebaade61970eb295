"""What `at2-rag label` does: read, score or ask, write."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from at2_rag.data.examples import Record, read_records
from at2_rag.errors import InputError, StorageError
from at2_rag.files import check_writable, write_whole
from at2_rag.progress import StepProgress
from at2_rag.training.labelling.score_file import read_scores

REPLIES_ENDING = ".replies.jsonl"
"""Of the file beside the output that has what an LLM replied."""


@dataclass(frozen=True, slots=True)
class LabelRequest:
    """The arguments of the command."""

    files: tuple[str, ...]
    output: str
    embedding: str | None
    scores: str | None
    llm: str | None
    base_url: str | None
    key_variable: str
    reply_tokens: int
    timeout: float
    attempts: int
    parallel: int


def run_labelling(request: LabelRequest) -> None:
    """Write the examples with labels or a teacher's scores, and say how many there are."""
    records = [*chain.from_iterable(read_records(request.files, labelled=False))]
    output = Path(request.output)
    check_writable(output.parent)
    output.parent.mkdir(parents=True, exist_ok=True)
    changes: Sequence[Sequence[float | bool | None]]
    with StepProgress() as progress:
        if request.llm is None:
            key = "teacher_score"
            changes, summary = _score(request, records, progress)
        else:
            key = "is_gold"
            changes, summary = _ask(request, request.llm, records, progress)
    items = [_changed(*pair, key=key) for pair in zip(records, changes, strict=True)]
    data = "".join(json.dumps(item) + "\n" for item in items).encode()
    try:
        packed = gzip.compress(data, mtime=0) if output.suffix == ".gz" else data
        write_whole(output, packed)
    except OSError as error:
        raise StorageError(
            f"{output} can't be written ({error.strerror or error}); make room or choose another "
            "folder"
        ) from error
    progress.console.out(f"wrote {output}: {len(items):,} examples, {summary}", highlight=False)


def _score(
    request: LabelRequest, records: Sequence[Record], progress: StepProgress
) -> tuple[Sequence[Sequence[float | None]], str]:
    """Return each chunk's score, and a summary."""
    examples = [record.example for record in records]
    scores: Sequence[Sequence[float | None]]
    if request.scores is not None:
        scores = read_scores(Path(request.scores), examples)
    else:
        from at2_rag.training.labelling.embedding import EmbeddingTeacher

        progress("loading the embedding", 0, 1)
        folder = None if request.embedding is None else Path(request.embedding)
        teacher = EmbeddingTeacher(folder)
        progress("loading the embedding", 1, 1)
        scores = teacher.scores(examples, progress=partial(progress, "embedding"))
    every = [score for of_example in scores for score in of_example]
    scored = sum(score is not None for score in every)
    return scores, f"{scored:,} of {len(every):,} chunks with a score"


def _ask(
    request: LabelRequest, llm: str, records: Sequence[Record], progress: StepProgress
) -> tuple[Sequence[Sequence[bool | None]], str]:
    """Return each chunk's label, those that are known already among them, and a summary."""
    from at2_rag.training.labelling.chat_model import ChatModel
    from at2_rag.training.labelling.verdicts import ReplyLog, ask, prompt_about

    model = ChatModel(
        llm,
        api_key=_key(request),
        base_url=request.base_url,
        reply_tokens=request.reply_tokens,
        timeout=request.timeout,
        attempts=request.attempts,
        parallel=request.parallel,
    )
    labels = [[chunk.get("is_gold") for chunk in record.item["chunks"]] for record in records]
    unknown = [
        (number, index)
        for number, of_example in enumerate(labels)
        for index, label in enumerate(of_example)
        if label is None
    ]
    examples = [record.example for record in records]
    prompts = [prompt_about(examples[n].query, examples[n].chunks[i]) for n, i in unknown]
    log = ReplyLog(Path(f"{request.output}{REPLIES_ENDING}"), model)
    asked = ask(model, prompts, log, progress=partial(progress, "asking"))
    for (number, index), verdict in zip(unknown, asked.verdicts, strict=True):
        labels[number][index] = verdict
    every = [label for of_example in labels for label in of_example]
    summary = (
        f"chunks: {every.count(True):,} gold, {every.count(False):,} not gold, "
        f"{every.count(None):,} without a label ({asked.unclear:,} of them with a reply that is "
        "neither yes nor no)"
    )
    if asked.failures:
        summary += f"; {len(asked.failures):,} prompts without a reply: {asked.failures[0]:.200}"
    return labels, summary


def _key(request: LabelRequest) -> str | None:
    key = os.environ.get(request.key_variable)
    if not key and request.base_url is None and not os.environ.get("OPENAI_BASE_URL"):
        raise InputError(
            f"the environment variable {request.key_variable} holds no key; set it, name another "
            "with --key-variable, or pass the --base-url of a server that needs none"
        )
    return key


def _changed(record: Record, values: Sequence[float | bool | None], *, key: str) -> dict[str, Any]:
    """Return the item with one value a chunk under a key; all else is kept."""
    item: Mapping[str, Any] = record.item
    chunks = [{**chunk, key: value} for chunk, value in zip(item["chunks"], values, strict=True)]
    return {**item, "source": record.example.source, "chunks": chunks}
