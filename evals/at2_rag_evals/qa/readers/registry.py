"""Data sets by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from at2_rag.data.examples import Example
from at2_rag.errors import DataError, InputError
from at2_rag_evals.provenance import file_record, files_sha256
from at2_rag_evals.qa.readers.beir import FILES as BEIR_FILES
from at2_rag_evals.qa.readers.beir import read_beir
from at2_rag_evals.qa.readers.json_sets import (
    read_hotpotqa,
    read_musique,
    read_nq_multi_document,
    read_rgb,
    read_squad,
)

READERS: Mapping[str, Callable[[Path], Iterator[Example]]] = MappingProxyType(
    {
        "squad": read_squad,
        "hotpotqa": read_hotpotqa,
        "musique": read_musique,
        "nq_multi_document": read_nq_multi_document,
        "rgb": read_rgb,
        "beir": read_beir,
    }
)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A published data set in the form it is published in.

    Attributes:
        name: One of `READERS`.
        path: Its file, or BEIR's folder.
    """

    name: str
    path: Path

    def __str__(self) -> str:
        return f"{self.name}={self.path.resolve().name}"

    def read(self) -> list[Example]:
        """Read its examples.

        Raises:
            DataError: If it isn't of its form, or holds no question.
        """
        examples = list(READERS[self.name](self.path))
        if not examples:
            raise DataError(f"{self.path}: holds no question; pass a data set with some")
        return examples

    def record(self) -> dict[str, str]:
        """Return what it was read from, without its folder."""
        if self.path.is_dir():
            sha = files_sha256(self.path, BEIR_FILES)
            return {"name": self.path.resolve().name, "sha256": sha, "dataset": self.name}
        return {**file_record(self.path), "dataset": self.name}


def parse_dataset(text: str) -> Dataset:
    """Return the data set that NAME=PATH names.

    Raises:
        InputError: If there is no such reader, file or folder.
    """
    name, equals, path = text.partition("=")
    if not equals or name not in READERS:
        raise InputError(
            f"{text!r} names no data set; pass NAME=PATH with one of {', '.join(READERS)}"
        )
    if not (Path(path).is_dir() if name == "beir" else Path(path).is_file()):
        kind = "folder" if name == "beir" else "file"
        raise InputError(f"there is no {kind} {path!r}; pass {name}=PATH of one that is there")
    return Dataset(name, Path(path))
