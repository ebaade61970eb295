"""Pruning by probabilities: what limits mean, what is kept without one, and where nothing helps."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from at2_rag import AT2Pruner
from at2_rag.errors import HeadWeightsError, InputError
from at2_rag.options import DEFAULT_AT_LEAST, DEFAULT_MIN_P, IfUnanswerable
from at2_rag.readout.calibration import Calibration
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.text.chunks import Chunk
from at2_rag.text.units import unit_spans
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import random_weights, tiny_pruner

QUERY = "who wrote the novel Emma?"
CHUNKS = [
    "Jane Austen wrote Emma. She was born in Steventon. The river is long.",
    "The river flows through the old town.",
    "It spans the harbour. Boats pass below it.",
    "Nobody knows when the mill was built.",
    "A lamp stood in the tower.",
]
CHUNK, CALL = (0.3, 0.9, -0.2, 1.0), (0.1, 0.2, 0.2, 0.1, 1.5)
DOUBTING_CHUNK, DOUBTING_CALL = (0.3, 0.9, -0.2, -9.0), (0.0, 0.0, 0.0, 0.0, -4.0)
PLAIN = random_weights(tiny_model(), tiny_tokenizer(), "together", "apart")


def calibrated(call: tuple[float, ...] = CALL, chunk: tuple[float, ...] = CHUNK) -> HeadWeights:
    """Return weights whose second readout is their first one turned around."""
    # The tiny tokenizer knows few words.
    calibration = Calibration(-PLAIN.weight, 0.25, chunk, call, unread=1.0)
    return dataclasses.replace(PLAIN, calibration=calibration)


@pytest.fixture(scope="module")
def pruner() -> AT2Pruner:
    return tiny_pruner(calibrated(CALL))


def by_hand(pruner: AT2Pruner) -> tuple[list[float], float]:
    """Return each chunk's probability, and the call's, from the raw scores."""
    scores = [one.score for one in pruner.score(QUERY, CHUNKS)]
    total = math.log(math.fsum(map(math.exp, scores)))
    by_chunk = [0.25 + pruner.head_weights.bias - one for one in scores]
    evidence, count = math.log(math.fsum(map(math.exp, by_chunk))), math.log(len(scores))
    slope, share, of_count, constant = CHUNK
    of_call = of_count * count + constant
    logits = [slope * one + share * (one - total) + of_call for one in scores]
    terms = (max(scores), max(scores) - total, evidence, count, 1.0)
    call = math.fsum(a * b for a, b in zip(CALL, terms, strict=True))
    answerable = 1 / (1 + math.exp(-call))
    return [min(answerable, 1 / (1 + math.exp(-logit))) for logit in logits], answerable


def test_chunks_and_call_have_their_probabilities(pruner: AT2Pruner) -> None:
    expected, answerable = by_hand(pruner)
    scored = pruner.score(QUERY, CHUNKS)
    assert [one.probability for one in scored] == pytest.approx(expected)
    assert [one.relevance for one in scored] == [one.probability for one in scored]
    result = pruner.prune(QUERY, CHUNKS, top_k=2)
    by_index = {one.index: one.probability for one in (*result.kept, *result.dropped)}
    assert [by_index[index] for index in range(5)] == pytest.approx(expected)
    assert result.answerable == pytest.approx(answerable)
    values = json.loads(result.to_json())
    assert values["answerable"] == result.answerable
    assert values["kept"][0]["probability"] == result.kept[0].probability
    plain = tiny_pruner(PLAIN).prune(QUERY, CHUNKS, top_k=2)
    assert plain.answerable is None and plain.kept[0].probability is None
    assert "probability" not in plain.to_dict()["kept"][0]
    assert [one.index for one in plain.kept] == [one.index for one in result.kept]
    assert plain.kept[0].relevance == plain.kept[0].score


def test_limits_speak_of_probabilities(pruner: AT2Pruner) -> None:
    likely, _ = by_hand(pruner)
    ranked = sorted(range(5), key=lambda index: -likely[index])
    for count in range(1, 6):
        least = likely[ranked[count - 1]]
        kept = pruner.prune(QUERY, CHUNKS, min_probability=least - 1e-6).kept
        assert [one.index for one in kept] == ranked[:count]
        share = math.fsum(likely[index] for index in ranked[:count]) / math.fsum(likely)
        kept = pruner.prune(QUERY, CHUNKS, top_p=share - 1e-6).kept
        assert [one.index for one in kept] == ranked[:count]
        kept = pruner.prune(QUERY, CHUNKS, max_missed=1 - share + 1e-6).kept
        assert [one.index for one in kept] == ranked[:count]
    assert len(pruner.prune(QUERY, CHUNKS, max_missed=1.0).kept) == 1
    none = pruner.prune(QUERY, CHUNKS, min_probability=0.999)
    assert not none.kept and f"the best probability is {max(likely)}"[:26] in none.notes[0]


def test_what_has_no_effect_is_noted(pruner: AT2Pruner) -> None:
    result = pruner.prune(QUERY, CHUNKS, top_k=2, keep_at_least=0.9)
    assert len(result.kept) == 2
    assert "keep_at_least=0.9 has no effect without min_p or max_missed" in " ".join(result.notes)
    for limit in (None, 0.5):
        result = pruner.prune(QUERY, CHUNKS, keep_at_least=0.9, max_missed=limit)
        assert "no effect" not in " ".join(result.notes)


def test_without_a_limit_chances_beside_the_best_one_decide(pruner: AT2Pruner) -> None:
    expected = pruner.prune(QUERY, CHUNKS, min_p=DEFAULT_MIN_P, keep_at_least=DEFAULT_AT_LEAST)
    result = pruner.prune(QUERY, CHUNKS)
    assert [one.index for one in result.kept] == [one.index for one in expected.kept]
    every = sorted(
        (one.probability or 0.0 for one in (*result.kept, *result.dropped)), reverse=True
    )
    assert len(result.kept) == max(2, sum(one >= 0.05 * every[0] for one in every))
    [batched] = pruner.prune_batch([(QUERY, CHUNKS)])
    assert [one.index for one in batched.kept] == [one.index for one in result.kept]
    with pytest.raises(InputError, match="no limit was given; .* or use calibrated head weights"):
        tiny_pruner(PLAIN).prune(QUERY, CHUNKS)


def test_sentences_divide_their_chunks_probability(pruner: AT2Pruner) -> None:
    likely, _ = by_hand(pruner)
    units = Counter(index for index, _, _ in unit_spans([Chunk(text) for text in CHUNKS]))
    alone = [index for index, count in units.items() if count == 1]
    for index in alone:  # one sentence has all of its chunk's probability
        for least, kept in ((likely[index] - 1e-6, True), (likely[index] + 1e-6, False)):
            result = pruner.prune(QUERY, CHUNKS, min_probability=least, unit="sentence")
            assert (index in [one.index for one in result.kept]) is kept
    shared = [index for index in range(5) if index not in alone]
    result = pruner.prune(QUERY, CHUNKS, min_probability=max(likely) - 1e-6, unit="sentence")
    assert not {one.index for one in result.kept} & set(shared)  # of several none has all
    for one in (*result.kept, *result.dropped):
        assert one.probability == pytest.approx(likely[one.index])
    for sentence in result.sentences:
        if sentence.chunk_index in alone:
            assert sentence.probability == pytest.approx(likely[sentence.chunk_index])
        else:
            assert sentence.probability and 0 < sentence.probability < likely[sentence.chunk_index]
    every = pruner.prune(QUERY, CHUNKS, max_missed=0.0, unit="sentence")
    assert len(every.kept) == 5 and all(one.spans is None for one in every.kept)


def test_where_the_question_seems_unanswerable_the_caller_decides(pruner: AT2Pruner) -> None:
    doubting = tiny_pruner(calibrated(DOUBTING_CALL, DOUBTING_CHUNK))
    usual = [one.index for one in doubting.prune(QUERY, CHUNKS, top_k=3).kept]
    best = re.escape(CHUNKS[usual[0]])
    cases: list[tuple[IfUnanswerable, list[int]]]
    cases = [("flag", usual), ("keep_best", usual[:1]), ("keep_none", [])]
    for choice, expected in cases:
        result = doubting.prune(QUERY, CHUNKS, top_k=3, if_unanswerable=choice)
        assert [one.index for one in result.kept] == expected
        assert len(result.kept) + len(result.dropped) == 5
        assert result.answerable == pytest.approx(1 / (1 + math.exp(4.0)))
        assert "Probably no chunk holds the answer: answerable is 0.018." in result.notes
        if choice != "flag":
            held = doubting.prune(QUERY, CHUNKS, top_k=3, if_unanswerable=choice, protect=best)
            assert [one.index for one in held.kept] == usual[:1]
        sure = pruner.prune(QUERY, CHUNKS, top_k=3, if_unanswerable=choice)
        assert len(sure.kept) == 3 and not any("Hardly" in note for note in sure.notes)
    for unit in ("chunk", "sentence"):
        options: dict[str, Any] = {"top_p": 1.0, "unit": unit, "protect": "river flows"}
        held = doubting.prune(QUERY, CHUNKS, if_unanswerable="keep_none", **options)
        assert [one.index for one in held.kept] == [1]
    one = doubting.prune(QUERY, CHUNKS, unit="sentence", if_unanswerable="keep_best")
    assert len(one.kept) == 1
    blank = doubting.prune(QUERY, ["", " "], unit="sentence", if_unanswerable="keep_none")
    assert not blank.kept and len(blank.notes) == 2


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_missed": 0.5}, "max_missed is 0.5, but the head weights aren't calibrated"),
        ({"top_k": 1, "if_unanswerable": "keep_none"}, "if_unanswerable is 'keep_none', "),
    ],
)
def test_limits_that_need_a_calibration(limits: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny_pruner(PLAIN).prune(QUERY, CHUNKS, **limits)


def test_no_chunks_and_failures_have_no_probabilities(pruner: AT2Pruner) -> None:
    assert pruner.prune(QUERY, []).answerable is None
    failing = tiny_pruner(calibrated(CALL), on_error="keep_all")
    failed = failing.prune("word " * 9000, CHUNKS)
    assert failed.error is not None and failed.answerable is None
    assert all(one.probability is None for one in failed.kept) and len(failed.kept) == 5
    skipped = pruner.prune(QUERY, CHUNKS, skip_below_tokens=10_000)
    assert skipped.skipped and skipped.answerable is None and len(skipped.kept) == 5
    assert skipped.kept[0].probability is None


def test_a_calibration_is_saved_with_its_weights(tmp_path: Path) -> None:
    weights = calibrated(CALL)
    weights.save(tmp_path)
    loaded = HeadWeights.load(tmp_path).calibration
    assert loaded is not None and weights.calibration is not None
    assert (loaded.chunk, loaded.call, loaded.evidence_bias) == (CHUNK, CALL, 0.25)
    assert np.array_equal(loaded.evidence_weight, weights.calibration.evidence_weight)
    dataclasses.replace(weights, calibration=None).save(tmp_path)
    assert HeadWeights.load(tmp_path).calibration is None
    with pytest.raises(HeadWeightsError, match="score scale is 'additive'; only scores that are"):
        dataclasses.replace(weights, score_scale="additive")


def test_of_many_alike_one_is_kept_and_all_are_as_likely(pruner: AT2Pruner) -> None:
    alike = pruner.prune(QUERY, ["The same words."] * 6)
    assert len(alike.kept) == 1
    probabilities = {one.probability for one in (*alike.kept, *alike.dropped)}
    assert len(probabilities) == 1 and np.isfinite(probabilities.pop())  # type: ignore[arg-type]


def test_top_p_over_scores_that_add_up_is_noted() -> None:
    additive = tiny_pruner(dataclasses.replace(PLAIN, score_scale="additive"))
    [note] = additive.prune(QUERY, CHUNKS, top_p=0.5).notes
    assert note.startswith("top_p means little") and "uniform" not in note
    assert additive.prune(QUERY, CHUNKS, top_k=1).notes == ()
    assert tiny_pruner(PLAIN).prune(QUERY, CHUNKS, top_p=0.5).notes == ()
