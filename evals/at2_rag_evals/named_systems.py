"""Head weights and embedding models that an eval judges too, under names that the user chooses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from at2_rag.files import without_folder

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")


@dataclass(frozen=True, slots=True)
class NamedSystem:
    """A system and its name in reports.

    Attributes:
        name: ASCII letters, digits, "_" and "-".
        spec: Of head weights a folder, the name of shipped ones, or "uniform"; of an embedding
            model a folder or a hub id.
    """

    name: str
    spec: str

    def __str__(self) -> str:
        return f"{self.name}={without_folder(self.spec)}"


def weights_attributes(taken: Sequence[str]) -> dict[str, Any]:
    """Return the attributes of the option `--weights NAME=WEIGHTS`; no NAME may be in `taken`."""
    return _attributes(
        "WEIGHTS",
        taken,
        "Judge these head weights too, as the system NAME: a folder or the name of shipped ones. "
        "May be repeated.",
    )


def embedding_attributes(taken: Sequence[str]) -> dict[str, Any]:
    """Return the attributes of the option `--embedding NAME=MODEL`; no NAME may be in `taken`."""
    return _attributes(
        "MODEL",
        taken,
        "Judge this sentence-transformers model too, as the system NAME: a folder or a hub id. May "
        "be repeated.",
    )


def _attributes(spec: str, taken: Sequence[str], help: str) -> dict[str, Any]:
    def parse(
        context: click.Context, parameter: click.Parameter, values: Sequence[str]
    ) -> tuple[NamedSystem, ...]:
        names = {*taken, *_names(context)}
        named: list[NamedSystem] = []
        for value in values:
            name, equals, rest = value.partition("=")
            if not equals or not rest:
                raise click.BadParameter(f"{value!r} isn't NAME={spec}; pass name=FOLDER")
            if not _NAME.fullmatch(name):
                raise click.BadParameter(
                    f"the name {name!r} isn't plain; pass at most 40 ASCII letters, digits, '_' "
                    "and '-', the first a letter or digit"
                )
            if name in names:
                raise click.BadParameter(
                    f"the name {name!r} is taken; pass one that is used once and that --all "
                    "doesn't list"
                )
            names.add(name)
            named.append(NamedSystem(name, rest))
        return tuple(named)

    return {"multiple": True, "callback": parse, "metavar": f"NAME={spec}", "help": help}


def _names(context: click.Context) -> set[str]:
    """Return the names that other options of the command have given so far."""
    options = [value for value in context.params.values() if isinstance(value, tuple)]
    return {each.name for value in options for each in value if isinstance(each, NamedSystem)}


def with_named(
    systems: Sequence[str],
    weights: Sequence[NamedSystem] = (),
    embeddings: Sequence[NamedSystem] = (),
) -> tuple[str, ...]:
    """Return the names of systems with those of named ones.

    Head weights follow `at2`, embedding models `minilm`; without it they are at the end.
    """
    names = list(systems)
    for after, named in (("minilm", embeddings), ("at2", weights)):
        index = names.index(after) + 1 if after in names else len(names)
        names[index:index] = [each.name for each in named]
    return tuple(names)
