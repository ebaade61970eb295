"""Questions with labelled chunks, as training and evals read them.

A file is JSON Lines (`.jsonl`, or gzipped `.jsonl.gz`), one example a line:

    {"id": "q1", "source": "my-set", "question": "Who wrote Emma?", "answers": ["Jane Austen"],
     "chunks": [{"title": "Emma", "text": "Emma is a novel by ...", "is_gold": true}, ...]}

`answers` and `source` may be missing (no answers; the file's name without its ending), and so may
`is_gold` where labels aren't needed. An `is_gold` of null says that whoever labelled the chunk
couldn't tell. A chunk may have `gold_sents`, a list of its sentences that are evidence, and
`teacher_score`, a number by which some ranker ranks it, on any scale. `long_form` and
`unanswerable`, true or false, say what kind of answer a question has; they may be in `meta` too.
All other keys are ignored. Lone surrogates (halves of characters) are kept in texts, but not
allowed in `id` and `source`.
"""

from __future__ import annotations

import json
import logging
import math
import os
import zlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from at2_rag.errors import ChunkTypeError, DataError, brief
from at2_rag.files import data_lines
from at2_rag.text.chunks import Chunk, as_chunk, replace_surrogates

_MOST_LINE_BYTES = 2**26
_MOST_NAMED = 5  # bad lines that an error describes; it counts all of them
_REQUIRED = object()  # in place of a default: the key must be there

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Example:
    """One question with its retrieved chunks, and which of them are evidence."""

    id: str  # within its source
    source: str  # the data set it is from
    query: str
    chunks: tuple[Chunk, ...]
    labels: tuple[bool, ...]  # for each chunk, whether it is gold: evidence for the answer
    answers: tuple[str, ...] = ()  # reference answers, any of which is right
    gold_sentences: tuple[tuple[str, ...], ...] = ()  # for each chunk, if the file names any
    long_form: bool = False  # answers are written in free words rather than quoted from a text
    unanswerable: bool = False  # no chunk answers the question
    # For each chunk, if any has one: a ranker's score, larger is better; None where it gave none.
    teacher_scores: tuple[float | None, ...] = ()

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


@dataclass(frozen=True, slots=True)
class Record:
    """An example, and the JSON object that it was read from."""

    example: Example
    item: Mapping[str, Any]


def read_examples(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    labelled: bool = True,
    chunkless: bool = False,
) -> list[Example]:
    """Read the examples of one or more files, in order.

    With `labelled` every chunk must have `is_gold`, and examples with one of which it is null are
    left out, which a warning counts. Otherwise a chunk without it isn't gold, nor is any chunk of
    an example with one of which it is null. With `chunkless` an example may have no chunks.
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    files = read_files(paths, labelled=labelled, chunkless=chunkless)
    return [example for examples in files for example in examples]


def read_files(
    paths: Iterable[str | os.PathLike[str]], *, labelled: bool = True, chunkless: bool = False
) -> list[list[Example]]:
    """Read the examples of each file, as `read_examples` does.

    Raises:
        DataError: If a file can't be read or holds no example, or else if a line isn't one; the
            message counts the bad lines of all files and describes the first few.
    """
    files = read_records(paths, labelled=labelled, chunkless=chunkless)
    return [[record.example for record in records] for records in files]


def read_records(
    paths: Iterable[str | os.PathLike[str]], *, labelled: bool, chunkless: bool = False
) -> list[list[Record]]:
    """Read each file as `read_files` does, but keep all keys of its lines."""
    files, bad_lines = [], {}
    for path in map(Path, paths):
        records, reasons = _read_file(path, labelled=labelled, chunkless=chunkless)
        if reasons:
            bad_lines[path] = (len(reasons) + len(records), reasons)
        elif labelled:
            records = _fully_labelled(records, path)
        files.append(records)
    if bad_lines:
        raise DataError(_bad_lines_message(bad_lines))
    return files


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


def linked_sources(examples: Sequence[Example]) -> dict[str, int]:
    """Return a number for each source, the same where sources share a gold passage.

    What is learned without a source has to be learned without those that share its number.
    """
    sources = list(dict.fromkeys(example.source for example in examples))
    by_source: dict[str, set[str]] = {source: set() for source in sources}
    for example in examples:
        by_source[example.source] |= passage_keys(example.gold)
    return dict(zip(sources, linked_groups(list(by_source.values())), strict=True))


def passage_keys(chunks: Iterable[Chunk]) -> frozenset[str]:
    """Return the chunks' texts with case and white space normalised, blank ones left out."""
    return frozenset(" ".join(chunk.text.casefold().split()) for chunk in chunks) - {""}


def linked_groups(keys: Sequence[Iterable[Hashable]]) -> list[int]:
    """Return each item's group number; items that share a key share a group.

    `keys` holds the keys of each item. Groups are numbered from 0 by first appearance.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    # A graph of items and keys, with an edge from each item to each of its keys.
    nodes: dict[Hashable, int] = {}
    edges = [
        (item, len(keys) + nodes.setdefault(key, len(nodes)))
        for item, item_keys in enumerate(keys)
        for key in item_keys
    ]
    rows, columns = np.array(edges, dtype=int).reshape(-1, 2).T
    size = len(keys) + len(nodes)
    graph = coo_array((np.ones(len(edges)), (rows, columns)), shape=(size, size))
    labels = connected_components(graph, directed=False)[1][: len(keys)].tolist()
    numbers: dict[int, int] = {}
    return [numbers.setdefault(label, len(numbers)) for label in labels]


def _fully_labelled(records: Sequence[Record], path: Path) -> list[Record]:
    """Return the records without those with a chunk whose label isn't known."""
    known = [
        record
        for record in records
        if all(chunk["is_gold"] is not None for chunk in record.item["chunks"])
    ]
    if not known:
        raise DataError(
            f"{path}: each of its {len(records)} examples has a chunk without a label ('is_gold' "
            "is null); label these chunks, or remove them"
        )
    if unknown := len(records) - len(known):
        _logger.warning(
            "%s: %d of %d examples are left out, since they have a chunk without a label "
            "('is_gold' is null)",
            path,
            unknown,
            len(records),
        )
    return known


