"""Fenced code blocks of the README and the docs, each with the output that it claims."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from glob import glob
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md",
    *("CONTRIBUTING.md", "evals/README.md", "examples/README.md", "at2_rag/weights/README.md"),
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
)

_LONG = ("train", "calibrate", "eval", "label")
_ELSEWHERE = (
    "serve",
    "ray",
)  # run until they are told to stop, or in a cluster; have tests of their own
_FENCE = re.compile(r"^```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"-?\d+\.\d+|-?\d+")


@dataclass(frozen=True, slots=True)
class Block:
    """A code block: its language and code, and the `text` block that follows, or None."""

    language: str
    code: str
    output: str | None

    @property
    def commands(self) -> list[list[str]]:
        """The commands of a console block, as lists of arguments, globs expanded as by a shell."""
        if self.language != "console":
            return []
        joined = self.code.replace("\\\n", " ")
        lines = [line[2:] for line in joined.splitlines() if line.startswith("$ ")]
        return [
            [name for part in shlex.split(line, comments=True) for name in _expanded(part)]
            for line in lines
        ]


def blocks(page: str) -> list[Block]:
    """Return the code blocks of a page in order, a `text` block with the block before it."""
    text = (ROOT / page).read_text(encoding="utf-8")
    result: list[Block] = []
    end = 0
    for match in _FENCE.finditer(text):
        language, code = match["language"], match["code"]
        follows = result and not text[end : match.start()].strip()
        if language == "text" and follows and result[-1].output is None:
            result[-1] = Block(result[-1].language, result[-1].code, code)
        else:
            result.append(Block(language, code, None))
        end = match.end()
    return result


def quick_commands(page: str) -> list[tuple[Block, list[str]]]:
    """Return the commands of at2-rag that take seconds, with their blocks."""
    return [
        (block, command)
        for block in blocks(page)
        for command in block.commands
        if command[0] == "at2-rag" and command[1] not in (*_LONG, *_ELSEWHERE)
    ]


def long_commands(page: str) -> list[list[str]]:
    """Return the trainings, evals and benchmarks, which take minutes."""
    return [
        command
        for block in blocks(page)
        for command in block.commands
        if command[0] == "python" or (command[0] == "at2-rag" and command[1] in _LONG)
    ]


def same_output(expected: str, printed: str) -> bool:
    """Tell whether a program printed what the page says.

    Integers have to be equal, numbers with decimals within .1, since scores differ a little by
    dtype and machine. Seconds aren't compared. A line `...` stands for any lines.
    """
    wanted, got = _lines(expected), _lines(printed)
    if "..." not in wanted:
        return len(wanted) == len(got) and all(map(_same_line, wanted, got))
    cut = wanted.index("...")
    head, tail = wanted[:cut], wanted[cut + 1 :]
    return (
        len(got) >= len(head) + len(tail)
        and all(map(_same_line, head, got))
        and all(map(_same_line, reversed(tail), reversed(got)))
    )


def _lines(text: str) -> list[str]:
    without_seconds = re.sub(r"\d+\.\d+ s\b", "# s", text)
    return [line.strip() for line in without_seconds.strip().splitlines()]


def _same_line(wanted: str, got: str) -> bool:
    if re.split(r"\s+", _NUMBER.sub("#", wanted)) != re.split(r"\s+", _NUMBER.sub("#", got)):
        return False
    pairs = zip(_NUMBER.findall(wanted), _NUMBER.findall(got), strict=True)
    return all(
        round(abs(float(one) - float(other)), 6) <= 0.1 if "." in one else one == other
        for one, other in pairs
    )


def _expanded(part: str) -> list[str]:
    return sorted(glob(part)) if "*" in part else [part]
