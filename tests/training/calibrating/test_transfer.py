"""One max_missed on sources that it was chosen without."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from at2_rag.options import PruneOptions
from at2_rag.selection.select import select
from at2_rag.training.calibrating.probabilities import CalibrationSample
from at2_rag.training.calibrating.study import Prediction, fit_without, study_left_out_sources
from tests.training.calibrating.drawn_samples import SHAPE


def drawn(source: str, count: int, seed: int, *, clear: float = 1.2) -> list[CalibrationSample]:
    """Draw samples, with two twins each, of which a feature tells the gold chunks."""
    rng = np.random.default_rng(seed)
    samples = []
    for number in range(count):
        size = int(rng.integers(4, 9))
        gold = np.zeros(size, dtype=bool)
        gold[rng.choice(size, int(rng.integers(1, 3)), replace=False)] = True
        features = rng.normal(0, 1, (size, 4)).astype(np.float32)
        features[:, 0] += clear * gold
        words, fold = rng.integers(20, 120, size), number % 3
        samples.append(
            CalibrationSample(source, fold, features, gold, words, relevant=gold, example=number)
        )
        for answer in (True, False):
            twin = rng.normal(0, 1, (size, 4)).astype(np.float32)
            twin[0, 0] += clear * answer
            none = np.zeros(size, dtype=bool)
            samples.append(CalibrationSample(source, fold, twin, none, words, answerable=answer))
    return samples


def kept(predictions: Sequence[Prediction], max_missed: float) -> tuple[list[float], list[float]]:
    """Return the share of gold chunks and the words that the selection itself keeps of each."""
    gold, words = [], []
    for one in predictions:
        chosen = select(
            one.scores, PruneOptions(max_missed=max_missed), probabilities=one.probabilities
        )
        indices = list(chosen.kept)
        gold.append(float(one.sample.gold[indices].sum() / one.sample.gold.sum()))
        words.append(float(one.sample.words[indices].sum()))
    return gold, words


def test_the_figures_are_those_of_pruning_with_the_others_max_missed() -> None:
    samples = [*drawn("a", 40, 0), *drawn("b", 40, 1, clear=1.6), *drawn("c", 40, 2, clear=0.9)]
    further = drawn("b", 25, 3, clear=1.6)
    _, figures = study_left_out_sources(samples, SHAPE, further)
    assert [(row.source, row.split, row.calls) for row in figures] == [
        ("a", "fitted", 40),
        ("b", "fitted", 40),
        ("b", "judged", 25),
        ("c", "fitted", 40),
    ]
    for row in figures:
        predict, others = fit_without(row.source, samples, SHAPE)
        ranked = [one for one in others if one.sample.is_ranked]
        # Both other sources have as many samples, so the mean over samples is that over sources.
        gold, words = kept(ranked, row.max_missed)
        assert np.mean(gold) >= 0.9
        for larger in row.max_missed + np.linspace(0, 2, 41):
            fewer, shorter = kept(ranked, larger)
            assert np.mean(fewer) < 0.9 or shorter == words
        every = further if row.split == "judged" else samples
        predictions = [predict(one) for one in every if one.source == row.source and one.is_ranked]
        gold, words = kept(predictions, row.max_missed)
        assert row.kept_gold == pytest.approx(np.mean(gold))
        assert row.words == pytest.approx(np.mean(words))
        tuned_gold, tuned_words = kept(predictions, row.tuned_max_missed)
        assert row.tuned_kept_gold == pytest.approx(np.mean(tuned_gold))
        assert row.tuned_kept_gold >= 0.9
        assert row.words_ratio == pytest.approx(sum(words) / sum(tuned_words))
        low, high = row.kept_gold_interval
        assert low <= row.kept_gold <= high
        error = np.std(gold) / math.sqrt(len(gold))
        assert high - low == pytest.approx(2 * 1.96 * error, rel=0.2)
        assert row.words_ratio_interval[0] <= row.words_ratio <= row.words_ratio_interval[1]
