"""Fits sentence weights. Pure numbers, no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from at2_rag.data.answers import contains_answer, findable_answers, normalise
from at2_rag.data.examples import Example
from at2_rag.errors import InputError
from at2_rag.readout.calibration import RISING, chunk_terms
from at2_rag.readout.sentence_weights import SentenceWeights
from at2_rag.text.units import unit_places
from at2_rag.training.calibrating.fit import PENALTY, logistic_fit
from at2_rag.training.fitting.fit import fit_listwise
from at2_rag.training.fitting.losses import ListwiseData
from at2_rag.training.fitting.validation import source_weights

RIDGE = 1e-3
"""Ridge penalty on the three numbers, of standardised terms."""

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class SentenceCall:
    """The sentences of one call, at least one, after one reading or two.

    Attributes:
        source: The data set it is from.
        fold: Its fold.
        terms: [U, 3], its sentences' `SENTENCE_TERMS`.
        evidence: The greatest evidence logit of the call's sources.
        gold: [U] bool, whether each sentence holds evidence.
    """

    source: str
    fold: int
    terms: Floats
    evidence: float
    gold: Bools


def gold_sentences(example: Example) -> Bools | None:
    """Return which units of the chunks' texts hold evidence, [U]; None where that isn't known.

    Evidence is what overlaps a sentence that the file names; where it names none, the units of gold
    chunks that a reference answer stands in.
    """
    places = unit_places(example.chunks)
    if any(example.gold_sentences):
        named = [example.gold_spans(index) for index in range(len(example.chunks))]
        found = [
            any(first < end and start < last for first, last in named[index])
            for index, start, end in places
        ]
    else:
        answers = findable_answers(example.answers)
        found = [
            example.labels[index]
            and contains_answer(normalise(example.chunks[index].text[start:end]), answers)
            for index, start, end in places
        ]
    return np.array(found, dtype=bool) if any(found) else None


def fit_sentences(calls: Sequence[SentenceCall]) -> SentenceWeights:
    """Return the sentence weights under which sentences with evidence are likeliest.

    Scores minimise the listwise loss of `training.fit`; probabilities are fitted to scores by
    weights that were fitted without the call's fold. Every source counts the same, and of a source
    every call.

    Args:
        calls: The calls, of at least two folds.

    Raises:
        InputError: If no call, or none beside a fold, has sentences with evidence and without.
    """
    weights_of_all = _fit(calls)
    fits = {
        fold: _fit([own for own in calls if own.fold != fold]) for fold in {c.fold for c in calls}
    }
    scores = [own.terms @ np.array(fits[own.fold]) for own in calls]
    sizes = [len(own) for own in scores]
    weights = np.repeat(source_weights([own.source for own in calls]) / sizes, sizes)
    likely = logistic_fit(
        np.concatenate(
            [chunk_terms(own, call.evidence) for own, call in zip(scores, calls, strict=True)]
        ),
        np.concatenate([own.gold for own in calls]),
        weights,
        PENALTY,
        rising=RISING,
    )
    return SentenceWeights(weights_of_all, likely)


def _fit(calls: Sequence[SentenceCall]) -> tuple[float, ...]:
    chosen = [own for own in calls if 0 < own.gold.sum() < len(own.gold)]
    if not chosen:
        raise InputError(
            "sentence weights can't be fitted: there is no call with sentences that hold evidence "
            "and others; pass more examples, or leave --sentences off"
        )
    fit = fit_listwise(
        ListwiseData(
            np.concatenate([own.terms for own in chosen]).astype(np.float32),
            np.concatenate([own.gold for own in chosen]),
            np.array([len(own.gold) for own in chosen]),
            source_weights([own.source for own in chosen]),
        ),
        ridge=RIDGE,
    )
    *of_chunk, own_score = fit.weight.tolist()
    return (*of_chunk, max(0.0, own_score))
