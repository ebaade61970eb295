"""Metrics of one item's answer or of what was kept for it; each is between 0 and 1.

Answers are normalised as in P. Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine
Comprehension of Text", EMNLP 2016: lower case, no ASCII punctuation, no articles.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from at2_rag.data.answers import normalise

YES_NO = frozenset({"yes", "no"})

PHRASES = (
    *("i dont know", "i do not know", "unknown", "unanswerable", "unable to answer"),
    *("no answer", "no information", "not enough information", "insufficient information"),
    *("cannot answer", "can not answer", "cant answer", "cannot be determined"),
    *("cannot be answered", "can not be answered"),
    *(f"not {verb}" for verb in ("mentioned", "specified", "stated", "provided", "given")),
    *(
        f"{negation} {verb}"
        for negation in ("do not", "does not", "dont", "doesnt")
        for verb in ("contain", "mention", "provide", "say")
    ),
)
"""What declining sounds like, normalised."""


def answer_contained(prediction: str, answers: Sequence[str]) -> float:
    """Return 1 if the prediction contains a reference answer, else 0: the primary metric.

    An answer is contained if its normalised tokens are a contiguous run of the prediction's, so
    "party" doesn't contain "art". A yes or no has to be the prediction's first token, since "no" is
    a word of many wrong answers. Answers that normalise to nothing are never contained.
    """
    words = normalise(prediction).split()
    return float(any(_contains(words, normalise(answer).split()) for answer in answers))


def _contains(words: Sequence[str], answer: Sequence[str]) -> bool:
    if len(answer) == 1 and answer[0] in YES_NO:
        return words[:1] == answer
    size = len(answer)
    return size > 0 and any(
        words[start : start + size] == answer for start in range(len(words) - size + 1)
    )


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """Return 1 if the prediction equals a reference answer once both are normalised, else 0."""
    normalised = normalise(prediction)
    return float(any(normalise(answer) == normalised for answer in answers))


def token_f1(prediction: str, answers: Sequence[str]) -> float:
    """Return the harmonic mean of token precision and recall, against the best reference answer.

    Texts that normalise to nothing equal each other and nothing else, as in the script of SQuAD
    2.0. 0 without answers.
    """
    words = normalise(prediction).split()
    return max((_f1(words, normalise(answer).split()) for answer in answers), default=0.0)


def _f1(words: Sequence[str], answer: Sequence[str]) -> float:
    if not words or not answer:
        return float(words == answer)
    shared = sum((Counter(words) & Counter(answer)).values())
    return 2 * shared / (len(words) + len(answer))


def abstains(prediction: str) -> float:
    """Return 1 if the prediction declines to answer, else 0.

    It does if it contains one of `PHRASES` as a run of normalised tokens. An empty prediction
    declines nothing.
    """
    straight = prediction.replace("’", "'")
    text = f" {normalise(straight)} "
    return float(any(f" {phrase} " in text for phrase in PHRASES))


def gold_recall(kept: Iterable[int], labels: Sequence[bool]) -> float | None:
    """Return the share of the gold chunks whose indices are in `kept`; None without gold."""
    gold = {index for index, label in enumerate(labels) if label}
    return len(gold.intersection(kept)) / len(gold) if gold else None
