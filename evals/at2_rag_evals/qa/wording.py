"""The prompt that generators answer, the same for every generator and pruner."""

from __future__ import annotations

import re
from collections.abc import Sequence

from at2_rag.text.chunks import DEFAULT_SEPARATOR, Chunk, replace_surrogates

_YES_OR_NO_QUESTION = re.compile(
    r"\W*(?:am|are|can|could|did|do|does|had|has|have|is|may|might|must|shall|should|was|were|will"
    r"|would)(?:n't)?\b(?!\s+you\b)(?!.*\bor\b)",
    re.IGNORECASE | re.DOTALL,
)


def prompt_text(query: str, chunks: Sequence[Chunk], *, may_decline: bool) -> str:
    """Return the user's message to the generator.

    A question for yes or no adds the instruction to begin with that, since such an answer is
    judged by its first word. `may_decline` adds how to say that there is no answer.
    """
    instructions = [
        "Answer the question briefly" + (", using only the passages below." if chunks else ".")
    ]
    if asks_yes_or_no(query):
        instructions.append("Begin with yes or no.")
    if may_decline:
        instructions.append("If you can't find the answer, say: I don't know.")
    passages = [chunk.rendered for chunk in chunks]
    parts = [" ".join(instructions), *passages, f"Question: {query}"]
    return replace_surrogates(DEFAULT_SEPARATOR.join(parts))


def asks_yes_or_no(query: str) -> bool:
    """Tell whether a question begins with an auxiliary verb and names no alternatives.

    "Was Emma published in 1815?" does; "Was it Emma or Persuasion?" and "Can you name ...?" don't.
    English only.
    """
    return _YES_OR_NO_QUESTION.match(query) is not None
