"""Whether a prediction declines to answer."""

from __future__ import annotations

from at2_rag.data.answers import normalise

PHRASES = (
    "i dont know",
    "i do not know",
    "unknown",
    "unanswerable",
    "no answer",
    "no information",
    "not enough information",
    "insufficient information",
    "cannot answer",
    "can not answer",
    "cant answer",
    "unable to answer",
    "cannot be answered",
    "can not be answered",
    "cannot be determined",
    "not mentioned",
    "not specified",
    "not stated",
    "not provided",
    "not given",
    "do not contain",
    "does not contain",
    "dont contain",
    "doesnt contain",
    "do not mention",
    "does not mention",
    "dont mention",
    "doesnt mention",
    "do not provide",
    "does not provide",
    "dont provide",
    "doesnt provide",
    "do not say",
    "does not say",
    "dont say",
    "doesnt say",
)
"""What declining sounds like, normalised."""


def abstains(prediction: str) -> float:
    """Return 1 if the prediction says that it has no answer, else 0.

    It does if it holds one of `PHRASES` as a contiguous run of tokens, both normalised as answers
    are. J. Chen et al., "Benchmarking Large Language Models in Retrieval-Augmented Generation"
    (RGB), AAAI 2024, count a rejection by such a sentence, which they tell the generator to say.
    An empty prediction declines nothing.
    """
    straight = prediction.replace("’", "'")
    text = f" {normalise(straight)} "
    return float(any(f" {phrase} " in text for phrase in PHRASES))
