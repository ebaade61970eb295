"""Reads the chunks of files, folders and standard input for the command line.

The formats are those of `at2-rag prune`; JSON may also be an object with the list under `chunks`.
CSV has a row of column names first; what isn't text, title, id or retrieval_score is metadata.
A file's ending (before `.gz`) tells its format. Without a known one a file is JSON Lines if its
first line is a JSON string or an object without `chunks`, JSON if it begins like an object or a
list of passages, and else text. Of a file that never ends, packed or not, no more is read than
`MOST_BYTES`.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import logging
import math
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO, StringIO
from itertools import groupby
from pathlib import Path, PurePath
from typing import Any, Literal, NoReturn, TypeAlias

from at2_rag.errors import ChunkTypeError, DataError, brief
from at2_rag.text.chunks import Chunk, ChunkLike, as_chunk
from at2_rag.text.passages import MOST_WORDS, passage_spans
from at2_rag.text.scripts import length

Format: TypeAlias = Literal["jsonl", "json", "text", "csv", "tsv"]

MOST_BYTES = 2**27
"""How much a file, unpacked, or a folder may hold."""

_GZIP = b"\x1f\x8b"
_MOST_NAMED = 3
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?", re.ASCII | re.IGNORECASE)

_logger = logging.getLogger(__name__)

_FORMATS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".txt": "text",
    ".md": "text",
    ".rst": "text",
    ".csv": "csv",
    ".tsv": "tsv",
}


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns of CSV by their names.

    Attributes:
        text: The column of the passages.
        title: The column of their titles, which may be missing if it is "title".
        required: Whether to refuse what isn't CSV.
    """

    text: str = "text"
    title: str = "title"
    required: bool = False


DEFAULT_COLUMNS = Columns()


def read_passages(
    path: Path, *, format: Format | None = None, columns: Columns = DEFAULT_COLUMNS
) -> list[ChunkLike]:
    """Read the passages of a file or folder; a format of None is detected."""
    if path.is_dir():
        if columns.required:
            raise _no_columns(str(path), "text")
        if format not in (None, "text"):
            raise DataError(f"{path}: is a folder, whose files are read as text, not {format}")
        return _read_folder(path)
    return parse_passages(_read_bytes(path), str(path), format=format, columns=columns)


def parse_passages(
    data: bytes,
    name: str,
    *,
    format: Format | None = None,
    columns: Columns = DEFAULT_COLUMNS,
) -> list[ChunkLike]:
    """Read the passages in the bytes of a file of this name, as `read_passages` does."""
    text = _decode(data, name)
    kind = format or format_of(name) or _detect(text)
    if kind in ("csv", "tsv"):
        return list(_read_table(text, name, columns, tabs=kind == "tsv"))
    if columns.required:
        raise _no_columns(name, kind)
    if kind == "text":
        return list(_paragraphs(text))
    try:
        return _read_lines(text, name) if kind == "jsonl" else _read_list(text, name)
    except DataError as error:
        if format is not None:
            raise
        others = " or ".join(other for other in ("jsonl", "json", "text") if other != kind)
        raise DataError(
            f"{error}; it was read as {kind}, pass --format {others} if it is that"
        ) from error


def format_of(name: str) -> Format | None:
    """Return the format that a file's ending tells, before `.gz`; None for an unknown ending."""
    path = PurePath(name)
    is_packed = path.suffix.lower() == ".gz"
    return _FORMATS.get((path.with_suffix("") if is_packed else path).suffix.lower())


def read_text(path: Path) -> str:
    """Read the text of a file, unpacked."""
    return _decode(_read_bytes(path), str(path))


def _read_folder(folder: Path) -> list[ChunkLike]:
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: can't be read: {error.strerror or error}") from error
    shown = [entry for entry in entries if not entry.name.startswith(".")]
    files = [entry for entry in shown if os.path.isfile(entry)]
    if others := len(shown) - len(files):
        message = "%s: %d of its %d entries are not files and were not read"
        _logger.warning(message, folder, others, len(shown))
    root = os.path.realpath(folder)
    outside = {file for file in files if not Path(os.path.realpath(file)).is_relative_to(root)}
    if outside:
        named = ", ".join(sorted(file.name for file in outside)[:_MOST_NAMED])
        message = "%s: %d symlinks lead out of the folder and were not read (%s); copy the files"
        _logger.warning(message, folder, len(outside), named)
    chunks: list[ChunkLike] = []
    left = MOST_BYTES
    for file in files:
        if file not in outside:
            text = read_text(file)
            left -= len(text)
            if left < 0:
                raise _too_large(f"{folder}: its files hold")
            chunks.append(Chunk(text=text, id=file.name))
    return chunks


def _read_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:  # or a pipe, as of <(command)
            return file.read(MOST_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror or error}") from error


