"""Fits sentence weights. No model is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from at2_rag.arrays import Bools, Floats
from at2_rag.data.answers import contains_answer, findable_answers, normalise
from at2_rag.data.examples import Example
from at2_rag.readout.calibration import RISING, chunk_terms
from at2_rag.readout.sentence_weights import SentenceWeights, sentence_terms
from at2_rag.text.units import unit_spans
from at2_rag.training.calibrating.fits import Labelled, fit_logistic, fit_ranking, out_of_fold
from at2_rag.training.calibrating.probabilities import ScoredSample

RIDGE = 1e-3  # on the three numbers, of standardised terms


def gold_sentences(example: Example) -> Bools | None:
    """Return which units of the chunks' texts hold evidence, [U]; None where that isn't known.

    Evidence is what overlaps a sentence that the file names; where it names none, the units of gold
    chunks that hold a reference answer.
    """
    units = unit_spans(example.chunks)
    if any(example.gold_sentences):
        named = [example.gold_spans(index) for index in range(len(example.chunks))]
        gold = [
            any(first < end and start < last for first, last in named[index])
            for index, start, end in units
        ]
    else:
        answers = findable_answers(example.answers)
        gold = [
            example.labels[index]
            and contains_answer(normalise(example.chunks[index].text[start:end]), answers)
            for index, start, end in units
        ]
    return np.array(gold, dtype=bool) if any(gold) else None


def sentence_samples(
    scored: Sequence[ScoredSample],
    examples: Sequence[Example],
    sentence_scores: Mapping[int, npt.NDArray[np.float32]],
    after: Mapping[int, Floats],
) -> list[Labelled]:
    """Return the sentences of lists as retrieved, [U, 3], and which of them hold evidence.

    Left out are questions of which that isn't known. A sample that was read a second time counts
    twice, with its scores before and after, so that weights and probabilities suit both. Sentence
    scores [U] are by an example's index, scores `after` the second reading [S] by a sample's.
    """
    result = []
    for index, (sample, first, _) in enumerate(scored):
        if not sample.is_retrieved or sample.question not in sentence_scores:
            continue
        example = examples[sample.question]
        gold = gold_sentences(example)
        if gold is None:
            continue
        owners = [chunk for chunk, _, _ in unit_spans(example.chunks)]
        for scores in (first, *([after[index]] if index in after else [])):
            terms = sentence_terms(first, scores, sentence_scores[sample.question], owners)
            result.append(Labelled(sample.source, sample.fold, terms, gold))
    return result


def fit_sentences(samples: Sequence[Labelled]) -> SentenceWeights:
    """Return the sentence weights that make sentences with evidence likeliest.

    Scores minimise the listwise loss, every sample counting the same; probabilities are fitted to
    scores by weights that were fitted without the sample's fold, every source counting the same.
    """
    scored = []
    for sample, weights in zip(samples, out_of_fold(samples, _fit), strict=True):
        scores = sample.terms @ np.array(weights)
        scored.append(sample._replace(terms=chunk_terms(scores)))
    likely = fit_logistic(scored, name="sentence's gold label", rising=RISING)
    return SentenceWeights(_fit(samples), likely)


def _fit(samples: Sequence[Labelled]) -> tuple[float, ...]:
    fit = fit_ranking(samples, name="sentence weights", ridge=RIDGE)
    *of_chunk, of_sentence = fit.weight.tolist()
    return (*of_chunk, max(0.0, of_sentence))
