"""One max_missed on sources that it was chosen without."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from at2_rag.options import PruneOptions
from at2_rag.selection.select import select
from at2_rag.training.calibrating.study import Prediction, fit_without, study_left_out_sources
from tests.training.calibrating.drawn_samples import SHAPE, drawn, with_twins


def kept(predictions: Iterable[Prediction], max_missed: float) -> tuple[list[float], list[float]]:
    """Return the share of gold chunks and the words that the selection itself keeps of each."""
    gold, words = [], []
    options = PruneOptions(max_missed=max_missed, keep_if_unsure=None)
    for one in predictions:
        indices = list(select(one.scores, options, probabilities=one.probabilities).kept)
        gold.append(float(one.sample.gold[indices].sum() / one.sample.gold.sum()))
        words.append(float(one.sample.words[indices].sum()))
    return gold, words


def test_the_figures_are_those_of_pruning_with_the_others_max_missed() -> None:
    samples = [one for seed, name in enumerate("abc") for one in with_twins(drawn(80, seed, name))]
    further = with_twins(drawn(50, 3, "b"))
    _, figures = study_left_out_sources(samples, SHAPE, further)
    splits = [("a", "fitted"), ("b", "fitted"), ("b", "judged"), ("c", "fitted")]
    assert [(row.source, row.split) for row in figures] == splits
    for row in figures:
        predict, others = fit_without(row.source, samples, SHAPE)
        of_sources = [
            [one for one in others if one.sample.is_ranked and one.sample.source == source]
            for source in {"a", "b", "c"} - {row.source}
        ]
        # The mean over sources reaches the target, and no larger max_missed that keeps less does.
        assert np.mean([np.mean(kept(rows, row.max_missed)[0]) for rows in of_sources]) >= 0.9
        words = [kept(rows, row.max_missed)[1] for rows in of_sources]
        for larger in np.linspace(row.max_missed, 1, 41):
            share = np.mean([np.mean(kept(rows, larger)[0]) for rows in of_sources])
            assert share < 0.9 or [kept(rows, larger)[1] for rows in of_sources] == words
        judged = further if row.split == "judged" else samples
        predictions = [predict(one) for one in judged if one.source == row.source and one.is_ranked]
        gold, of_one = kept(predictions, row.max_missed)
        tuned_gold, of_tuned = kept(predictions, row.tuned_max_missed)
        assert row.calls == len(predictions)
        assert row.kept_gold == pytest.approx(np.mean(gold))
        assert row.words == pytest.approx(np.mean(of_one))
        assert row.tuned_kept_gold == pytest.approx(np.mean(tuned_gold))
        assert row.tuned_kept_gold >= 0.9
        assert row.words_ratio == pytest.approx(sum(of_one) / sum(of_tuned))
        assert row.kept_gold_interval[0] <= row.kept_gold <= row.kept_gold_interval[1]
        assert row.words_ratio_interval[0] <= row.words_ratio <= row.words_ratio_interval[1]