def _read_file(path: Path, *, labelled: bool, chunkless: bool) -> tuple[list[Record], list[str]]:
    """Return a file's examples, and what is wrong with each of its other lines."""
    source = replace_surrogates(path.name).removesuffix(".gz").removesuffix(".jsonl")
    number = 0
    records: list[Record] = []
    reasons: list[str] = []
    try:
        packed = path.suffix == ".gz"
        for line in data_lines(path, packed=packed, most_line=_MOST_LINE_BYTES):
            number += 1
            if not line.strip():
                continue
            try:
                record = _parse_line(line, source=source, labelled=labelled)
                if not (record.example.chunks or chunkless):
                    raise DataError("'chunks' is empty; an example needs at least one chunk")
                records.append(record)
            except (DataError, ChunkTypeError) as error:
                reasons.append(f"line {number}: {error}")
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path}: can't be read after line {number}: {reason}") from error
    if not (records or reasons):
        raise DataError(f"{path}: holds no example; expected one JSON object a line")
    return records, reasons


def _bad_lines_message(bad_lines: Mapping[Path, tuple[int, list[str]]]) -> str:
    """Return in words which lines of which files can't be used.

    `bad_lines` has a file's number of lines, and what is wrong with each bad one.
    """
    path, (_, reasons) = next(iter(bad_lines.items()))
    if len(bad_lines) == len(reasons) == 1:
        return f"{path}, {reasons[0]}"
    parts, left = [], _MOST_NAMED
    for path, (lines, reasons) in bad_lines.items():
        named = reasons[:left]
        left -= len(named)
        if more := len(reasons) - len(named):
            named.append(f"and {more} more" if named else "not listed here")
        parts.append(f"{len(reasons)} of {lines} lines of {path} can't be used: {'; '.join(named)}")
    return f"{'; '.join(parts)}; fix or remove them"


def _parse_line(line: bytes, *, source: str, labelled: bool) -> Record:
    try:
        item = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 ({error.reason} at byte {error.start})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"not JSON ({error})") from error
    if not isinstance(item, dict):
        raise DataError(f"a JSON {type(item).__name__}; expected an object")
    query = _value(item, "question", str, "a string")
    if not query.strip():
        raise DataError("'question' is blank")
    chunks: list[Chunk] = []
    labels: list[bool | None] = []
    scores: list[float | None] = []
    sentences: list[tuple[str, ...]] = []
    for index, value in enumerate(_value(item, "chunks", list, "a list")):
        if not isinstance(value, dict):
            raise DataError(
                f"chunk {index} is a {type(value).__name__}; expected an object with 'text' and "
                "'is_gold'"
            )
        chunks.append(as_chunk(value, index))
        try:
            default = _REQUIRED if labelled else False
            labels.append(_value(value, "is_gold", bool | None, "true or false", default))
            scores.append(_score(value))
            sentences.append(_strings(value, "gold_sents"))
        except DataError as error:
            raise DataError(f"chunk {index}: {error}") from error
    known = None not in labels
    example = Example(
        id=_name(item, "id"),
        source=_name(item, "source") if item.get("source") is not None else source,
        query=query,
        chunks=tuple(chunks),
        labels=tuple(known and bool(label) for label in labels),
        answers=_strings(item, "answers"),
        gold_sentences=tuple(sentences) if any(sentences) else (),
        long_form=_flag(item, "long_form"),
        unanswerable=_flag(item, "unanswerable"),
        teacher_scores=() if set(scores) <= {None} else tuple(scores),
    )
    return Record(example, item)


def _value(
    item: dict[str, Any], key: str, kind: Any, expected: str, default: Any = _REQUIRED
) -> Any:
    """Return a value of a JSON object, or the default if the key is missing."""
    value = item.get(key, default)
    if value is _REQUIRED:
        keys = ", ".join(sorted(item)) or "none"
        raise DataError(f"the key '{key}' is missing (its keys: {keys})")
    if not isinstance(value, kind):
        raise DataError(f"'{key}' is {brief(value)}; expected {expected}")
    return value


def _score(chunk: dict[str, Any]) -> float | None:
    """Return the teacher's score of a chunk, if it has one."""
    score = chunk.get("teacher_score")
    if score is None:
        return None
    try:
        number = float(score) if type(score) in (int, float) else math.nan
    except OverflowError:  # of a whole number
        number = math.inf
    if not math.isfinite(number):
        raise DataError(
            f"'teacher_score' is {brief(score)}; expected a finite number, larger for a better "
            "chunk, or null for none"
        )
    return number


def _strings(item: dict[str, Any], key: str) -> tuple[str, ...]:
    values = item.get(key, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise DataError(f"'{key}' is {brief(values)}; expected a list of strings")
    return tuple(values)


def _flag(item: dict[str, Any], key: str) -> bool:
    meta = item.get("meta")
    default = isinstance(meta, dict) and meta.get(key) is True
    return bool(_value(item, key, bool, "true or false", default))


def _name(item: dict[str, Any], key: str) -> str:
    """Return a string without lone surrogates, which texts may have but names may not."""
    value: str = _value(item, key, str, "a string")
    if value != replace_surrogates(value):
        raise DataError(
            f"'{key}' is {value!a:.80}, with half a character (a lone surrogate); remove it"
        )
    return value
