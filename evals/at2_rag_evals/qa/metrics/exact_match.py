"""Whether a prediction is a reference answer."""

from __future__ import annotations

from collections.abc import Sequence

from at2_rag.data.answers import normalise


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """Return 1 if the prediction equals a reference answer once both are normalised, else 0.

    P. Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine Comprehension of Text", EMNLP 2016,
    section 6.1.
    """
    normalised = normalise(prediction)
    return float(any(normalise(answer) == normalised for answer in answers))
