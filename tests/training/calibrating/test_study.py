"""Calibrations judged on data sets that had no part in them."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from at2_rag.training.calibrating.fits import EVERY
from at2_rag.training.calibrating.probabilities import CalibrationSample
from at2_rag.training.calibrating.study import (
    CalibrationFigures,
    judge_sources,
    predict_left_out_sources,
    score_by_refit,
)
from tests.training.calibrating.drawn_samples import SHAPE, drawn


def judged(samples: list[CalibrationSample]) -> dict[str, CalibrationFigures]:
    predictions = predict_left_out_sources(samples, SHAPE, score_by_refit())
    return {row.source: row for row in judge_sources(predictions)}


def test_each_source_is_judged_by_what_was_fitted_to_the_others() -> None:
    samples = [sample for seed, name in enumerate("abd") for sample in drawn(300, seed, name)]
    turned = [dataclasses.replace(one, gold=~one.gold) for one in drawn(300, 3, "c")]
    figures = judged([*samples, *turned])
    assert list(figures) == ["a", "b", "c", "d", EVERY]
    c, every = figures["c"], figures.pop(EVERY)
    assert c.skill < min(0, figures["a"].skill) and c.error > 0.2  # the others say the opposite
    assert c.chunks == sum(len(one.gold) for one in turned if one.is_retrieved)
    assert c.calls == 300 and figures["a"].auroc > 0.55
    assert c.expected == pytest.approx(
        c.chunks * np.mean([x for x, _ in c.reliability]) / (c.relevant * c.chunks), rel=0.05
    )
    by_hand = [one.gold.any() for one in drawn(300, 0, "a")]
    assert figures["a"].lost == 0.0 == figures["a"].recognised  # as likely is answered in all
    assert np.mean(by_hand) > 0.8
    assert np.mean([share for _, share in c.reliability]) == pytest.approx(c.relevant, abs=0.01)
    assert every.chunks == sum(row.chunks for row in figures.values())
    assert every.calls == sum(row.calls for row in figures.values())
    assert len(every.reliability_of_best) == len(every.reliability_of_calls) == 15
    assert 0 < every.error_by_chance < figures["a"].error_by_chance < 0.1


def test_sources_that_always_answer_are_not_judged_and_what_is_not_defined_is_none() -> None:
    samples = [*drawn(200, 3, "a"), *drawn(200, 4, "b"), *drawn(200, 7, "c")]
    samples = [
        dataclasses.replace(one, kind="retrieved") if one.source == "b" else one for one in samples
    ]
    sure = [one for one in drawn(80, 5, "d") if one.gold.any()]
    rows = {name: row.to_dict() for name, row in judged([*samples, *sure]).items()}
    json.dumps(rows, allow_nan=False)
    undefined = {name: row["auroc_of_twins"] is None for name, row in rows.items()}
    assert undefined == {"a": False, "b": True, "c": False, EVERY: False}
    assert predict_left_out_sources(drawn(9, 6, "a"), SHAPE, score_by_refit()) == []
