"""Questions with labelled chunks, as training and evals read them.

A file is JSON Lines (`.jsonl`, or gzipped `.jsonl.gz`), one example a line:

    {"id": "q1", "source": "my-set", "question": "Who wrote Emma?", "answers": ["Jane Austen"],
     "chunks": [{"title": "Emma", "text": "Emma is a novel by ...", "is_gold": true}, ...]}

`answers` and `source` may be missing (no answers; the file's name without its ending), and so may
`is_gold` where labels aren't needed. A chunk may have `gold_sents`, a list of its sentences that
are evidence. `long_form` and `unanswerable`, true or false, say what kind of answer a question has;
they may be in `meta` too. All other keys are ignored, since the rest of `meta` may give answers
away. Lone surrogates (halves of characters) are kept in texts, but not allowed in `id` and
`source`.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from at2_rag.errors import ChunkTypeError, DataError
from at2_rag.text.chunks import Chunk, as_chunk, replace_surrogates

_MOST_NAMED = 5
"""Bad lines that an error describes; it counts all of them."""


@dataclass(frozen=True, slots=True)
class Example:
    """One question with its retrieved chunks, and which of them are evidence.

    Attributes:
        id: The example's identifier within its source.
        source: The data set it is from.
        query: The question.
        chunks: The retrieved chunks, in the file's order.
        labels: For each chunk, whether it is gold: evidence for the answer.
        answers: Reference answers, any of which is right; may be empty.
        gold_sentences: For each chunk the parts of its text that are evidence; empty if the file
            names none at all.
        long_form: Whether answers are written in free words rather than quoted from a text.
        unanswerable: Whether no chunk answers the question, so that saying so is right.
    """

    id: str
    source: str
    query: str
    chunks: tuple[Chunk, ...]
    labels: tuple[bool, ...]
    answers: tuple[str, ...] = ()
    gold_sentences: tuple[tuple[str, ...], ...] = ()
    long_form: bool = False
    unanswerable: bool = False

    @property
    def gold(self) -> tuple[Chunk, ...]:
        """The gold chunks, in the file's order."""
        return tuple(chunk for chunk, label in zip(self.chunks, self.labels, strict=True) if label)

    def gold_spans(self, index: int) -> list[tuple[int, int]]:
        """Return the half-open character ranges of a chunk's gold sentences; all occurrences."""
        text = self.chunks[index].text
        spans = []
        for sentence in self.gold_sentences[index]:
            stripped = sentence.strip()
            start = text.find(stripped) if stripped else -1
            while start >= 0:
                spans.append((start, start + len(stripped)))
                start = text.find(stripped, start + 1)
        return spans

    @property
    def reference_answer(self) -> str:
        """The first reference answer that isn't blank, lone surrogates replaced; "" for none."""
        texts = (replace_surrogates(text).strip() for text in self.answers)
        return next(filter(None, texts), "")


def read_examples(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    labelled: bool = True,
    chunkless: bool = False,
) -> list[Example]:
    """Read the examples of one or more files, in order.

    Args:
        paths: A `.jsonl` or `.jsonl.gz` file, or several.
        labelled: Whether every chunk must have `is_gold`; if not, a chunk without it isn't gold.
        chunkless: Whether an example may have no chunks.

    Raises:
        DataError: If a file can't be read or has no example, or lines can't be used; the message
            counts the file's bad lines and describes the first few.
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    files = read_files(paths, labelled=labelled, chunkless=chunkless)
    return [example for examples in files for example in examples]


def read_files(
    paths: Iterable[str | os.PathLike[str]], *, labelled: bool = True, chunkless: bool = False
) -> list[list[Example]]:
    """Read the examples of each file, as `read_examples` does."""
    return [_read_file(path, labelled=labelled, chunkless=chunkless) for path in map(Path, paths)]


def draw_per_source(examples: Sequence[Example], limit: int, *, seed: int) -> list[Example]:
    """Return at most `limit` examples of each source, drawn at random, in their order."""
    by_source: dict[str, list[int]] = {}
    for index, example in enumerate(examples):
        by_source.setdefault(example.source, []).append(index)
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(indices)[:limit] for indices in by_source.values()]
    return [examples[index] for index in sorted(np.concatenate(drawn).tolist())]


def gold_groups(examples: Sequence[Example]) -> list[int]:
    """Return each example's group number; examples that share a gold passage share a group.

    If A and B share a passage, and B and C another, all three are one group. Passages are compared
    by text, ignoring case and white space; blank ones don't count. An example without gold is a
    group by itself.
    """
    return linked_groups([passage_keys(example.gold) for example in examples])


def passage_keys(chunks: Iterable[Chunk]) -> frozenset[str]:
    """Return the chunks' texts with case and white space normalised, blank ones left out."""
    return frozenset(" ".join(chunk.text.casefold().split()) for chunk in chunks) - {""}


