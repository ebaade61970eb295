"""The truth by removal against stock forward passes, and its store."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from at2_rag.errors import ScoringError
from at2_rag.training.answering.ablation import leave_one_out
from at2_rag_evals.fidelity.joint_answers import JointAnswerModel
from at2_rag_evals.fidelity.judging import judge
from at2_rag_evals.fidelity.masks import MaskPlan
from at2_rag_evals.fidelity.removal import NO_ANSWER, TOO_LONG, AnswerReading, RemovalReader
from at2_rag_evals.fidelity.sources import SourcedSet, whole_chunks
from at2_rag_evals.fidelity.systems.ablations import (
    LeaveOneOutSystem,
    MaskedRegressionSystem,
    RegressionSystem,
)
from at2_rag_evals.fidelity.systems.base import FidelitySystem
from at2_rag_evals.rankers import ItemScores
from at2_rag_evals.store import Store, hash_of
from tests.evals.labelled_items import make_item
from tests.tiny_models import tiny_model, tiny_tokenizer

ITEM = whole_chunks(make_item("emma", "g----", answers=["Jane Austen"]))
ANSWER = "Jane Austen"
ALL = np.ones((1, 5), dtype=bool)
SCORES = (0.5, 3.0, 1.0, 2.0, 0.0)


@pytest.fixture(scope="module")
def model() -> JointAnswerModel:
    return JointAnswerModel(tiny_model(), tiny_tokenizer())


def never() -> JointAnswerModel:
    raise AssertionError("the model was loaded although everything was stored")


def reader_of(
    load: Callable[[], JointAnswerModel], path: Path | None = None, **options: object
) -> RemovalReader:
    settings = {"model": "tiny"}
    return RemovalReader(load, settings=settings, path=path, **options)  # type: ignore[arg-type]


def stock(model: JointAnswerModel, mask: np.ndarray) -> tuple[float, float]:
    """Logit-probability and mean log-probability by the model itself, in float64."""
    example = ITEM.example
    kept = [chunk for chunk, keep in zip(example.chunks, mask, strict=True) if keep]
    layout = model.prompts.answer(model.prompts.joint(example.query, kept), ANSWER)
    with torch.inference_mode():
        logits = tiny_model()(torch.tensor([layout.input_ids])).logits[0].double()
    tokens = torch.tensor(layout.answer_ids)
    rows = logits[-len(tokens) - 1 : -1].log_softmax(-1).gather(1, tokens[:, None])[:, 0]
    total = float(rows.sum())
    return total - math.log1p(-math.exp(total)), total / len(tokens)


def test_readings_are_those_of_the_model_itself(model: JointAnswerModel) -> None:
    masks = np.concatenate([leave_one_out(5), ~leave_one_out(5)[1:]])
    readings = reader_of(lambda: model, workers=2).read(ITEM, ANSWER, masks)
    for mask, reading in zip(masks, readings, strict=True):
        logit, mean = stock(model, mask)
        assert reading.logit_probability == pytest.approx(logit, abs=1e-4)
        assert reading.mean_log_probability == pytest.approx(mean, abs=1e-4)
        assert reading.seconds > 0


def test_leave_one_out_is_what_each_removal_costs(model: JointAnswerModel) -> None:
    reader = reader_of(lambda: model)
    actual = LeaveOneOutSystem(reader).scores(ITEM, ANSWER)
    full, *without = (stock(model, mask)[0] for mask in leave_one_out(5))
    assert actual.scores == pytest.approx([full - each for each in without], abs=2e-4)
    readings = reader.read(ITEM, ANSWER, leave_one_out(5))
    assert actual.seconds == pytest.approx(sum(reading.seconds for reading in readings))


def test_regressions_read_fitted_masks_only(model: JointAnswerModel, tmp_path: Path) -> None:
    path, plan = tmp_path / "store", MaskPlan()
    reader = reader_of(lambda: model, path)
    readings = Store(path, f"readings {hash_of(reader.settings)}", AnswerReading)
    for system in (RegressionSystem(reader, plan), MaskedRegressionSystem(reader, plan)):
        system.prepare()
        assert len(system.scores(ITEM, ANSWER).scores) == 5
        assert len(readings) == len(plan.split(ITEM).fitted) == 15


def test_what_is_stored_is_not_read_again(model: JointAnswerModel, tmp_path: Path) -> None:
    path = tmp_path / "store"
    first = reader_of(lambda: model, path, answer_tokens=4)
    answer = first.answer(ITEM)
    readings = first.read(ITEM, ANSWER, leave_one_out(5))
    again = reader_of(never, path, answer_tokens=4)
    assert again.answer(ITEM) == answer
    assert again.read(ITEM, ANSWER, leave_one_out(5)) == readings
    moved = whole_chunks(make_item("emma", "g----", source="seas"))
    unread: list[Callable[[], object]] = [
        lambda: again.read(ITEM, "Jane", ALL),
        lambda: again.read(moved, ANSWER, ALL),
        lambda: reader_of(never, path, answer_tokens=5).answer(ITEM),
    ]
    for read in unread:
        with pytest.raises(AssertionError, match="loaded"):
            read()


def test_items_without_an_answer_or_too_long_are_counted(model: JointAnswerModel) -> None:
    long = whole_chunks(make_item("x" * 3000, "g---", answers=["Jane"]))
    blank = whole_chunks(make_item("blank", "g---", answers=[" ", ""]))
    items = SourcedSet((ITEM, long, blank), {"novels": {"no gold chunk": 2}})
    reader = reader_of(lambda: model, answers="reference")
    judged = judge(items, [LeaveOneOutSystem(reader)], reader, plan=MaskPlan(held=4))
    assert [each.item for each in judged.items] == [ITEM]
    assert judged.left_out == {"novels": {"no gold chunk": 2, TOO_LONG: 1, NO_ANSWER: 1}}
    assert reader_of(lambda: model).answer(long) == (None, TOO_LONG)


def test_numbers_that_overflow_are_an_error() -> None:
    broken = tiny_model()
    with torch.no_grad():
        broken.lm_head.weight.fill_(torch.nan)
    reader = reader_of(lambda: JointAnswerModel(broken, tiny_tokenizer()))
    with pytest.raises(ScoringError, match="item 'emma' of .*NaN or infinity"):
        reader.read(ITEM, ANSWER, ALL)


class Planted(FidelitySystem):
    name = "planted"
    scale = "logit"
    shares_are_softmax = True

    def scores(self, item: object, answer: str) -> ItemScores:
        return ItemScores(SCORES, seconds=0.25)


def test_an_item_is_judged_by_stock_readings(model: JointAnswerModel) -> None:
    reader, plan = reader_of(lambda: model, answers="reference"), MaskPlan(held=8)
    [judged] = judge(SourcedSet((ITEM,), {}), [Planted()], reader, plan=plan).items
    metrics = judged.metrics["planted"]

    def mean(*kept: int) -> float:
        return stock(model, np.isin(np.arange(5), kept))[1]

    full = mean(*range(5))
    assert judged.full == pytest.approx(full, abs=1e-4)
    assert metrics["drop_1"] == pytest.approx(full - mean(0, 2, 3, 4), abs=2e-4)
    assert metrics["drop_3"] == pytest.approx(full - mean(0, 4), abs=2e-4)
    assert metrics["insertion_1"] == pytest.approx(mean(1), abs=1e-4)
    assert metrics["insertion_3"] == pytest.approx(mean(1, 2, 3), abs=1e-4)
    assert metrics["insertion_5"] is None
    masks = plan.split(ITEM).held[0.2]
    effects = [stock(model, mask)[0] for mask in masks]
    for name, scores in {"lds": SCORES, "lds_shares": np.exp(SCORES)}.items():
        expected = np.corrcoef(masks @ np.array(scores), effects)[0, 1]
        assert metrics[f"{name}_pearson_0.2"] == pytest.approx(expected, abs=0.02)
    assert judged.scored["planted"].seconds == 0.25
