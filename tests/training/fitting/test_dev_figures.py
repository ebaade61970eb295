"""Dev figures: the pruner's own ranking of each example's own chunks, by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from at2_rag import AT2Pruner, HeadWeights
from at2_rag.data.examples import Example
from at2_rag.errors import InputError
from at2_rag.model.loading import LoadedModel
from at2_rag.reading.features import PASSES, FeatureSpec, Reading
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.text.chunks import Chunk
from at2_rag.training.collection.store import ShardFeatures
from at2_rag.training.fitting.dev_figures import DevSet, choose_dev, collect_dev, count_shared
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.training.planted_examples import planted_examples


@pytest.fixture(autouse=True)
def one_torch_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> ScoringModel:
    return ScoringModel(tiny_model(), tiny_tokenizer(), depth=2)


def examples() -> list[Example]:
    """Two sources, one of them with two gold chunks an example."""
    first = planted_examples(["novels"], each=5, chunks=7)
    second = [
        replace(example, labels=(True, True, False, False, False))
        for example in planted_examples(["seas"], each=3)
    ]
    return first + second


@pytest.mark.parametrize("reading", sorted(PASSES))
def test_figures_are_those_of_the_pruners_ranking(
    model: ScoringModel, tmp_path: Path, reading: Reading
) -> None:
    dev = collect_dev(model, examples(), tmp_path, left_out={}, reading=reading, fingerprint="f")
    assert dev.counts == {"novels": 5, "seas": 3}
    assert sorted(dev.collected.counts.tolist()) == [5] * 3 + [7] * 5  # nothing was added
    spec = FeatureSpec("log_ratio", PASSES[reading])
    shape = (len(spec.passes), 2, 4)
    drawn = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    weights = HeadWeights(drawn, 0.0, spec)
    pruner = AT2Pruner(LoadedModel(tiny_model(), tiny_tokenizer()), head_weights=weights)
    quality: dict[str, list[float]] = {}
    first: dict[str, list[bool]] = {}
    for example in examples():
        scores = [scored.score for scored in pruner.score(example.query, example.chunks)]
        order = sorted(range(len(scores)), key=lambda place: -scores[place])
        ranked = [example.labels[place] for place in order]
        best = sum(1 / math.log2(rank + 2) for rank in range(sum(ranked)))
        found = sum(label / math.log2(rank + 2) for rank, label in enumerate(ranked))
        quality.setdefault(example.source, []).append(found / best)
        first.setdefault(example.source, []).append(ranked[0])
    figures = dev.judge(weights)
    for source in ("novels", "seas"):
        assert figures.ndcg_by_source[source] == pytest.approx(np.mean(quality[source]))
        assert figures.gold_first_by_source[source] == pytest.approx(np.mean(first[source]))
    assert figures.ndcg == pytest.approx(np.mean(list(figures.ndcg_by_source.values())))
    assert figures.gold_first == pytest.approx(np.mean(list(figures.gold_first_by_source.values())))


def test_figures_of_scores_set_by_hand() -> None:
    labels = [False, True, False, False, True, False, False, False]
    scores = np.array([3, 2, 1, 0, 5, 4, 3, 2], dtype=np.float16)
    stored = scores.reshape(8, 1, 1, 1).repeat(2, axis=1)
    dev = DevSet(
        ShardFeatures(np.array([0, 1]), np.array([4, 4]), np.array(labels), stored, stored),
        ("a", "b"),
        {},
    )
    weights = HeadWeights(np.ones((1, 1, 1), np.float32), 0.0, FeatureSpec("log_ratio", ("apart",)))
    figures = dev.judge(weights)
    assert figures.ndcg_by_source == pytest.approx({"a": 1 / math.log2(3), "b": 1.0})
    assert figures.gold_first_by_source == {"a": 0.0, "b": 1.0}
    assert figures.gold_first == 0.5


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


def test_a_second_run_reads_nothing_again(model: ScoringModel, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    for _ in range(2):
        calls.clear()
        collect_dev(
            model,
            examples(),
            tmp_path,
            left_out={},
            reading="independent",
            fingerprint="f",
            progress=lambda *numbers: calls.append(numbers),
        )
    assert calls == [(8, 8)]


def test_dev_examples_that_were_trained_on_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    trained, other = planted_examples(["novels"], each=4), planted_examples(["seas"], each=4)
    assert (
        count_shared([replace(one, query=f"{one.query} {one.id}") for one in other], trained) == 0
    )
    assert caplog.records == []
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
