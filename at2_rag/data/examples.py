"""Questions with labelled chunks, as training and evals read them.

A file is JSON Lines (`.jsonl`, or gzipped `.jsonl.gz`), one example a line:

    {"id": "q1", "source": "my-set", "question": "Who wrote Emma?", "answers": ["Jane Austen"],
     "chunks": [{"title": "Emma", "text": "Emma is a novel by ...", "is_gold": true}, ...]}

`answers` and `source` may be missing (no answers; the file's name without its ending), and
`is_gold` where nothing is made of labels. A chunk may have `gold_sents`, a list of those of its
sentences that are evidence. `long_form` and `unanswerable`, true or false, say what kind of answer
a question has; they may stand in `meta` too. Keys not named here are ignored: what else is in
`meta` may be answer material and is never read. Lone surrogates (halves of characters) are kept in
texts, but `id` and `source` can't have them.
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
"""Bad lines that an error names; it counts them all."""


@dataclass(frozen=True, slots=True)
class Example:
    """One question with the chunks retrieved for it and which of them are evidence.

    Attributes:
        id: The example's identifier within its source.
        source: The data set it comes from.
        query: The question.
        chunks: The retrieved chunks, in the file's order.
        labels: For each chunk, whether it is gold, that is evidence for the answer.
        answers: Reference answers, any of which is right; may be empty.
        gold_sentences: For each chunk the parts of its text that are evidence, where the file
            says; empty where it does for no chunk.
        long_form: Whether answers are sentences in words of their own, rather than to be found in
            a text.
        unanswerable: Whether no chunk answers the question, and saying so is right.
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
        """Return where a chunk's gold sentences are in its text, half-open ranges of characters."""
        text = self.chunks[index].text
        found = []
        for sentence in self.gold_sentences[index]:
            wanted = sentence.strip()
            start = text.find(wanted) if wanted else -1
            while start >= 0:
                found.append((start, start + len(wanted)))
                start = text.find(wanted, start + 1)
        return found

    @property
    def reference_answer(self) -> str:
        """The first reference answer not blank, lone surrogates replaced; "" for none."""
        texts = (replace_surrogates(text).strip() for text in self.answers)
        return next(filter(None, texts), "")


@dataclass(frozen=True, slots=True)
class _BadLine:
    """Why a line can't be used, with its number."""

    reason: str


def read_examples(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    labelled: bool = True,
    chunkless: bool = False,
) -> list[Example]:
    """Read the examples of one or more files, in order.

    Args:
        paths: A `.jsonl` or `.jsonl.gz` file, or several.
        labelled: Whether every chunk has to have `is_gold`; without, a chunk that lacks it is
            read as not gold.
        chunkless: Whether an example may be without chunks.

    Raises:
        DataError: If a file can't be read or holds no example, or lines aren't usable ones; the
            message counts those of all files and names the first few with what was wrong.
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    files = read_files(paths, labelled=labelled, chunkless=chunkless)
    return [example for own in files for example in own]


def read_files(
    paths: Iterable[str | os.PathLike[str]], *, labelled: bool = True, chunkless: bool = False
) -> list[list[Example]]:
    """Read the examples of each file, as `read_examples` does."""
    examples, wrong = [], []
    for path in map(Path, paths):
        lines = _read_file(path, labelled=labelled, chunkless=chunkless)
        bad = [line for line in lines if isinstance(line, _BadLine)]
        if bad:
            wrong.append((path, len(lines), bad))
        examples.append([line for line in lines if isinstance(line, Example)])
    if wrong:
        raise DataError(_describe(wrong))
    return examples


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

    Sharing carries over: if A and B share a passage, and B and C another, all three are one
    group. Passages are compared by text, ignoring case and white space; blank ones link nothing.
    An example without gold stands alone.
    """
    return linked_groups([passage_keys(example.gold) for example in examples])


def passage_keys(chunks: Iterable[Chunk]) -> frozenset[str]:
    """Return the chunks' texts without differences in case and white space; blank ones left out."""
    return frozenset(" ".join(chunk.text.casefold().split()) for chunk in chunks) - {""}


def linked_groups(keys: Sequence[Iterable[Hashable]]) -> list[int]:
    """Number the connected groups of things that share keys (union-find).

    Args:
        keys: The keys of each thing; two things that have one in common belong together.

    Returns:
        For each thing its group's number; groups are numbered from 0 by first appearance.
    """
    parents = list(range(len(keys)))

    def root(node: int) -> int:
        while parents[node] != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    first_with: dict[Hashable, int] = {}
    for node, own in enumerate(keys):
        for key in own:
            parents[root(node)] = root(first_with.setdefault(key, node))
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(node), len(numbers)) for node in range(len(keys))]


