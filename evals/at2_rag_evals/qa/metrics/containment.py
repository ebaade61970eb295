"""Whether a prediction holds a reference answer: the primary metric."""

from __future__ import annotations

from collections.abc import Sequence

from at2_rag.data.answers import normalise

YES_NO = frozenset({"yes", "no"})


def answer_contained(prediction: str, answers: Sequence[str]) -> float:
    """Return 1 if the prediction holds a reference answer, else 0.

    Both are normalised as in P. Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine
    Comprehension of Text", EMNLP 2016: lower case, no ASCII punctuation, no articles. An answer is
    held if its tokens are a contiguous run of the prediction's, so that "art" isn't held by
    "party"; without the bounds of tokens it is the accuracy of N. F. Liu et al., "Lost in the
    Middle", TACL 2024. A yes or no is held only by a prediction whose first token it is: "no" is a
    word of many wrong answers.

    Args:
        prediction: What the generator answered, cut to its first 32 tokens.
        answers: The reference answers; those that normalise to nothing are never held.
    """
    words = normalise(prediction).split()
    return float(any(_holds(words, normalise(answer).split()) for answer in answers))


def _holds(words: Sequence[str], answer: Sequence[str]) -> bool:
    if len(answer) == 1 and answer[0] in YES_NO:
        return words[:1] == answer
    size = len(answer)
    return size > 0 and any(
        words[start : start + size] == answer for start in range(len(words) - size + 1)
    )
