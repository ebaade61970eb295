"""Fitting multi-hop weights to samples whose second gold chunk only the second reading shows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from at2_rag.errors import InputError
from at2_rag.readout.calibration import logistic
from at2_rag.readout.multi_hop import divided_anew, hop_terms
from at2_rag.training.calibrating.metrics import brier_skill, calibration_error
from at2_rag.training.calibrating.multi_hop import (
    MultiHopFigures,
    MultiHopSample,
    fit_multi_hop,
    judge_multi_hop,
)

SHAPE = (2, 2)


def drawn(count: int, seed: int, source: str = "a") -> list[MultiHopSample]:
    """Draw samples of eight chunks: the best is gold, and one other, most often by its feature."""
    rng = np.random.default_rng(seed)
    samples = []
    for number in range(count):
        scores = rng.normal(0, 1, 8)
        best = int(np.argmax(scores))
        others = [chunk for chunk in range(8) if chunk != best]
        features = rng.normal(0, 1, (7, 4)).astype(np.float32)
        second = int(np.argmax(3 * features[:, 0] + 0.5 * scores[others] + rng.gumbel(size=7)))
        gold = np.isin(np.arange(8), [best, others[second]])
        read = best, np.array(others)
        samples.append(
            MultiHopSample(source, number % 3, scores, gold, *read, features, cluster=number)
        )
    return samples


def judged(samples: list[MultiHopSample]) -> dict[str, MultiHopFigures]:
    _, after = fit_multi_hop(samples, SHAPE)
    return {row.source: row for row in judge_multi_hop(samples, after)}


def test_weights_follow_the_second_gold_chunk_and_probabilities_come_true() -> None:
    fitted, _ = fit_multi_hop(drawn(600, 1), SHAPE)
    weight = fitted.weight.ravel()
    assert fitted.weight.shape == SHAPE
    assert weight[0] > 5 * np.abs(weight[1:]).max()
    assert 0 < fitted.score < weight[0]
    samples, likely = drawn(600, 2), []
    for sample in samples:
        first = sample.scores[sample.others]
        second = divided_anew(first, fitted.scores(first, sample.features))
        likely.append(logistic(hop_terms(second), fitted.chunk))
    p, y = np.concatenate(likely), np.concatenate([one.gold[one.others] for one in samples])
    assert calibration_error(p, y) < 0.03
    assert brier_skill(p, y) > 0.4


def test_samples_are_judged_by_weights_fitted_without_their_fold() -> None:
    samples = [*drawn(300, 3, "a"), *drawn(150, 4, "b")]
    figures = judged(samples)
    assert list(figures) == ["a", "b", "every source"]
    for name, row in figures.items():
        of_source = [one for one in samples if name in (one.source, "every source")]
        first = [
            set(np.argsort(-sample.scores)[:3]) >= set(np.flatnonzero(sample.gold))
            for sample in of_source
        ]
        assert row.calls == len(of_source)
        assert row.without == pytest.approx(np.mean(first))
        assert row.low is not None and row.high is not None
        assert row.gain > 0.2 and 0 < row.low < row.gain < row.high
    turned = [
        dataclasses.replace(sample, features=-sample.features) if sample.fold == 0 else sample
        for sample in samples
    ]
    assert judged(turned)["every source"].with_it < figures["every source"].with_it - 0.1


def test_questions_about_one_page_are_drawn_together() -> None:
    samples = drawn(60, 3)
    after = [sample.scores + 9 * sample.gold for sample in samples]  # all gold first
    [single, _] = judge_multi_hop(samples, after)
    [repeated, _] = judge_multi_hop(samples * 4, after * 4)
    assert repeated.calls == 240 and repeated.gain == pytest.approx(single.gain)
    assert (repeated.low, repeated.high) == pytest.approx((single.low, single.high))
    assert single.low is not None and single.high is not None
    # The normal approximation of the mean of sixty zeros and ones.
    half = 1.96 * np.sqrt(single.gain * (1 - single.gain) / 60)
    assert [single.low, single.high] == pytest.approx(
        [single.gain - half, single.gain + half], abs=0.02
    )
    assert single.brackets == f" [{single.low:+.3f}, {single.high:+.3f}]"
    pages = [dataclasses.replace(sample, cluster=sample.cluster % 9) for sample in samples]
    [few, _] = judge_multi_hop(pages, after)
    assert few.gain == single.gain and few.low is few.high is None and few.brackets == ""


def test_samples_without_a_second_gold_chunk_do_not_teach() -> None:
    samples = drawn(30, 5)
    alone = [dataclasses.replace(one, gold=np.arange(8) == one.best) for one in samples]
    assert judged([*samples, *alone])["a"].calls == 30
    with pytest.raises(InputError, match="multi-hop weights can't be fitted"):
        fit_multi_hop(alone, SHAPE)