def linked_groups(keys: Sequence[Iterable[Hashable]]) -> list[int]:
    """Number the connected groups of things that share keys.

    Args:
        keys: The keys of each thing; two things with a common key are in one group.

    Returns:
        For each thing its group's number; groups are numbered from 0 by first appearance.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    # A graph of things and keys, with an edge from each thing to each of its keys.
    nodes: dict[Hashable, int] = {}
    edges = [
        (thing, len(keys) + nodes.setdefault(key, len(nodes)))
        for thing, of_thing in enumerate(keys)
        for key in of_thing
    ]
    rows, columns = np.array(edges, dtype=int).reshape(-1, 2).T
    size = len(keys) + len(nodes)
    graph = coo_array((np.ones(len(edges)), (rows, columns)), shape=(size, size))
    labels = connected_components(graph, directed=False)[1][: len(keys)].tolist()
    numbers: dict[int, int] = {}
    return [numbers.setdefault(label, len(numbers)) for label in labels]


def _read_file(path: Path, *, labelled: bool, chunkless: bool) -> list[Example]:
    source = replace_surrogates(path.name).removesuffix(".gz").removesuffix(".jsonl")
    number = 0
    examples: list[Example] = []
    reasons: list[str] = []
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                where = f"line {number}"
                try:
                    example = _parse_line(line, source=source, where=where, labelled=labelled)
                    if not (example.chunks or chunkless):
                        raise DataError(
                            f"{where}: 'chunks' is empty; an example needs at least one chunk"
                        )
                    examples.append(example)
                except DataError as error:
                    reasons.append(str(error))
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path}: can't be read after line {number}: {reason}") from error
    if len(reasons) == 1:
        raise DataError(f"{path}, {reasons[0]}")
    if reasons:
        more = len(reasons) - _MOST_NAMED
        named = reasons[:_MOST_NAMED] + ([f"and {more} more"] if more > 0 else [])
        raise DataError(
            f"{len(reasons)} of {len(reasons) + len(examples)} lines of {path} can't be used: "
            f"{'; '.join(named)}; fix or remove them"
        )
    if not examples:
        raise DataError(f"{path}: holds no example; expected one JSON object a line")
    return examples


def _parse_line(line: bytes, *, source: str, where: str, labelled: bool) -> Example:
    try:
        item = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 ({error.reason} at byte {error.start})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error})") from error
    if not isinstance(item, dict):
        raise DataError(f"{where}: a JSON {type(item).__name__}; expected an object")
    query = _string(item, "question", where)
    if not query.strip():
        raise DataError(f"{where}: 'question' is blank")
    chunks, labels, sentences = _parse_chunks(item, where, labelled=labelled)
    return Example(
        id=_name(item, "id", where),
        source=_name(item, "source", where) if item.get("source") is not None else source,
        query=query,
        chunks=chunks,
        labels=labels,
        answers=_strings(item, "answers", where),
        gold_sentences=sentences if any(sentences) else (),
        long_form=_flag(item, "long_form", where),
        unanswerable=_flag(item, "unanswerable", where),
    )


def _parse_chunks(
    item: dict[str, Any], where: str, *, labelled: bool
) -> tuple[tuple[Chunk, ...], tuple[bool, ...], tuple[tuple[str, ...], ...]]:
    values = _required(item, "chunks", where)
    if not isinstance(values, list):
        raise DataError(f"{where}: 'chunks' is a {type(values).__name__}; expected a list")
    chunks, labels, sentences = [], [], []
    for index, value in enumerate(values):
        if not isinstance(value, dict):
            raise DataError(
                f"{where}: chunk {index} is a {type(value).__name__}; expected an object with "
                "'text' and 'is_gold'"
            )
        label = False
        if labelled or "is_gold" in value:
            label = _required(value, "is_gold", f"{where}: chunk {index}")
        if not isinstance(label, bool):
            raise DataError(
                f"{where}: chunk {index}: 'is_gold' is {label!r}; expected true or false"
            )
        try:
            chunks.append(as_chunk(value, index))
        except ChunkTypeError as error:
            raise DataError(f"{where}: {error}") from error
        labels.append(label)
        sentences.append(_strings(value, "gold_sents", f"{where}: chunk {index}"))
    return tuple(chunks), tuple(labels), tuple(sentences)


def _strings(item: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    values = item.get(key, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise DataError(f"{where}: '{key}' is {values!r:.80}; expected a list of strings")
    return tuple(values)


def _flag(item: dict[str, Any], key: str, where: str) -> bool:
    if key not in item:
        meta = item.get("meta")
        return isinstance(meta, dict) and meta.get(key) is True
    if not isinstance(item[key], bool):
        raise DataError(f"{where}: '{key}' is {item[key]!r:.80}; expected true or false")
    return bool(item[key])


def _string(item: dict[str, Any], key: str, where: str) -> str:
    value = _required(item, key, where)
    if not isinstance(value, str):
        raise DataError(f"{where}: '{key}' is a {type(value).__name__}; expected a string")
    return value


def _name(item: dict[str, Any], key: str, where: str) -> str:
    """Return a string without lone surrogates, which texts may have but names may not."""
    value = _string(item, key, where)
    if value != replace_surrogates(value):
        raise DataError(
            f"{where}: '{key}' is {value!a:.80}, with half a character (a lone surrogate); "
            "remove it"
        )
    return value


def _required(item: dict[str, Any], key: str, where: str) -> Any:
    if key not in item:
        keys = ", ".join(sorted(item)) or "none"
        raise DataError(f"{where}: the key '{key}' is missing (its keys: {keys})")
    return item[key]
