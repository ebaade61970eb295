"""Head weights that an eval judges beside `at2`, under a name that the user chooses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from at2_rag.files import without_folder

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")


@dataclass(frozen=True, slots=True)
class NamedWeights:
    """A folder with head weights, the name of shipped ones, or "uniform", as a named system."""

    name: str
    head_weights: str

    def __str__(self) -> str:
        return f"{self.name}={without_folder(self.head_weights)}"


def weights_attributes(taken: Sequence[str]) -> dict[str, Any]:
    """Return the attributes of the option `--weights NAME=WEIGHTS`; no NAME may be in `taken`."""

    def parse(
        context: click.Context, parameter: click.Parameter, values: Sequence[str]
    ) -> tuple[NamedWeights, ...]:
        named: dict[str, NamedWeights] = {}
        for value in values:
            name, equals, weights = value.partition("=")
            if not equals or not weights:
                raise click.BadParameter(f"{value!r} isn't NAME=WEIGHTS; pass name=FOLDER")
            if not _NAME.fullmatch(name):
                raise click.BadParameter(
                    f"the name {name!r} isn't plain; pass at most 40 ASCII letters, digits, '_' "
                    "and '-', the first a letter or digit"
                )
            if name in taken or name in named:
                raise click.BadParameter(
                    f"the name {name!r} is taken; pass one that is used once and that --all "
                    "doesn't list"
                )
            named[name] = NamedWeights(name, weights)
        return tuple(named.values())

    return {
        "multiple": True,
        "callback": parse,
        "metavar": "NAME=WEIGHTS",
        "help": "Judge these head weights too, as the system NAME: a folder or the name of shipped "
        "ones. May be repeated.",
    }


def with_named(systems: Sequence[str], weights: Sequence[NamedWeights]) -> tuple[str, ...]:
    """Return the names of systems with those of named weights, after `at2` or at the end."""
    index = systems.index("at2") + 1 if "at2" in systems else len(systems)
    return (*systems[:index], *(each.name for each in weights), *systems[index:])
