"""What sentence weights are fitted to, against the pruner's scores of sentences."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from at2_rag import AT2Pruner, Chunk
from at2_rag.data.examples import Example
from at2_rag.model.loading import LoadedModel
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.training.collection.collection import TOO_LONG, Collected
from at2_rag.training.collection.sentences import SentenceCollection
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import exact, random_weights, shortlist_weights
from tests.training.small_examples import scoring_model

CHUNKS = (
    Chunk("Emma was once born in Steventon. Most houses there are very small.", "Emma"),
    Chunk(" "),
    Chunk("Boats pass the town every day. An old mill stands there too."),
)


@pytest.fixture(scope="module")
def weights() -> HeadWeights:
    return random_weights(tiny_model(), tiny_tokenizer(), "together", "apart")


def example(name: str, query: str = "where was Emma born?") -> Example:
    return Example(name, "s", query, CHUNKS, (True, False, False), ("Steventon",))


def collect(weights: HeadWeights, examples: list[Example], folder: Path) -> Collected:
    model = scoring_model(weights.layers)
    return SentenceCollection(model, weights, examples, folder).collect(workers=2)


def test_scores_are_those_of_the_pruner(weights: HeadWeights, tmp_path: Path) -> None:
    blank = Example("b", "s", "why?", (Chunk(""), Chunk(" ")), (True, False))
    examples = [example("1"), blank, example("2", "who?"), example("3", "x " * 9000)]
    collected = collect(weights, examples, tmp_path)
    assert sorted(collected.rows) == [0, 2]
    assert collected.left_out == {1: "without text", 3: TOO_LONG}
    pruner = exact(AT2Pruner(LoadedModel(tiny_model(), tiny_tokenizer()), head_weights=weights))
    for item, row in collected.rows.items():
        expected = [one.score for one in pruner.score_sentences(examples[item].query, CHUNKS)]
        assert row["scores"] == pytest.approx(expected, abs=1e-4)


def test_each_weights_have_a_folder_of_their_own(weights: HeadWeights, tmp_path: Path) -> None:
    other = dataclasses.replace(weights, weight=2 * weights.weight)
    one, two = (collect(some, [example("1")], tmp_path).rows[0] for some in (weights, other))
    bias = weights.bias
    assert two["scores"] - bias == pytest.approx(2 * (one["scores"] - bias), rel=1e-3, abs=1e-3)
    assert len(list(tmp_path.iterdir())) == 2


def test_each_shortlist_has_a_folder_of_its_own(tmp_path: Path) -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    for numbers in ({}, {"most": 2}, {"slope": 0.75}, {"constant": 1.0}):
        weights = shortlist_weights(model, tokenizer, **numbers)
        [row] = collect(weights, [example("1")], tmp_path).rows.values()
        pruner = exact(AT2Pruner(LoadedModel(model, tokenizer), head_weights=weights))
        expected = [one.score for one in pruner.score_sentences(example("1").query, CHUNKS)]
        assert row["scores"] == pytest.approx(expected, abs=1e-3)
    assert len(list(tmp_path.iterdir())) == 4
