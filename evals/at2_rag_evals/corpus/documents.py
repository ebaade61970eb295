"""A folder of documents, cut into chunks."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from at2_rag.cli.passages import MOST_BYTES, format_of, read_passages, read_text
from at2_rag.errors import DataError
from at2_rag.text.chunks import Chunk, as_chunk
from at2_rag.text.passages import passage_spans

_HEADING = re.compile(r"\s*(?:#\s+(?P<hash>.+)|(?P<line>.+)\n(?:={3,}|-{3,}|\*{3,})\s*(?:\n|\Z))")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Corpus:
    """The chunks of all documents.

    Attributes:
        name: The folder's name, or the file's.
        chunks: In the order of the documents' names; each has an id that no other has.
        documents: For each chunk its document: the file's path inside the folder.
        skipped: Ending -> number of files with it that weren't read.
    """

    name: str
    chunks: tuple[Chunk, ...]
    documents: tuple[str, ...]
    skipped: Mapping[str, int]


def read_corpus(path: Path) -> Corpus:
    """Read a file, or all files in a folder and its folders whose endings tell that they are text.

    A text is cut into passages, which are called "guide/install.md#1" and so on; their title is its
    first heading, or else its path. JSON Lines, JSON and CSV hold passages already, which keep
    their ids.

    Raises:
        DataError: If a file can't be read, two passages have the same id, or there is none.
    """
    skipped: Counter[str] = Counter()
    chunks: list[Chunk] = []
    documents: list[str] = []
    left = MOST_BYTES
    for name, file in _files(path, skipped):
        for chunk in _chunks_of(file, name):
            left -= len(chunk.text)
            if left < 0:
                raise DataError(
                    f"{path}: holds more than {MOST_BYTES:,} characters, the most that is read; "
                    "pass a part of it"
                )
            chunks.append(chunk)
            documents.append(name)
    if not chunks:
        raise DataError(
            f"{path}: holds no text; pass a folder with .md, .rst or .txt files, or with passages "
            "as JSON Lines, JSON or CSV"
        )
    repeated = [id for id, number in Counter(chunk.id for chunk in chunks).items() if number > 1]
    if repeated:
        raise DataError(
            f"{path}: {len(repeated)} ids are those of several passages ({repeated[0]!r}, for "
            "one); give each an id that no other has"
        )
    if skipped:
        message = "%s: %d files were not read, since their endings tell no text (%s)"
        _logger.warning(message, path, skipped.total(), ", ".join(skipped))
    return Corpus(path.resolve().name, tuple(chunks), tuple(documents), dict(skipped))


def _files(path: Path, skipped: Counter[str]) -> Iterator[tuple[str, Path]]:
    """Yield the files to read, each with its name inside the folder; count the others."""
    if not path.is_dir():
        yield path.name, path
        return
    root = Path(os.path.realpath(path))
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path)
        if any(part.startswith(".") for part in name.parts) or not os.path.isfile(file):
            continue
        if not Path(os.path.realpath(file)).is_relative_to(root):
            skipped["symlink out of the folder"] += 1
        elif format_of(file.name) is None:
            skipped[file.suffix.lower() or "no ending"] += 1
        else:
            yield name.as_posix(), file


def _chunks_of(file: Path, name: str) -> Iterator[Chunk]:
    if format_of(file.name) not in (None, "text"):
        for number, passage in enumerate(read_passages(file), start=1):
            chunk = as_chunk(passage, number - 1)
            if chunk.text.strip():
                yield chunk if chunk.id else replace(chunk, id=f"{name}#{number}")
        return
    text = read_text(file)
    title = _title(text, name)
    passages = (text[start:end].strip() for start, end in passage_spans(text))
    for number, passage in enumerate(filter(None, passages), start=1):
        yield Chunk(passage, title, f"{name}#{number}")


def _title(text: str, name: str) -> str:
    """Return the heading that a text begins with; without one its path without the ending."""
    heading = _HEADING.match(text)
    if heading is None:
        return PurePath(name).with_suffix("").as_posix()
    return (heading["hash"] or heading["line"]).strip()
