"""Prunes items to whole chunks and to sentences in fewer tokens, and looks for the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from at2_rag.data.answers import contains_answer, findable_answers, normalise
from at2_rag.data.examples import Example
from at2_rag.pruner import AT2Pruner
from at2_rag.results import PruneResult
from at2_rag.text.chunks import DEFAULT_ELLIPSIS
from at2_rag_evals.items import ItemSet, usable_examples
from at2_rag_evals.trimming.request import Cut


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What is kept of an item as its best chunks, and as sentences of all chunks.

    The booleans say whether a reference answer is in the chunks, and in the sentences, and whether
    the latter are verbatim text of the chunks.
    """

    chunk_tokens: int
    sentence_tokens: int
    in_chunks: bool
    in_sentences: bool
    verbatim: bool


def trimmable_items(examples: Sequence[Example], *, limit: int | None = None) -> ItemSet:
    """Keep examples with a short reference answer that a chunk contains.

    A long-form answer, several sentences of a chunk, isn't in any part of it. Limit and errors as
    in `usable_examples`.
    """
    items, left_out = usable_examples(examples, _reason_to_leave_out, limit=limit)
    return ItemSet("natural size", items, left_out)


def _reason_to_leave_out(example: Example) -> str | None:
    answers = findable_answers(example.answers)
    if example.long_form:
        return "long-form answer"
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
    cuts: Sequence[Cut],
    multi_hop: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[tuple[int, Cut], list[Trimmed]]:
    """Return the results for each number of chunks and each cut, one for each item, in order.

    `multi_hop` is the pruner's option for whole chunks; `progress` is called with the items done
    and in all.
    """
    results: dict[tuple[int, Cut], list[Trimmed]] = {
        (count, cut): [] for count in top_k for cut in cuts
    }
    progress(0, len(items))
    for done, item in enumerate(items, start=1):
        without_share = {cut: _cut(pruner, item, cut) for cut in cuts if cut.share is None}
        for count in top_k:
            whole = pruner.prune(item.query, item.chunks, top_k=count, multi_hop=multi_hop)
            for cut in cuts:
                sentences = without_share.get(cut) or _cut(pruner, item, cut, whole.tokens_after)
                results[count, cut].append(_judged(item, whole, sentences))
        progress(done, len(items))
    return results


def _cut(pruner: AT2Pruner, item: Example, cut: Cut, chunk_tokens: int = 0) -> PruneResult:
    """Prune an item to sentences; a share is one of `chunk_tokens`."""
    return pruner.prune(
        item.query,
        item.chunks,
        max_tokens=None if cut.share is None else max(1, int(cut.share * chunk_tokens)),
        min_probability=cut.min_probability,
        max_missed=cut.max_missed,
        multi_hop=cut.multi_hop,
        unit="sentence",
    )


def _judged(item: Example, whole: PruneResult, sentences: PruneResult) -> Trimmed:
    answers = findable_answers(item.answers)
    return Trimmed(
        chunk_tokens=whole.tokens_after,
        sentence_tokens=sentences.tokens_after,
        in_chunks=contains_answer(normalise(whole.context), answers),
        in_sentences=contains_answer(normalise(sentences.context), answers),
        verbatim=all(is_verbatim(kept.text, kept.kept_text, kept.spans) for kept in sentences.kept),
    )


def is_verbatim(text: str, kept: str, spans: Sequence[tuple[int, int]] | None) -> bool:
    """Return whether `kept` is the spans of `text` in turn, joined by ellipses or spaces."""
    position = 0
    for start, end in [(0, len(text))] if spans is None else spans:
        part = text[start:end]
        index = kept.find(part, position)
        if index < 0 or kept[position:index].strip() not in ("", DEFAULT_ELLIPSIS):
            return False
        position = index + len(part)
    return position == len(kept)
