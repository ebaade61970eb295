"""What pruning kept and dropped, to look at: in a terminal, a notebook or a page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.rule import Rule
from rich.style import Style
from rich.text import Text

from at2_rag.report.page import render_page
from at2_rag.report.terminal import visible

if TYPE_CHECKING:
    from at2_rag.results import PruneResult, ScoredChunk, ScoredSentence

LIKELY = 0.5
"""Probability from which a passage or sentence is marked as likely relevant."""


MOST_SHOWN = 30
"""Passages that a notebook keeps of a result; a page has all."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a passage's text that is kept or cut as a whole."""

    text: str
    kept: bool
    probability: float | None  # of its sentence; None if sentences weren't scored


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage as it is shown."""

    heading: str  # its title, else its id, else its number
    probability: float | None
    score: float
    kept: bool
    pieces: tuple[Piece, ...]


def passages(result: PruneResult) -> Iterator[Passage]:
    """Yield what was kept, then what was dropped, in the result's order."""
    by_chunk: dict[int, list[ScoredSentence]] = {}
    for sentence in result.sentences:
        by_chunk.setdefault(sentence.chunk_index, []).append(sentence)
    kept = len(result.kept)
    for number, chunk in enumerate((*result.kept, *result.dropped)):
        yield Passage(
            visible(_heading(chunk)),
            chunk.probability,
            chunk.score,
            number < kept,
            tuple(_pieces(chunk, number < kept, by_chunk.get(chunk.index, []))),
        )


def print_view(result: PruneResult, console: Console) -> None:
    """Print each passage, with what was cut struck through, or in [-brackets-] into a file."""

    def shown(text: str) -> str:
        return text.encode(console.encoding, "replace").decode(console.encoding)

    console.print(Text(shown(visible(result.query)), style="bold"))
    for line in (str(result), *result.notes):
        console.print(Text(shown(visible(line))))
    for passage in passages(result):
        style = Style(dim=not passage.kept, bold=passage.kept)
        console.print(Rule(style="dim", characters="-"))
        console.print(Text(shown(f"{_verdict(passage)}  {passage.heading}"), style))
        text = Text()
        for piece in passage.pieces:
            cut = passage.kept and not piece.kept and not piece.text.isspace()
            marked = f"[-{piece.text}-]" if cut and console.color_system is None else piece.text
            text.append(shown(marked), _style(piece))
        console.print(Padding(text, (0, 0, 0, 2)))


def html_view(result: PruneResult, *, page: bool) -> str:
    """Return the same as HTML that loads nothing: a whole page, or what a notebook shows."""
    every = list(passages(result))
    shown = every if page else every[:MOST_SHOWN]
    return render_page(
        "result.html.jinja",
        page=page,
        query=visible(result.query),
        summary=[visible(line) for line in (str(result), *result.notes)],
        passages=shown,
        more=len(every) - len(shown),
        verdict=_verdict,
    )


def _heading(chunk: ScoredChunk) -> str:
    return chunk.title or chunk.id or f"passage {chunk.index + 1}"


def _pieces(chunk: ScoredChunk, kept: bool, sentences: Sequence[ScoredSentence]) -> Iterator[Piece]:
    """Cut a chunk's text where a kept span or a sentence starts or ends."""
    spans = [(0, len(chunk.text))] if chunk.spans is None else chunk.spans
    spans = spans if kept else ()
    edges = {0, len(chunk.text)}
    for start, end in [*spans, *((one.start, one.end) for one in sentences)]:
        edges |= {start, end}
    likely = {one.start: one.probability for one in sentences}
    gaps = {one.end for one in sentences}
    kept_from, cut_from = {start for start, _ in spans}, {end for _, end in spans}
    is_kept, probability = False, None
    for start, end in pairwise(sorted(edges)):
        is_kept = start in kept_from or (is_kept and start not in cut_from)
        probability = likely.get(start, None if start in gaps else probability)
        yield Piece(visible(chunk.text[start:end]), is_kept, probability)


def _verdict(passage: Passage) -> str:
    number = passage.score if passage.probability is None else passage.probability
    shown = "-" if math.isnan(number) else f"{number:.2f}"
    return f"{'kept' if passage.kept else 'dropped':7} {shown}"


def _style(piece: Piece) -> Style:
    if not piece.kept:
        return Style(dim=True, strike=True)
    return Style(bold=piece.probability is not None and piece.probability >= LIKELY)
