"""The prompt that generators answer, the same for every generator and pruner."""

from __future__ import annotations

import re
from collections.abc import Sequence

from at2_rag.text.chunks import DEFAULT_SEPARATOR, Chunk, replace_surrogates

WITH_PASSAGES = "Answer the question briefly, using only the passages below."
ALONE = "Answer the question briefly."
YES_OR_NO = "Begin with yes or no."
DECLINE = "If you can't find the answer, say: I don't know."
QUESTION = "Question: "

_YES_OR_NO_QUESTION = re.compile(
    r"\W*(?:am|are|can|could|did|do|does|had|has|have|is|may|might|must|shall|should|was|were|will"
    r"|would)(?:n't)?\b(?!\s+you\b)(?!.*\bor\b)",
    re.IGNORECASE | re.DOTALL,
)


def prompt_text(query: str, chunks: Sequence[Chunk], *, may_decline: bool) -> str:
    """Return the user's message to the generator.

    Where the question calls for yes or no, the generator is told to begin with that, since such an
    answer is judged by its first word.

    Args:
        query: The question.
        chunks: What was kept, in order; none for the question alone.
        may_decline: Whether to tell the generator how to say that there is no answer.
    """
    instructions = [WITH_PASSAGES if chunks else ALONE]
    instructions += [YES_OR_NO] if asks_yes_or_no(query) else []
    instructions += [DECLINE] if may_decline else []
    parts = [" ".join(instructions), *(chunk.rendered for chunk in chunks), QUESTION + query]
    return replace_surrogates(DEFAULT_SEPARATOR.join(parts))


def asks_yes_or_no(query: str) -> bool:
    """Tell whether a question begins with an auxiliary verb and names no alternatives.

    "Was Emma published in 1815?" does; "Was it Emma or Persuasion?" and "Can you name ...?" don't.
    English only.
    """
    return _YES_OR_NO_QUESTION.match(query) is not None
