"""Which tokens of a prompt are those of the chunks' sentences.

Two rules, since attention is taken from two things. In a causal prompt a sentence's tokens are
those whose characters overlap it, so that a token on a border counts for both sides
(`prompt_spans`). States of chunks that were read alone are cut into parts that hold each token
once, so that masses add up (`sentence_parts`): a token belongs to the sentence in which its first
character that isn't white space stands, or of white space alone, in which it starts. What belongs
to no sentence (title, white space between sentences, separator) is the rest.
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
from at2_rag.text.sentences import sentence_spans
from at2_rag.text.units import Place

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class SourcePart:
    """Tokens of a source whose attention is counted separately.

    The source is read as a whole; the question's attention to the part is kept apart from that to
    the rest of the source.

    Attributes:
        source: Index of the source in its layout.
        start: The part's first token within the source.
        end: The part's end, exclusive; an empty part gets no attention.
    """

    source: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class SentenceParts:
    """The tokens of an independent layout, split at the sentences of its chunks.

    Attributes:
        parts: Tokens of sentences. In a chunk of several windows a sentence has a part for each
            window that has all of it or, if none has, for each that has some of it.
        owners: For each part its sentence's index, ascending; every sentence has a part, empty if
            it has no token.
        rest: All other tokens, in as few parts as possible.
    """

    parts: tuple[SourcePart, ...]
    owners: tuple[int, ...]
    rest: tuple[SourcePart, ...]


def sentence_places(chunks: Sequence[Chunk]) -> list[Place]:
    """Return the chunks' sentences in order: chunk index, start and end; a blank chunk has none."""
    return [(i, *span) for i, chunk in enumerate(chunks) for span in sentence_spans(chunk.text)]


def tokens_over(tokens: Sequence[Span], span: Span) -> Span | None:
    """Return the half-open range of the tokens that overlap a range of characters; None for none.

    Args:
        tokens: Each token's half-open range of characters; starts and ends ascend.
        span: The range of characters.
    """
    first = bisect_right(tokens, span[0], key=itemgetter(1))
    last = bisect_left(tokens, span[1], key=itemgetter(0))
    return (first, last) if first < last else None


def prompt_spans(
    prompts: PromptBuilder,
    layout: PromptLayout,
    chunks: Sequence[Chunk],
    sentences: Sequence[Place],
) -> list[Span]:
    """Return the spans of the sentences' tokens in the ids of a joint prompt.

    Args:
        prompts: The builder of the layout.
        layout: The joint prompt.
        chunks: Its chunks.
        sentences: Their sentences.
    """
    starts = [first for first, _ in layout.source_spans]
    tokens = {
        index: prompts.token_spans(chunks[index])
        for index in dict.fromkeys(index for index, _, _ in sentences)
    }
    spans = []
    for index, start, end in sentences:
        title = _before_text(chunks[index])
        first, last = tokens_over(tokens[index], (title + start, title + end)) or (0, 0)
        spans.append((starts[index] + first, starts[index] + last))
    return spans


def sentence_parts(
    prompts: PromptBuilder,
    layout: PromptLayout,
    chunks: Sequence[Chunk],
    sentences: Sequence[Place],
) -> SentenceParts:
    """Split the sources of an independent layout at the sentences of its chunks.

    Args:
        prompts: The builder of the layout.
        layout: The independent layout.
        chunks: Its chunks.
        sentences: Their sentences, in order.
    """
    pieces_of: list[list[SourcePart]] = [[] for _ in sentences]
    rest: list[SourcePart] = []
    sizes = [0] * len(sentences)
    numbers_of: dict[int, list[int]] = {}
    for number, (index, _, _) in enumerate(sentences):
        numbers_of.setdefault(index, []).append(number)
    firsts: dict[int, int] = {}
    for source, owner in enumerate(layout.owners):
        firsts.setdefault(owner, source)
    for owner, first in firsts.items():
        numbers = numbers_of.get(owner, [])
        labels = _owners_of_tokens(prompts, chunks[owner], [(n, sentences[n]) for n in numbers])
        counts = Counter(labels)
        for number in numbers:
            sizes[number] = counts[number]
        size = len(layout.source_ids[first])
        for source, start in enumerate(window_starts(len(labels), size), start=first):
            for label, run in groupby(
                range(start, min(start + size, len(labels))), labels.__getitem__
            ):
                tokens = list(run)
                part = SourcePart(source, tokens[0] - start, tokens[-1] + 1 - start)
                (rest if label is None else pieces_of[label]).append(part)
    parts: list[SourcePart] = []
    owners: list[int] = []
    for number, (pieces, size) in enumerate(zip(pieces_of, sizes, strict=True)):
        whole = [piece for piece in pieces if piece.end - piece.start == size]
        chosen = whole or pieces or [SourcePart(firsts[sentences[number][0]], 0, 0)]
        rest += [piece for piece in pieces if piece not in chosen]
        parts += chosen
        owners += [number] * len(chosen)
    return SentenceParts(tuple(parts), tuple(owners), tuple(rest))


def _owners_of_tokens(
    prompts: PromptBuilder, chunk: Chunk, sentences: Sequence[tuple[int, Place]]
) -> list[int | None]:
    """Return for each token of a chunk the number of its sentence; None for none."""
    title, text = _before_text(chunk), chunk.rendered + CHUNK_END
    starts = [title + start for _, (_, start, _) in sentences]
    owners: list[int | None] = []
    for first, last in prompts.token_spans(chunk):
        piece = text[first:last]
        position = first + (len(piece) - len(piece.lstrip()) if piece.strip() else 0)
        before = bisect_right(starts, position) - 1
        inside = before >= 0 and position < title + sentences[before][1][2]
        owners.append(sentences[before][0] if inside else None)
    return owners


def _before_text(chunk: Chunk) -> int:
    """Return the number of characters before a chunk's text: its title and a line break."""
    return len(chunk.rendered) - len(chunk.text)
