"""Reads the chunks of files ahead of any question, by any number of processes of a cluster.

JSON Lines are cut into parts of some megabytes, which Ray Data hands to the processes; a file of
another form is a part. States go to one folder that all processes see. A chunk whose state is there
isn't read again, so that a run that was killed goes on where it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from at2_rag.cli.options import load_pruner
from at2_rag.cli.passages import (
    MOST_BYTES,
    Columns,
    Format,
    format_of,
    parse_passages,
    read_passages,
)
from at2_rag.errors import DataError
from at2_rag.progress import StepProgress
from at2_rag.ray.cluster import Worker
from at2_rag.ray.jobs import Actor, handled
from at2_rag.states.files import StateCounts
from at2_rag.text.chunks import ChunkLike

PART_BYTES = 2**22  # of JSON Lines; some thousand chunks


@dataclass(frozen=True, slots=True)
class Form:
    """How files are read.

    Attributes:
        format: Their format; None for what their endings and contents say.
        columns: Columns of CSV.
    """

    format: Format | None
    columns: Columns


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a file of JSON Lines, the lines that begin in a range of bytes, or a whole file.

    Attributes:
        path: The file, absolute.
        start: The range's first byte.
        end: The byte after its last; 0 for a file that is read whole, by its format.
        size: Its bytes.
    """

    path: str
    start: int
    end: int
    size: int


def parts_of(
    path: Path, *, format: Format | None = None, part_bytes: int | None = None
) -> Iterator[Part]:
    """Yield the parts of a file; a folder, and what isn't plain JSON Lines, is one.

    A part has `part_bytes`; None for `PART_BYTES`.
    """
    step = part_bytes or PART_BYTES
    path = path.absolute()
    size = path.stat().st_size
    is_plain = path.suffix.lower() != ".gz" and path.is_file()
    if not is_plain or (format or format_of(path.name)) != "jsonl":
        yield Part(str(path), 0, 0, size)
        return
    for start in range(0, size, step):
        end = min(start + step, size)
        yield Part(str(path), start, end, end - start)


def read_part(part: Part, form: Form) -> list[ChunkLike]:
    """Return the chunks of a part.

    Raises:
        DataError: If it can't be read; of JSON Lines, line numbers count from the part's first.
    """
    if not part.end:
        return read_passages(Path(part.path), format=form.format, columns=form.columns)
    try:
        with open(part.path, "rb") as file:
            if part.start:  # a line that began before is of the part before
                file.seek(part.start - 1)
                file.readline(MOST_BYTES)
            first = file.tell()
            lines = file.read(max(0, part.end - first))
            if lines and not lines.endswith(b"\n"):
                lines += file.readline(MOST_BYTES)
    except OSError as error:
        raise DataError(f"{part.path}: can't be read: {error.strerror or error}") from error
    name = f"{part.path}, from byte {first:,}" if first else part.path
    return parse_passages(lines, name, format="jsonl", columns=form.columns)


class Indexer(Actor):
    """A process that reads parts.

    Args:
        form: How files are read.
        folder: Where states are kept.
        max_bytes: Most bytes of the folder; None for its own bound.
        worker: What it takes.
        loading: Keyword arguments of `load_pruner`.
    """

    def __init__(
        self,
        form: Form,
        folder: str,
        max_bytes: int | None,
        worker: Worker,
        loading: Mapping[str, Any],
    ) -> None:
        from at2_rag.states.store import ChunkCache  # which loads torch

        worker.settle()
        self._form = form
        self._states = ChunkCache(folder, max_memory_bytes=0, max_disk_bytes=max_bytes)
        self._pruner = load_pruner(chunk_cache=self._states, **loading)

    def handle(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Read a part; return its size, its chunks, and what happened in the cache."""
        before = asdict(self._states.counts)
        chunks = read_part(Part(**item), self._form)
        self._pruner.index(chunks)
        after = asdict(self._states.counts)
        changes = {name: after[name] - before[name] for name in after}
        return {"size": item["size"], "chunks": len(chunks), **changes}


def index_files(
    files: Sequence[Path],
    form: Form,
    *,
    folder: Path,
    max_bytes: int | None,
    actors: int,
    worker: Worker,
    loading: Mapping[str, Any],
) -> tuple[int, StateCounts]:
    """Keep the states of all chunks of files; return how many chunks there were, and the counts.

    Args:
        files: Files or folders that every node finds.
        form: How they are read.
        folder: Where states are kept; every node has to find it.
        max_bytes: Most bytes of the folder; None for its own bound.
        actors: How many processes read, each with a model.
        worker: What each takes.
        loading: Keyword arguments of `load_pruner`.

    Raises:
        DataError: If a file can't be read; what was read before is kept.
    """
    parts = [asdict(part) for path in files for part in parts_of(path, format=form.format)]
    names = [field.name for field in fields(StateCounts)]
    chunks, counts = 0, dict.fromkeys(names, 0)
    if not parts:
        return chunks, StateCounts(**counts)
    arguments = (form, str(folder.absolute()), max_bytes, worker, dict(loading))
    rows = handled(parts, Indexer, arguments, actors=actors, worker=worker)
    done, total = 0, sum(part["size"] for part in parts)
    with StepProgress() as progress:
        progress("bytes", 0, total)
        for row in rows:
            chunks += int(row["chunks"])
            done += int(row["size"])
            for name in names:
                counts[name] += int(row[name])
            progress("bytes", done, total)
    return chunks, StateCounts(**counts)
