"""Pruning by probabilities: what limits mean, what is kept without one, and where nothing helps."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from at2_rag import AT2Pruner
from at2_rag.errors import HeadWeightsError, InputError
from at2_rag.model.loading import LoadedModel
from at2_rag.options import DEFAULT_MAX_MISSED, IfUnanswerable
from at2_rag.readout.calibration import Calibration
from at2_rag.readout.files import DESCRIPTION_FILE
from at2_rag.readout.head_weights import HeadWeights
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import random_weights

QUERY = "who wrote the novel Emma?"
CHUNKS = [
    "Jane Austen wrote Emma. She was born in Steventon. The river is long.",
    "The river flows through the old town.",
    "It spans the harbour. Boats pass below it.",
    "Nobody knows when the mill was built.",
    "A lamp stood in the tower.",
]
CHUNK, CALL = (0.3, 0.9, 0.1, 1.0), (0.2, 0.2, 1.5)
HELPLESS = (0.0, 0.0, -2.0)


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


def make(model: Any, call: tuple[float, ...] | None, **options: Any) -> AT2Pruner:
    """Make a pruner whose second readout is its head weights turned around."""
    weights = random_weights(model, tiny_tokenizer(), "together", "apart")
    if call is not None:
        calibration = Calibration(-weights.weight, 0.25, CHUNK, call)
        weights = dataclasses.replace(weights, calibration=calibration)
    return AT2Pruner(LoadedModel(model, tiny_tokenizer()), head_weights=weights, **options)


@pytest.fixture(scope="module")
def pruner(model: Any) -> AT2Pruner:
    return make(model, CALL)


def by_hand(pruner: AT2Pruner) -> tuple[list[float], float]:
    """Return each chunk's probability, and the call's, from the raw scores."""
    scores = [own.score for own in pruner.score(QUERY, CHUNKS)]
    total = math.log(math.fsum(map(math.exp, scores)))
    best = max(0.25 + pruner.head_weights.bias - own for own in scores)
    slope, share, evidence, constant = CHUNK
    logits = [slope * own + share * (own - total) + evidence * best + constant for own in scores]
    call = CALL[0] * best + CALL[1] * (max(scores) - total) + CALL[2]
    return [1 / (1 + math.exp(-logit)) for logit in logits], 1 / (1 + math.exp(-call))


def test_chunks_and_call_have_their_probabilities(pruner: AT2Pruner, model: Any) -> None:
    expected, answerable = by_hand(pruner)
    scored = pruner.score(QUERY, CHUNKS)
    assert [own.probability for own in scored] == pytest.approx(expected)
    assert [own.relevance for own in scored] == [own.probability for own in scored]
    result = pruner.prune(QUERY, CHUNKS, top_k=2)
    found = {own.index: own.probability for own in (*result.kept, *result.dropped)}
    assert [found[index] for index in range(5)] == pytest.approx(expected)
    assert result.answerable == pytest.approx(answerable)
    values = json.loads(result.to_json())
    assert values["answerable"] == result.answerable
    assert values["kept"][0]["probability"] == result.kept[0].probability
    plain = make(model, None).prune(QUERY, CHUNKS, top_k=2)
    assert plain.answerable is None and plain.kept[0].probability is None
    assert "probability" not in plain.to_dict()["kept"][0]
    assert [own.index for own in plain.kept] == [own.index for own in result.kept]
    assert plain.kept[0].relevance == plain.kept[0].score


def test_limits_speak_of_probabilities(pruner: AT2Pruner) -> None:
    likely, _ = by_hand(pruner)
    ranked = sorted(range(5), key=lambda index: -likely[index])
    for count in range(1, 6):
        least = likely[ranked[count - 1]]
        kept = pruner.prune(QUERY, CHUNKS, min_probability=least - 1e-6).kept
        assert [own.index for own in kept] == ranked[:count]
        share = math.fsum(likely[index] for index in ranked[:count]) / math.fsum(likely)
        kept = pruner.prune(QUERY, CHUNKS, top_p=share - 1e-6).kept
        assert [own.index for own in kept] == ranked[:count]
        rest = math.fsum(likely[index] for index in ranked[count:])
        kept = pruner.prune(QUERY, CHUNKS, max_missed=rest + 1e-6).kept
        assert [own.index for own in kept] == ranked[:count]
    assert len(pruner.prune(QUERY, CHUNKS, max_missed=99.0).kept) == 1
    none = pruner.prune(QUERY, CHUNKS, min_probability=0.999)
    assert not none.kept and f"the best probability is {max(likely)}"[:26] in none.notes[0]


def test_without_a_limit_the_tolerance_decides(pruner: AT2Pruner, model: Any) -> None:
    expected = pruner.prune(QUERY, CHUNKS, max_missed=DEFAULT_MAX_MISSED)
    found = pruner.prune(QUERY, CHUNKS)
    assert [own.index for own in found.kept] == [own.index for own in expected.kept]
    assert 1 <= len(found.kept) < 5
    [batched] = pruner.prune_batch([(QUERY, CHUNKS)])
    assert [own.index for own in batched.kept] == [own.index for own in found.kept]
    with pytest.raises(InputError, match="no limit was given; .* or use calibrated head weights"):
        make(model, None).prune(QUERY, CHUNKS)


def test_sentences_divide_their_chunks_probability(pruner: AT2Pruner) -> None:
    likely, _ = by_hand(pruner)
    alone = [index for index, text in enumerate(CHUNKS) if text.count(".") == 1]
    for index in alone:  # one sentence has all of its chunk's probability
        for least, kept in ((likely[index] - 1e-6, True), (likely[index] + 1e-6, False)):
            result = pruner.prune(QUERY, CHUNKS, min_probability=least, unit="sentence")
            assert (index in [own.index for own in result.kept]) is kept
    shared = [index for index in range(5) if index not in alone]
    result = pruner.prune(QUERY, CHUNKS, min_probability=max(likely) - 1e-6, unit="sentence")
    assert not {own.index for own in result.kept} & set(shared)  # of several none has all
    for own in (*result.kept, *result.dropped):
        assert own.probability == pytest.approx(likely[own.index])
    every = pruner.prune(QUERY, CHUNKS, max_missed=0.0, unit="sentence")
    assert len(every.kept) == 5 and all(own.spans is None for own in every.kept)


def test_where_nothing_seems_to_help_the_caller_decides(model: Any) -> None:
    pruner = make(model, HELPLESS)
    usual = [own.index for own in pruner.prune(QUERY, CHUNKS, top_k=3).kept]
    kept = {
        what: pruner.prune(QUERY, CHUNKS, top_k=3, if_unanswerable=what)
        for what in ("flag", "keep_best", "keep_none")
    }
    assert [own.index for own in kept["flag"].kept] == usual
    assert [own.index for own in kept["keep_best"].kept] == usual[:1]
    assert kept["keep_none"].notes == (
        "Most likely no chunk holds the answer: answerable is 0.12.",
    )
    whats: tuple[IfUnanswerable, ...] = ("keep_best", "keep_none")
    text = CHUNKS[usual[0]]
    for what in whats:
        held = pruner.prune(QUERY, CHUNKS, top_k=3, if_unanswerable=what, protect=re.escape(text))
        assert [own.index for own in held.kept] == usual[:1]
    blank = pruner.prune(QUERY, ["", " "], unit="sentence", if_unanswerable="keep_none")
    assert not blank.kept and len(blank.notes) == 2
    assert not kept["keep_none"].kept and len(kept["keep_none"].dropped) == 5
    for result in kept.values():
        assert result.answerable == pytest.approx(1 / (1 + math.exp(2.0)))
        assert "Most likely no chunk holds the answer: answerable is 0.12." in result.notes
    for unit in ("chunk", "sentence"):
        held = pruner.prune(
            QUERY,
            CHUNKS,
            top_p=1.0,
            if_unanswerable="keep_none",
            protect="river flows",
            unit=unit,
        )
        assert [own.index for own in held.kept] == [1]
    found = pruner.prune(QUERY, CHUNKS, unit="sentence", if_unanswerable="keep_best")
    assert len(found.kept) == 1


def test_where_something_helps_on_unsupported_changes_nothing(pruner: AT2Pruner) -> None:
    result = pruner.prune(QUERY, CHUNKS, top_k=3, if_unanswerable="keep_none")
    assert len(result.kept) == 3
    assert not any("Most likely" in note for note in result.notes)


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"max_missed": 0.5}, "max_missed is 0.5, but the head weights aren't calibrated"),
        ({"top_k": 1, "if_unanswerable": "keep_none"}, "if_unanswerable is 'keep_none', but"),
        ({"top_k": 1, "if_unanswerable": "raise"}, "pass 'flag', 'keep_best' or 'keep_none'"),
        (
            {"max_missed": -1.0, "calibrated": True},
            "max_missed is -1.0; pass a finite number of at",
        ),
        ({"top_k": [3], "calibrated": True}, r"top_k is \[3\]; pass an integer"),
        ({"min_score": 10**400}, "min_score is 1000.*; pass a finite number"),
        ({"max_missed": math.nan, "calibrated": True}, "max_missed is nan"),
    ],
)
def test_what_can_not_be_asked_for(model: Any, limits: dict[str, Any], told: str) -> None:
    calibrated = limits.pop("calibrated", False)
    pruner = make(model, CALL if calibrated else None)
    with pytest.raises(InputError, match=told):
        pruner.prune(QUERY, CHUNKS, **limits)


def test_no_chunks_and_failures_have_no_probabilities(model: Any, pruner: AT2Pruner) -> None:
    assert pruner.prune(QUERY, []).answerable is None
    failing = make(model, CALL, on_error="keep_all")
    failed = failing.prune("word " * 9000, CHUNKS)
    assert failed.error is not None and failed.answerable is None
    assert all(own.probability is None for own in failed.kept) and len(failed.kept) == 5
    skipped = pruner.prune(QUERY, CHUNKS, skip_below_tokens=10_000)
    assert skipped.skipped and skipped.answerable is None and len(skipped.kept) == 5
    assert skipped.kept[0].probability is None


def test_a_calibration_is_saved_with_its_weights(model: Any, tmp_path: Path) -> None:
    weights = make(model, CALL).head_weights
    own = weights.calibration
    assert own is not None
    weights.save(tmp_path)
    loaded = HeadWeights.load(tmp_path).calibration
    assert loaded is not None
    assert (loaded.chunk, loaded.call, loaded.evidence_bias) == (CHUNK, CALL, 0.25)
    assert np.array_equal(loaded.evidence_weight, own.evidence_weight)
    path = tmp_path / DESCRIPTION_FILE
    description = json.loads(path.read_text())
    del description["calibration"]
    path.write_text(json.dumps(description))
    assert HeadWeights.load(tmp_path).calibration is None
    unreadable: list[Any] = [None, {"chunk": {}}, {**own.numbers(), "call": {"x": "y"}}]
    with pytest.raises(HeadWeightsError, match="score scale is 'additive'; only scores that are"):
        dataclasses.replace(weights, score_scale="additive")
    for damaged in unreadable:
        path.write_text(json.dumps({**description, "calibration": damaged}))
        with pytest.raises(HeadWeightsError, match="the calibration there is .* can't be read"):
            HeadWeights.load(tmp_path)


def test_of_many_alike_one_is_kept_and_all_are_as_likely(pruner: AT2Pruner) -> None:
    alike = pruner.prune(QUERY, ["The same words."] * 6)
    assert len(alike.kept) == 1
    probabilities = {own.probability for own in (*alike.kept, *alike.dropped)}
    assert len(probabilities) == 1 and np.isfinite(probabilities.pop())  # type: ignore[arg-type]
