"""The words that a generator is asked with; the same for every generator and pruner."""

from __future__ import annotations

from collections.abc import Sequence

from at2_rag.chunks import DEFAULT_SEPARATOR, Chunk, replace_surrogates

WITH_PASSAGES = "Answer the question briefly, using only the passages below."
ALONE = "Answer the question briefly."
YES_OR_NO = "Begin with yes or no if the question asks for it."
DECLINE = "If you can't find the answer, say: I don't know."
QUESTION = "Question: "


def prompt_text(query: str, chunks: Sequence[Chunk], *, may_decline: bool) -> str:
    """Return what the user says to the generator.

    Args:
        query: The question.
        chunks: What was kept, in order; none for the question alone.
        may_decline: Whether to tell the generator how to say that there is no answer.
    """
    instruction = f"{WITH_PASSAGES if chunks else ALONE} {YES_OR_NO}"
    if may_decline:
        instruction = f"{instruction} {DECLINE}"
    parts = [instruction, *(chunk.rendered for chunk in chunks), QUESTION + query]
    return replace_surrogates(DEFAULT_SEPARATOR.join(parts))
