"""What `at2-rag label` does: read, score or ask, write."""

from __future__ import annotations

import gzip
import json
import math
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
    gold_from: float | None
    llm: str | None
    base_url: str | None
    key_variable: str
    reply_tokens: int
    timeout: float
    attempts: int
    parallel: int


def run_labelling(request: LabelRequest) -> None:
    """Write the examples with labels or a teacher's scores, and say how many there are."""
    if request.gold_from is not None and not math.isfinite(request.gold_from):
        raise InputError(f"--gold-from is {request.gold_from}; pass a finite score")
    records = [*chain.from_iterable(read_records(request.files, labelled=False))]
    output = Path(request.output)
    check_writable(output.parent)
    output.parent.mkdir(parents=True, exist_ok=True)
    changes: dict[str, Sequence[Sequence[float | bool | None]]] = {}
    with StepProgress() as progress:
        if request.llm is None:
            scores, summary = _score(request, records, progress)
            changes["teacher_score"] = scores
            if request.gold_from is not None:
                labels = _labels_by_score(records, scores, request.gold_from)
                changes["is_gold"] = labels
                summary += f"; {_label_counts(labels)}"
        else:
            changes["is_gold"], summary = _ask(request, request.llm, records, progress)
    items = [dict(record.item) for record in records]
    for key, values in changes.items():
        items = [_changed(*pair, key=key) for pair in zip(items, values, strict=True)]
    for item, record in zip(items, records, strict=True):
        item["source"] = record.example.source
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


def _labels_by_score(
    records: Sequence[Record], scores: Sequence[Sequence[float | None]], least: float
) -> list[list[bool | None]]:
    """Return each chunk's label, or else whether its score is `least` or more; None without."""
    return [
        [
            label if label is not None or score is None else score >= least
            for label, score in zip(of_labels, of_scores, strict=True)
        ]
        for of_labels, of_scores in zip(_labels(records), scores, strict=True)
    ]


def _labels(records: Sequence[Record]) -> list[list[bool | None]]:
    return [[chunk.get("is_gold") for chunk in record.item["chunks"]] for record in records]


def _label_counts(labels: Sequence[Sequence[bool | None]]) -> str:
    every = [label for of_example in labels for label in of_example]
    return (
        f"chunks: {every.count(True):,} gold, {every.count(False):,} not gold, "
        f"{every.count(None):,} without a label"
    )


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
    labels = _labels(records)
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
    unclear = f"{asked.unclear:,} of them with a reply that is neither yes nor no"
    summary = f"{_label_counts(labels)} ({unclear})"
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


def _changed(
    item: Mapping[str, Any], values: Sequence[float | bool | None], *, key: str
) -> dict[str, Any]:
    """Return the item with one value a chunk under a key; all else is kept."""
    chunks = [{**chunk, key: value} for chunk, value in zip(item["chunks"], values, strict=True)]
    return {**item, "chunks": chunks}
