"""Prunes items to whole chunks and to sentences in fewer tokens, and looks for the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from at2_rag.chunks import DEFAULT_ELLIPSIS, PruneResult
from at2_rag.pruner import AT2Pruner
from at2_rag.training.answers import contains_answer, findable_answers, normalise
from at2_rag.training.examples import Example
from at2_rag_evals.items import ItemSet, usable_examples


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What became of an item with one number of chunks.

    Attributes:
        chunk_tokens: Tokens of the best chunks.
        sentence_tokens: Tokens of what is kept of all chunks under the share of those.
        in_chunks: Whether the best chunks hold a reference answer.
        in_sentences: Whether the kept sentences do.
        verbatim: Whether all that is kept is the chunks' own text, to the letter.
    """

    chunk_tokens: int
    sentence_tokens: int
    in_chunks: bool
    in_sentences: bool
    verbatim: bool


def trimmable_items(examples: Sequence[Example], *, limit: int | None = None) -> ItemSet:
    """Keep examples with a reference answer that stands in a chunk.

    Args:
        examples: The files' examples.
        limit: Keep at most this many of each source, the first ones.

    Raises:
        DataError: If two examples of a source have the same id.
    """
    items, left_out = usable_examples(examples, _reason_to_leave_out, limit=limit)
    return ItemSet("natural size", items, left_out)


def _reason_to_leave_out(example: Example) -> str | None:
    answers = findable_answers(example.answers)
    if not answers:
        return "no answer to look for"
    if not any(contains_answer(normalise(chunk.text), answers) for chunk in example.chunks):
        return "no chunk holds the answer"
    return None


def judge_trimming(
    pruner: AT2Pruner,
    items: Sequence[Example],
    *,
    top_k: Sequence[int],
    share: float,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[int, list[Trimmed]]:
    """Return for each number of chunks what became of each item, in the items' order.

    Args:
        pruner: The pruner.
        items: See `trimmable_items`.
        top_k: Numbers of chunks.
        share: Most tokens of the sentences, as a share of those of the best chunks.
        progress: Called with the items done and in all.
    """
    found: dict[int, list[Trimmed]] = {count: [] for count in top_k}
    progress(0, len(items))
    for done, item in enumerate(items, start=1):
        for count in top_k:
            whole = pruner.prune(item.query, item.chunks, top_k=count)
            most = max(1, int(share * whole.tokens_after))
            cut = pruner.prune(item.query, item.chunks, max_tokens=most, unit="sentence")
            found[count].append(_judged(item, whole, cut))
        progress(done, len(items))
    return found


def _judged(item: Example, whole: PruneResult, cut: PruneResult) -> Trimmed:
    answers = findable_answers(item.answers)
    return Trimmed(
        chunk_tokens=whole.tokens_after,
        sentence_tokens=cut.tokens_after,
        in_chunks=contains_answer(normalise(whole.context), answers),
        in_sentences=contains_answer(normalise(cut.context), answers),
        verbatim=all(is_verbatim(own.text, own.kept_text, own.spans) for own in cut.kept),
    )


def is_verbatim(text: str, kept: str, spans: Sequence[tuple[int, int]] | None) -> bool:
    """Tell whether kept text is the parts of a text in turn, but for what stands between them."""
    place = 0
    for start, end in [(0, len(text))] if spans is None else spans:
        part = text[start:end]
        found = kept.find(part, place)
        if found < 0 or kept[place:found].strip() not in ("", DEFAULT_ELLIPSIS):
            return False
        place = found + len(part)
    return place == len(kept)
