"""One max_missed on sources that it was chosen without."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from at2_rag.options import PruneOptions
from at2_rag.selection.select import select
from at2_rag.training.calibrating.fit import LabelledCall, fit_calibration, out_of_fold_evidence
from at2_rag.training.calibrating.study import fit_readout, out_of_fold_scores
from at2_rag.training.calibrating.transfer import judge_transfer

SHAPE = (1, 2, 2)
Floats = npt.NDArray[np.float64]


def drawn(source: str, count: int, seed: int, *, clear: float = 1.2) -> list[LabelledCall]:
    """Draw calls of which a feature tells the gold chunks, the clearer the better."""
    rng = np.random.default_rng(seed)
    calls = []
    for place in range(count):
        size = int(rng.integers(4, 9))
        gold = np.zeros(size, dtype=bool)
        gold[rng.choice(size, int(rng.integers(1, 3)), replace=False)] = True
        features = rng.normal(0, 1, (size, 4)).astype(np.float32)
        features[:, 0] += clear * gold
        words = rng.integers(20, 120, size)
        calls.append(
            LabelledCall(
                source, place % 3, features, gold, matters=gold, words=words, example=place
            )
        )
        for answerable in (True, False):
            other = rng.normal(0, 1, (size, 4)).astype(np.float32)
            other[0, 0] += clear * answerable
            none = np.zeros(size, dtype=bool)
            calls.append(
                LabelledCall(source, place % 3, other, none, answerable=answerable, words=words)
            )
    return calls


def kept_by_hand(
    calls: list[LabelledCall], scores: list[Floats], likely: list[Floats], max_missed: float
) -> tuple[list[float], list[float]]:
    """Return what share of gold chunks each call keeps by the selection itself, and the words."""
    gold, words = [], []
    for own, values, chances in zip(calls, scores, likely, strict=True):
        kept = list(select(values, PruneOptions(max_missed=max_missed), probabilities=chances).kept)
        assert own.words is not None
        gold.append(float(own.gold[kept].sum() / own.gold.sum()))
        words.append(float(own.words[kept].sum()))
    return gold, words


def test_the_figures_are_those_of_pruning_with_the_others_tolerance() -> None:
    calls = [*drawn("a", 40, 0), *drawn("b", 40, 1, clear=1.6), *drawn("c", 40, 2, clear=0.9)]
    more = drawn("b", 25, 3, clear=1.6)
    found = list(judge_transfer(calls, SHAPE, more, target=0.9))
    assert [(own.source, own.split) for own in found] == [
        ("a", "fitted"),
        ("b", "fitted"),
        ("b", "judged"),
        ("c", "fitted"),
    ]
    for own in found:
        others = [call for call in calls if call.source != own.source]
        scores = out_of_fold_scores(others)
        calibration = fit_calibration(others, scores, SHAPE)
        evidence = out_of_fold_evidence(others)
        natural = [place for place, call in enumerate(others) if call.answerable is None]
        chosen_on = (
            [others[place] for place in natural],
            [scores[place] for place in natural],
            [calibration.probabilities(scores[place], evidence[place]) for place in natural],
        )
        # Both sources have as many calls, so that the mean over calls is that over sources.
        kept, length = kept_by_hand(*chosen_on, own.max_missed)
        assert np.mean(kept) >= 0.9
        for larger in own.max_missed + np.linspace(0, 2, 81):
            kept, other = kept_by_hand(*chosen_on, larger)
            assert np.mean(kept) < 0.9 or other == length
        every = more if own.split == "judged" else calls
        judged = [c for c in every if c.source == own.source and c.answerable is None]
        readout = fit_readout(others)
        values = [readout(call.features) for call in judged]
        chances = [
            calibration.probabilities(score, float(calibration.evidence(call.features).max()))
            for call, score in zip(judged, values, strict=True)
        ]
        gold, words = kept_by_hand(judged, values, chances, own.max_missed)
        assert own.calls == len(judged)
        assert own.kept_gold == pytest.approx(np.mean(gold))
        assert own.words == pytest.approx(np.mean(words))
        tuned_gold, tuned_words = kept_by_hand(judged, values, chances, own.tuned_tolerance)
        assert own.tuned_kept_gold == pytest.approx(np.mean(tuned_gold))
        assert own.tuned_kept_gold >= 0.9
        assert own.words_ratio == pytest.approx(sum(words) / sum(tuned_words))
        low, high = own.kept_gold_interval
        error = np.std(gold) / math.sqrt(len(gold))
        assert low <= own.kept_gold <= high
        assert high - low == pytest.approx(2 * 1.96 * error, rel=0.2)
        assert own.words_ratio_interval[0] <= own.words_ratio <= own.words_ratio_interval[1]


def test_where_everything_is_told_apart_one_chunk_of_each_call_will_do() -> None:
    rng = np.random.default_rng(0)
    calls: list[LabelledCall] = []
    for source in ("a", "b"):
        for own in drawn(source, 30, len(calls), clear=0.0):
            gold = np.arange(len(own.gold)) == int(rng.integers(len(own.gold)))
            if own.answerable is None:
                features = own.features.copy()
                features[:, 0] = 40 * gold
                own = LabelledCall(source, own.fold, features, gold, matters=gold, words=own.words)
            calls.append(own)
    for figures in judge_transfer(calls, SHAPE):
        assert figures.kept_gold == 1 and figures.kept_gold_interval == (1, 1)
        assert figures.words_ratio == pytest.approx(1, abs=0.2)
