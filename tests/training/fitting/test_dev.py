"""Dev figures: the pruner's ranking of each example's chunks, and figures by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from at2_rag import AT2Pruner, HeadWeights
from at2_rag.data.examples import Example
from at2_rag.errors import InputError
from at2_rag.model.loading import LoadedModel
from at2_rag.reading.features import PASSES, FeatureSpec, Reading
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.text.chunks import Chunk
from at2_rag.training.collection.features import FeatureCollection, Features
from at2_rag.training.fitting.cross_validation import ndcg_at_10
from at2_rag.training.fitting.dev import DevFigures, choose_dev, count_shared, judge_on_dev
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import exact
from tests.training.planted_examples import planted_examples
from tests.training.small_examples import DEPTH, scoring_model


@pytest.fixture(scope="module")
def model() -> ScoringModel:
    return scoring_model()


@pytest.mark.parametrize("reading", sorted(PASSES))
def test_figures_are_those_of_the_pruners_ranking(
    model: ScoringModel, tmp_path: Path, reading: Reading
) -> None:
    examples = planted_examples(["novels"], each=5, chunks=7) + [
        replace(example, labels=(True, True, False, False, False))
        for example in planted_examples(["seas"], each=3)
    ]
    collection = FeatureCollection(
        model, examples, tmp_path, reading=reading, fingerprint="f", seed=0, padded=False
    )
    features = Features.of(collection.collect().rows, collection.passes)
    assert sorted(features.counts.tolist()) == [5] * 3 + [7] * 5  # nothing was added
    spec = FeatureSpec("log", PASSES[reading])
    shape = (len(spec.passes), DEPTH, 4)
    weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    weights = HeadWeights(weight, 0.0, spec)
    pruner = exact(AT2Pruner(LoadedModel(tiny_model(), tiny_tokenizer()), head_weights=weights))
    quality: dict[str, list[float]] = {}
    first: dict[str, list[bool]] = {}
    for example in examples:
        scores = [scored.score for scored in pruner.score(example.query, example.chunks)]
        labels = np.array(example.labels)
        [ndcg] = ndcg_at_10(np.array(scores), labels, np.array([len(scores)]))
        quality.setdefault(example.source, []).append(ndcg)
        first.setdefault(example.source, []).append(bool(labels[np.argmax(scores)]))
    figures = judge_on_dev(weights, examples, features)
    assert figures.examples == {"novels": 5, "seas": 3}
    for source in ("novels", "seas"):
        assert figures.ndcg_by_source[source] == pytest.approx(np.mean(quality[source]))
        assert figures.gold_first_by_source[source] == pytest.approx(np.mean(first[source]))
    assert figures.ndcg == pytest.approx(np.mean(list(figures.ndcg_by_source.values())))
    assert figures.gain is None  # eight examples are too few for an interval


def gold_came_in(ranks: Sequence[int], passages: Sequence[int]) -> DevFigures:
    """Return figures of ideal weights on examples of two sources, by rank and passage of the gold.

    The gold chunk of example n came in at `ranks[n]`, from 0, and has the text of `passages[n]`.
    """
    labels = np.eye(4, dtype=bool)[list(ranks)]
    examples = [
        Example(
            id=str(number),
            source="novels" if number < len(ranks) // 2 else "seas",
            query="q",
            chunks=tuple(
                Chunk(f"passage {passage}" if is_gold else f"distractor {number} {index}")
                for index, is_gold in enumerate(row)
            ),
            labels=tuple(row),
        )
        for number, (row, passage) in enumerate(zip(labels.tolist(), passages, strict=True))
    ]
    features = Features(
        np.arange(len(ranks)),
        np.full(len(ranks), 4),
        labels.reshape(-1, 1, 1, 1).astype(np.float16),  # the only feature knows the gold
        ("apart",),
    )
    weights = HeadWeights(np.ones((1, 1, 1), np.float32), 0.0, FeatureSpec("log", ("apart",)))
    return judge_on_dev(weights, examples, features)


def test_the_ranking_is_compared_with_the_order_of_retrieval() -> None:
    figures = gold_came_in([number % 3 for number in range(24)], range(24))
    assert figures.ndcg == figures.gold_first == 1.0
    kept_order = np.mean([1, 1 / np.log2(3), 0.5])  # gold at rank 1, 2 or 3
    assert figures.ndcg_as_retrieved == pytest.approx(kept_order)
    assert figures.gold_first_as_retrieved == pytest.approx(1 / 3)
    assert figures.gain is not None
    low, high = figures.gain
    # The normal approximation of the mean of 24 gains.
    half = 1.96 * np.std([0, 1 - 1 / np.log2(3), 0.5]) / np.sqrt(24)
    assert [low, high] == pytest.approx([1 - kept_order - half, 1 - kept_order + half], abs=0.02)


def test_questions_on_one_passage_are_no_more_evidence_than_one() -> None:
    single = gold_came_in([number % 3 for number in range(24)], range(24))
    ranks = [number // 5 % 3 for number in range(120)]
    repeated = gold_came_in(ranks, [number // 5 for number in range(120)])
    assert single.gain is not None
    assert repeated.gain == pytest.approx(single.gain)
    # 32 questions whose gold came in second, but on eight passages.
    gain = 1 - 1 / np.log2(3)
    eight = gold_came_in([1] * 32, [number // 4 for number in range(32)])
    assert eight.ndcg - eight.ndcg_as_retrieved == pytest.approx(gain)
    assert eight.gain is None
    assert gold_came_in([1] * 32, range(32)).gain == pytest.approx((gain, gain))


def test_what_cannot_be_judged_is_counted_by_reason(model: ScoringModel) -> None:
    good = planted_examples(["novels"], each=2)
    wrong = [
        replace(good[0], chunks=good[0].chunks[:3], labels=(True, False, False)),
        replace(good[0], labels=(False,) * 5),
        replace(good[0], labels=(True,) * 5),
        replace(good[1], labels=(True,) * 5),
        replace(good[0], query="river " * 3000),
    ]
    kept, left_out = choose_dev(model, [*good, *wrong], reading="independent")
    assert kept == good
    assert left_out == {
        "fewer than 4 chunks": 1,
        "without gold": 1,
        "without a distractor": 2,
        "longer than the model's window": 1,
    }
    long = replace(good[0], chunks=(Chunk("river " * 3000), *good[0].chunks[1:]))
    assert choose_dev(model, [*good, long], reading="independent")[0] == [*good, long]
    assert choose_dev(model, [*good, long], reading="joint")[1] == {
        "longer than the model's window": 1
    }
    with pytest.raises(InputError, match=r"none of the 5 dev examples can be judged \(1 fewer"):
        choose_dev(model, wrong, reading="independent")


def test_dev_examples_that_were_trained_on_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    trained, other = planted_examples(["novels"], each=4), planted_examples(["seas"], each=4)
    unseen = [replace(one, query=f"{one.query} {one.id}") for one in other]
    assert count_shared(unseen, trained) == 0 and caplog.records == []
    gold = trained[0].gold[0]
    shouted = replace(gold, text=f" {gold.text.upper()}  ", title="another")
    dev = [
        replace(other[0], query="by passage?", chunks=(shouted, Chunk("x")), labels=(True, False)),
        replace(other[1], query=f"  {trained[1].query.upper()}"),
        replace(other[2], query="no gold?", chunks=(gold, Chunk("x")), labels=(False, True)),
        replace(other[3], query="nothing?"),
    ]
    assert count_shared(dev, trained) == 2
    [warning] = caplog.records
    assert "2 of 4 dev examples share a gold passage or their question" in warning.getMessage()