def _decode(data: bytes, name: str) -> str:
    if data.startswith(_GZIP) and len(data) <= MOST_BYTES:
        try:
            data = gzip.GzipFile(fileobj=BytesIO(data)).read(MOST_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(
                f"{name}: a damaged gzip file ({error}); create or fetch it again"
            ) from error
    if len(data) > MOST_BYTES:
        raise _too_large(f"{name}: holds")
    body = data.removeprefix(codecs.BOM_UTF8)
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        offset = error.start + len(data) - len(body)
        line = data.count(b"\n", 0, offset) + 1
        raise DataError(
            f"{name}, line {line}: not UTF-8, byte 0x{data[offset]:02x} at offset {offset}; "
            "convert the file to UTF-8"
        ) from error


def _too_large(subject: str) -> DataError:
    return DataError(f"{subject} more than {MOST_BYTES:,} bytes, the most that is read; split it")


def _detect(text: str) -> Format:
    """Return the format of a file by its beginning."""
    body = text.lstrip()
    if not body.startswith(("{", "[", '"')):
        return "text"
    try:
        first = json.loads(body.partition("\n")[0])
    except (ValueError, RecursionError):
        first = None
    if isinstance(first, str) or (isinstance(first, dict) and "chunks" not in first):
        return "jsonl"
    # "[1] Smith" and "[[Emma]]" begin plain text; a list of passages begins otherwise.
    return "json" if re.match(r'\{|\[\s*["{\]]', body) else "text"


def _paragraphs(text: str) -> Iterator[str]:
    for blank, lines in groupby(text.split("\n"), key=lambda line: not line.strip()):
        if not blank:
            paragraph = "\n".join(lines).removesuffix("\r")
            is_long = length(paragraph) > 2 * MOST_WORDS  # as a log may be
            for start, end in passage_spans(paragraph) if is_long else [(0, len(paragraph))]:
                yield paragraph[start:end].removesuffix("\n").removesuffix("\r")


def _read_lines(text: str, name: str) -> list[ChunkLike]:
    chunks: list[ChunkLike] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            value = _parse_json(line, name, number)
            chunks.append(_checked(value, f"{name}, line {number}", len(chunks)))
    return chunks


def _read_list(text: str, name: str) -> list[ChunkLike]:
    value = _parse_json(text, name)
    if isinstance(value, dict) and "chunks" in value:
        value = value["chunks"]
    if not isinstance(value, list):
        raise DataError(
            f"{name}: holds no list of passages; expected a JSON list, or an object with a list "
            "under 'chunks'"
        )
    return [_checked(item, name, index) for index, item in enumerate(value)]


def _read_table(text: str, name: str, columns: Columns, *, tabs: bool) -> Iterator[ChunkLike]:
    """Yield the rows of CSV as chunks; its delimiter may be a semicolon, as Excel's often is."""
    first = text.partition("\n")[0]
    delimiter = "\t" if tabs else ";" if ";" in first and "," not in first else ","
    (_, header), *rows = list(_rows(text, name, delimiter)) or [(1, [])]
    header = [column.strip() for column in header]
    known = ", ".join(map(repr, header)) or "none, the file is empty"
    names = _without_blank_columns(header, [fields for _, fields in rows])
    required = [(columns.text, "text"), (columns.title, "title")]
    for wanted, option in required if columns.title != DEFAULT_COLUMNS.title else required[:1]:
        if wanted not in names:
            raise DataError(
                f"{name}: has no column {wanted!r} (its columns: {known}); name one with "
                f"--{option}-column"
            )
    if repeated := sorted({column for column in names if names.count(column) > 1}):
        raise DataError(f"{name}: has more than one column {repeated[0]!r}; rename one")
    for line, fields in rows:
        if len(fields) != len(header):
            raise DataError(
                f"{name}, line {line}: has {len(fields)} fields for the {len(header)} columns "
                f"{known}; put quotes around a field that holds {delimiter!r} or a quote"
            )
        yield _chunk_of(dict(zip(names, fields, strict=False)), columns, f"{name}, line {line}")


def _without_blank_columns(header: list[str], rows: list[list[str]]) -> list[str]:
    """Return the columns but the last ones without a name and with blank fields alone."""
    count = len(header)
    while count and not header[count - 1]:
        if any(field.strip() for row in rows for field in row[count - 1 : count]):
            break
        count -= 1
    return header[:count]


def _chunk_of(row: dict[str, str], columns: Columns, origin: str) -> Chunk:
    text, title = row.pop(columns.text), row.pop(columns.title, "")
    score = row.pop("retrieval_score", "").strip()
    number = float(score) if _NUMBER.fullmatch(score) else None
    if score and (number is None or math.isinf(number)):
        raise DataError(
            f"{origin}: the retrieval_score is {brief(score)}; pass a number such as -1.5 or 2e-3, "
            "at most 1.8e308, or nothing"
        )
    return Chunk(text, title or None, row.pop("id", "") or None, row, number)


def _rows(text: str, name: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that aren't blank, each with the number of its first line."""
    lines = StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    limit = csv.field_size_limit(MOST_BYTES)  # the input's own limit holds already
    line = 1
    try:
        for fields in reader:
            if any(map(str.strip, fields)):
                yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{name}, line {line}: not CSV ({error}); write a quote inside of quotes twice"
        ) from error
    finally:
        csv.field_size_limit(limit)


def _no_columns(name: str, kind: str) -> DataError:
    return DataError(
        f"{name}: is read as {kind}, which has no columns; leave out --text-column and "
        "--title-column, or pass --format csv or tsv"
    )


def _parse_json(text: str, name: str, first_line: int = 1) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise DataError(
            f"{name}, line {line}, column {error.colno}: not JSON ({error.msg})"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}, line {first_line}: not usable JSON ({error})") from error


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON value, write null")


def _finite(number: str) -> float:
    value = float(number)
    if math.isinf(value):
        raise ValueError(f"{brief(number)} is beyond what a float holds, write it as a string")
    return value


def _checked(passage: Any, origin: str, index: int) -> Any:
    try:
        as_chunk(passage, index)
    except ChunkTypeError as error:
        raise DataError(f"{origin}: {error}") from error
    return passage
