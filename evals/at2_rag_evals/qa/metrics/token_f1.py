"""How many tokens a prediction shares with a reference answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from at2_rag.data.answers import normalise


def token_f1(prediction: str, answers: Sequence[str]) -> float:
    """Return the harmonic mean of token precision and recall, against the best reference answer.

    P. Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine Comprehension of Text", EMNLP 2016,
    section 6.1; texts that normalise to nothing equal each other and nothing else, as in its
    second version's script. 0 without answers.
    """
    words = normalise(prediction).split()
    return max((_f1(words, normalise(answer).split()) for answer in answers), default=0.0)


def _f1(words: Sequence[str], answer: Sequence[str]) -> float:
    if not words or not answer:
        return float(words == answer)
    shared = sum((Counter(words) & Counter(answer)).values())
    return 2 * shared / (len(words) + len(answer))
