"""Which tokens of a prompt are those of the chunks' sentences.

In a joint prompt a token on a border counts for both sentences. Chunks that were read alone are cut
into parts that hold each token once, so that masses add up: a token belongs to the sentence of its
first character that isn't white space. Tokens of no sentence (title, separator) are the rest.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from at2_rag.prompt.layout import CHUNK_END, PromptBuilder, PromptLayout, window_starts
from at2_rag.text.chunks import Chunk
from at2_rag.text.sentences import Span, sentence_spans
from at2_rag.text.units import UnitSpan


@dataclass(frozen=True, slots=True)
class SourcePart:
    """Tokens of a source; the question's attention to them is kept apart from that to the rest."""

    source: int  # index of the source, which is read as a whole, in its layout
    start: int  # first token within the source
    end: int  # exclusive; an empty part gets no attention


@dataclass(frozen=True, slots=True)
class SentenceParts:
    """The tokens of an independent layout, split at the sentences of its chunks.

    In a chunk of several windows a sentence has a part for each window that has all of it or, if
    none has, for each that has some of it. A sentence without tokens has an empty part.
    """

    parts: tuple[SourcePart, ...]
    owners: tuple[int, ...]  # for each part its sentence's index, ascending
    rest: tuple[SourcePart, ...]  # all other tokens, in as few parts as possible


def sentence_spans_of(chunks: Sequence[Chunk]) -> list[UnitSpan]:
    """Return the chunks' sentences in order: chunk index, start and end; a blank chunk has none."""
    return [(i, *span) for i, chunk in enumerate(chunks) for span in sentence_spans(chunk.text)]


def tokens_over(tokens: Sequence[Span], span: Span) -> Span | None:
    """Return the half-open range of the tokens that overlap a range of characters; None for none.

    `tokens` are the tokens' half-open ranges of characters; starts and ends ascend.
    """
    first = bisect_right(tokens, span[0], key=itemgetter(1))
    last = bisect_left(tokens, span[1], key=itemgetter(0))
    return (first, last) if first < last else None


def prompt_spans(
    prompts: PromptBuilder,
    layout: PromptLayout,
    chunks: Sequence[Chunk],
    sentences: Sequence[UnitSpan],
) -> list[Span]:
    """Return the spans of the sentences' tokens in the ids of a joint prompt of the chunks."""
    sources = layout.source_spans
    spans = []
    for index, group in groupby(sentences, key=itemgetter(0)):
        tokens, title = prompts.token_spans(chunks[index]), _before_text(chunks[index])
        for _, start, end in group:
            first, last = tokens_over(tokens, (title + start, title + end)) or (0, 0)
            spans.append((sources[index][0] + first, sources[index][0] + last))
    return spans


def sentence_parts(
    prompts: PromptBuilder,
    layout: PromptLayout,
    chunks: Sequence[Chunk],
    sentences: Sequence[UnitSpan],
) -> SentenceParts:
    """Split the sources of an independent layout of chunks at their sentences, passed in order."""
    pieces_of: list[list[SourcePart]] = [[] for _ in sentences]
    rest: list[SourcePart] = []
    sizes: Counter[int | None] = Counter()
    for index, windows in groupby(range(len(layout.owners)), key=layout.owners.__getitem__):
        first, *others = windows
        labels = _sentence_of_tokens(prompts, index, chunks[index], sentences)
        sizes.update(labels)
        size = len(layout.source_ids[first])
        for source, start in zip([first, *others], window_starts(len(labels), size), strict=True):
            window = range(start, min(start + size, len(labels)))
            for label, run in groupby(window, key=labels.__getitem__):
                tokens = list(run)
                part = SourcePart(source, tokens[0] - start, tokens[-1] + 1 - start)
                (rest if label is None else pieces_of[label]).append(part)
    parts: list[SourcePart] = []
    owners: list[int] = []
    for number, pieces in enumerate(pieces_of):
        whole = [piece for piece in pieces if piece.end - piece.start == sizes[number]]
        chosen = whole or pieces or [SourcePart(layout.owners.index(sentences[number][0]), 0, 0)]
        rest += [piece for piece in pieces if piece not in chosen]
        parts += chosen
        owners += [number] * len(chosen)
    return SentenceParts(tuple(parts), tuple(owners), tuple(rest))


def _sentence_of_tokens(
    prompts: PromptBuilder, index: int, chunk: Chunk, sentences: Sequence[UnitSpan]
) -> list[int | None]:
    """Return for each token of a chunk the number of its sentence; None for none."""
    title, text = _before_text(chunk), chunk.rendered + CHUNK_END
    numbers: list[int | None] = []
    for first, last in prompts.token_spans(chunk):
        piece = text[first:last]
        position = first + len(piece) - len(piece.lstrip() or piece) - title
        number = bisect_right(sentences, (index, position), key=itemgetter(0, 1)) - 1
        inside = number >= 0 and sentences[number][0] == index and position < sentences[number][2]
        numbers.append(number if inside else None)
    return numbers


def _before_text(chunk: Chunk) -> int:
    """Return the number of characters before a chunk's text: its title and a line break."""
    return len(chunk.rendered) - len(chunk.text)