def _read_file(path: Path, *, labelled: bool, chunkless: bool) -> list[Example | _BadLine]:
    """Return what each line that isn't blank holds, or why it can't be used."""
    source = replace_surrogates(path.name).removesuffix(".gz").removesuffix(".jsonl")
    number = 0
    found: list[Example | _BadLine] = []
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                place = f"line {number}"
                try:
                    example = _parse_line(line, source=source, place=place, labelled=labelled)
                    if not (example.chunks or chunkless):
                        raise DataError(
                            f"{place}: 'chunks' is empty; an example needs at least one chunk"
                        )
                    found.append(example)
                except DataError as error:
                    found.append(_BadLine(str(error)))
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path}: can't be read after line {number}: {reason}") from error
    if not found:
        raise DataError(f"{path}: holds no example; expected one JSON object a line")
    return found


def _describe(wrong: Sequence[tuple[Path, int, Sequence[_BadLine]]]) -> str:
    """Say in one line which lines of which files can't be used.

    Args:
        wrong: Files with the number of their lines and the bad ones.
    """
    first, _, bad = wrong[0]
    if len(wrong) == len(bad) == 1:
        return f"{first}, {bad[0].reason}"
    parts, left = [], _MOST_NAMED
    for path, total, bad in wrong:
        named = [line.reason for line in bad[:left]]
        left -= len(named)
        more = len(bad) - len(named)
        named += [f"and {more} more" if named else "not named here"] if more else []
        parts.append(f"{len(bad)} of {total} lines of {path} can't be used: {'; '.join(named)}")
    return f"{'; '.join(parts)}; fix or remove them"


def _parse_line(line: bytes, *, source: str, place: str, labelled: bool) -> Example:
    try:
        item = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: not UTF-8 ({error.reason} at byte {error.start})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: not JSON ({error})") from error
    if not isinstance(item, dict):
        raise DataError(f"{place}: a JSON {type(item).__name__}; expected an object")
    query = _string(item, "question", place)
    if not query.strip():
        raise DataError(f"{place}: 'question' is blank")
    chunks, labels, sentences = _parse_chunks(item, place, labelled=labelled)
    return Example(
        id=_name(item, "id", place),
        source=_name(item, "source", place) if item.get("source") is not None else source,
        query=query,
        chunks=chunks,
        labels=labels,
        answers=_strings(item, "answers", place),
        gold_sentences=sentences if any(sentences) else (),
        long_form=_flag(item, "long_form", place),
        unanswerable=_flag(item, "unanswerable", place),
    )


def _parse_chunks(
    item: dict[str, Any], place: str, *, labelled: bool
) -> tuple[tuple[Chunk, ...], tuple[bool, ...], tuple[tuple[str, ...], ...]]:
    values = _required(item, "chunks", place)
    if not isinstance(values, list):
        raise DataError(f"{place}: 'chunks' is a {type(values).__name__}; expected a list")
    chunks, labels, sentences = [], [], []
    for index, value in enumerate(values):
        if not isinstance(value, dict):
            raise DataError(
                f"{place}: chunk {index} is a {type(value).__name__}; expected an object with "
                "'text' and 'is_gold'"
            )
        label = False
        if labelled or "is_gold" in value:
            label = _required(value, "is_gold", f"{place}: chunk {index}")
        if not isinstance(label, bool):
            raise DataError(
                f"{place}: chunk {index}: 'is_gold' is {label!r}; expected true or false"
            )
        try:
            chunks.append(as_chunk(value, index))
        except ChunkTypeError as error:
            raise DataError(f"{place}: {error}") from error
        labels.append(label)
        sentences.append(_strings(value, "gold_sents", f"{place}: chunk {index}"))
    return tuple(chunks), tuple(labels), tuple(sentences)


def _strings(item: dict[str, Any], key: str, place: str) -> tuple[str, ...]:
    values = item.get(key, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise DataError(f"{place}: '{key}' is {values!r:.80}; expected a list of strings")
    return tuple(values)


def _flag(item: dict[str, Any], key: str, place: str) -> bool:
    if key not in item:
        meta = item.get("meta")
        return isinstance(meta, dict) and meta.get(key) is True
    if not isinstance(item[key], bool):
        raise DataError(f"{place}: '{key}' is {item[key]!r:.80}; expected true or false")
    return bool(item[key])


def _string(item: dict[str, Any], key: str, place: str) -> str:
    value = _required(item, key, place)
    if not isinstance(value, str):
        raise DataError(f"{place}: '{key}' is a {type(value).__name__}; expected a string")
    return value


def _name(item: dict[str, Any], key: str, place: str) -> str:
    """Return a string that can be written anywhere; text may hold lone surrogates, names not."""
    value = _string(item, key, place)
    if value != replace_surrogates(value):
        raise DataError(
            f"{place}: '{key}' is {value!a:.80}, with half a character (a lone surrogate); mend it"
        )
    return value


def _required(item: dict[str, Any], key: str, place: str) -> Any:
    if key not in item:
        keys = ", ".join(sorted(item)) or "none"
        raise DataError(f"{place}: the key '{key}' is missing (its keys: {keys})")
    return item[key]
