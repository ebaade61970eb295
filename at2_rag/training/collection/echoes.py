"""Chunks that repeat a question and answer nothing, as pages that are made to be found do."""

from __future__ import annotations

import numpy as np

from at2_rag.text.chunks import Chunk

ECHOES = (
    "{question} Sign in to read the replies. Fourteen people follow this topic.",
    "Re: {question}\n\nI wonder about the same thing. Has anybody found out?",
    "Search results for: {question}\n\nSorted by date, page 1 of 7.",
    "{question}\n\nThis entry has no text yet. You can help by writing one.",
    "In this chapter we ask: {question} The full edition has more on this and other topics.",
    "Tags: {question} Share this page with your friends, or subscribe to our letter.",
)


def echo_of(question: str, rng: np.random.Generator) -> Chunk:
    """Return a chunk, of one of the `ECHOES`, that repeats the question."""
    return Chunk(ECHOES[int(rng.integers(len(ECHOES)))].replace("{question}", question.strip()))
