"""How much of a call's text the scoring model can hardly read, told by its tokenizer.

A tokenizer writes a word of a language that it was made for in a token or two, and one of another
language or script in many. By that of the default model a letter has a quarter of a token in
English, .45 in German, .6 in Polish, 1 in Arabic; a Chinese character has 2. What a model hardly
reads it may still rank, by what question and chunk have in common, but its probabilities were never
fitted to that: they are drawn to those of a call of which nothing is known, so that more is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from at2_rag.prompt.layout import INSTRUCTION, PromptBuilder, PromptLayout
from at2_rag.text.chunks import Chunk
from at2_rag.text.scripts import SYLLABLE

READ, UNREAD = 2.1, 3.0
"""Tokens a letter, as a multiple of those of English, up to which a text counts as read, and from
which it counts as not read at all."""

NOTED = 0.5
"""Share of a question or its chunks from which it is noted that they can hardly be read."""

FEWEST_LETTERS = 25
"""Letters of a text in ASCII from which its tokens say anything. In fewer, acronyms, names and
numbers ("CVE-2024-3094", "kubectl") take as many tokens as a foreign language."""

LETTERS_OF_SYLLABLE = 3
"""Letters that a Chinese, Japanese or Korean character counts for."""

MOST_DOUBT = 0.5
"""How far probabilities are drawn to those of a call of which nothing is known, where a text isn't
read at all."""


class Unread(NamedTuple):
    """How much of the letters of a call's question, and of all of its chunks, isn't read."""

    question: float = 0.0
    chunks: float = 0.0

    def doubt(self, known: float) -> float:
        """Return how far to draw probabilities to those of a call of which nothing is known.

        In [0, 1]. `known` is the share that wasn't read of the text that they were fitted to.
        """
        return MOST_DOUBT * max(0.0, max(self) - known)

    def note(self, known: float) -> str | None:
        """Return what to say of it; None where at most `NOTED` more than `known` isn't read."""
        if max(self) - known <= NOTED:
            return None
        return (
            f"{self.question:.0%} of the question and {self.chunks:.0%} of the chunks are in a "
            "language or script that the scoring model hardly reads, by its tokenizer: the "
            "probabilities say little, and more is kept. Use a model that reads it."
        )


class Legibility:
    """Compares texts with English, of which the prompt has a sentence, by a model's tokenizer."""

    def __init__(self, prompts: PromptBuilder) -> None:
        self._prompts = prompts
        self._english = _tokens_a_letter(len(prompts.text_spans(INSTRUCTION)), INSTRUCTION)

    def unread(self, layout: PromptLayout, query: str, chunks: Sequence[Chunk]) -> Unread:
        """Return how much isn't read of a question and the chunks that are laid out with it."""
        start, end = layout.target
        tokens = [0] * len(chunks)
        for ids, owner in zip(layout.source_ids, layout.owners, strict=True):
            tokens[owner] += len(ids)
        return self._unread(end - start, query, tokens, chunks)

    def unread_texts(self, query: str, chunks: Sequence[Chunk]) -> Unread:
        """Return the same of texts that aren't laid out."""
        length, *tokens = (
            len(self._prompts.text_spans(text))
            for text in (query, *(chunk.rendered for chunk in chunks))
        )
        return self._unread(length, query, tokens, chunks)

    def _unread(
        self, length: int, query: str, tokens: Sequence[int], chunks: Sequence[Chunk]
    ) -> Unread:
        texts = [chunk.rendered for chunk in chunks]
        shares = [self._share(count, text) for count, text in zip(tokens, texts, strict=True)]
        letters = [_letters(text) for text in texts]
        of_chunks = float(np.average(shares, weights=letters)) if any(letters) else 0.0
        return Unread(self._share(length, query), of_chunks)

    def _share(self, tokens: int, text: str) -> float:
        if text.isascii() and _letters(text) < FEWEST_LETTERS:
            return 0.0
        multiple = _tokens_a_letter(tokens, text) / self._english
        return float(np.clip((multiple - READ) / (UNREAD - READ), 0.0, 1.0))


def _tokens_a_letter(tokens: int, text: str) -> float:
    """Return tokens a letter of a text; digits, marks and signs, a token each, are left out."""
    others = sum(not (character.isalpha() or character.isspace()) for character in text)
    return max(0, tokens - others) / max(1, _letters(text))


def _letters(text: str) -> int:
    syllables = len(SYLLABLE.findall(text))
    return sum(map(str.isalpha, text)) + (LETTERS_OF_SYLLABLE - 1) * syllables
