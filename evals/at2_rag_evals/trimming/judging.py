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


@dataclass(frozen=True, slots=True)
class Cut:
    """How sentences are chosen: by one of three limits.

    Attributes:
        share: Most tokens, as a share of those of the best chunks.
        min_probability: The pruner's.
        max_missed: The pruner's.
        multi_hop: Whether the question is asked again beside the best chunk; None for where a
            max_missed does.
    """

    share: float | None = None
    min_probability: float | None = None
    max_missed: float | None = None
    multi_hop: bool | None = None

    @property
    def label(self) -> str:
        """What the report calls it."""
        parts = [] if self.share is None else [f"at most {self.share:g} of the tokens"]
        parts += (
            [] if self.min_probability is None else [f"min_probability {self.min_probability:g}"]
        )
        parts += [] if self.max_missed is None else [f"max_missed {self.max_missed:g}"]
        asked = {None: [], True: ["asked again"], False: ["asked once"]}[self.multi_hop]
        return ", ".join([*parts, *asked])

    def prune(self, pruner: AT2Pruner, item: Example, chunk_tokens: int) -> PruneResult:
        """Return the sentences that are kept of an item.

        Args:
            pruner: The pruner.
            item: The item.
            chunk_tokens: Tokens of its best chunks.
        """
        most = None if self.share is None else max(1, int(self.share * chunk_tokens))
        return pruner.prune(
            item.query,
            item.chunks,
            max_tokens=most,
            min_probability=self.min_probability,
            max_missed=self.max_missed,
            multi_hop=self.multi_hop,
            unit="sentence",
        )


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What became of an item with one number of chunks.

    Attributes:
        chunk_tokens: Tokens of the best chunks.
        sentence_tokens: Tokens of the sentences kept, of all chunks.
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

    Long-form answers are left out: one that was copied from a chunk, several sentences long, isn't
    held by any part of it.

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
    """Return for each number of chunks and each cut what became of each item, in order.

    Args:
        pruner: The pruner.
        items: See `trimmable_items`.
        top_k: Numbers of chunks.
        cuts: How sentences are chosen.
        multi_hop: Whether the question is asked again for whole chunks.
        progress: Called with the items done and in all.
    """
    found: dict[tuple[int, Cut], list[Trimmed]] = {
        (count, cut): [] for count in top_k for cut in cuts
    }
    progress(0, len(items))
    for done, item in enumerate(items, start=1):
        alike: dict[Cut, PruneResult] = {}
        for count in top_k:
            whole = pruner.prune(item.query, item.chunks, top_k=count, multi_hop=multi_hop)
            for cut in cuts:
                sentences = alike.get(cut) or cut.prune(pruner, item, whole.tokens_after)
                if cut.share is None:  # whatever the chunks take
                    alike[cut] = sentences
                found[count, cut].append(_judged(item, whole, sentences))
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
