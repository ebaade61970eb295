"""What sentence weights are fitted to, against the pruner's own scores of sentences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from at2_rag import AT2Pruner, Chunk
from at2_rag.data.examples import Example
from at2_rag.errors import DataError
from at2_rag.model.loading import LoadedModel
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.training.calibrating.fit import LabelledCall
from at2_rag.training.collection.sentence_reading import collect_sentences, sentence_calls
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import random_weights

CHUNKS = (
    Chunk("Emma was born in Steventon. It is small.", "Emma"),
    Chunk(" "),
    Chunk("Boats pass. A mill stands there."),
)


@pytest.fixture(scope="module")
def weights() -> HeadWeights:
    return random_weights(tiny_model(), tiny_tokenizer(), "together", "apart")


def example(name: str, query: str = "where was Emma born?", **given: object) -> Example:
    chunks, labels = CHUNKS, (True, False, False)
    return Example(name, "s", query, chunks, labels, ("Steventon",), **given)  # type: ignore[arg-type]


def model(weights: HeadWeights) -> ScoringModel:
    return ScoringModel(tiny_model(), tiny_tokenizer(), depth=weights.layers)


def test_scores_are_those_of_the_pruner_and_read_once(
    weights: HeadWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blank = Example("b", "s", "why?", (Chunk(""), Chunk(" ")), (True, False))
    examples = [example("1"), blank, example("2", "who?"), example("3", "x " * 9000)]
    found = collect_sentences(model(weights), weights, examples, tmp_path, workers=2)
    assert sorted(found) == [0, 2]  # a blank one has none, and a question may be too long
    pruner = AT2Pruner(LoadedModel(tiny_model(), tiny_tokenizer()), head_weights=weights)
    for place in (0, 2):
        expected = [own.score for own in pruner.score_sentences(examples[place].query, CHUNKS)]
        assert found[place] == pytest.approx(expected, abs=1e-4)
    monkeypatch.setattr(
        "at2_rag.training.collection.sentence_reading._scores", None
    )  # nothing is read
    again = collect_sentences(model(weights), weights, examples, tmp_path, workers=2)
    assert {place: own.tolist() for place, own in again.items()} == {
        place: own.tolist() for place, own in found.items()
    }


def test_other_weights_have_a_folder_of_their_own(weights: HeadWeights, tmp_path: Path) -> None:
    other = HeadWeights(
        2 * weights.weight,
        weights.bias,
        weights.spec,
        fingerprint=weights.fingerprint,
        template_hash=weights.template_hash,
    )
    one = collect_sentences(model(weights), weights, [example("1")], tmp_path)
    two = collect_sentences(model(weights), other, [example("1")], tmp_path)
    bias = weights.bias
    assert two[0] - bias == pytest.approx(2 * (one[0] - bias), rel=1e-3, abs=1e-3)
    folders = list(tmp_path.iterdir())
    assert len(folders) == 2
    for shard in (path for folder in folders for path in folder.iterdir()):
        if shard.suffix == ".json":
            shard.write_text('{"format": 0}')
    with pytest.raises(DataError):
        collect_sentences(model(weights), weights, [example("1")], tmp_path)


def test_a_call_counts_before_and_after_asking_again() -> None:
    def call(place: int, answerable: bool | None = None) -> LabelledCall:
        gold = np.array([True, False, False])
        features = np.zeros((3, 2), np.float32)
        return LabelledCall("s", place, features, gold, answerable=answerable, example=place)

    examples = [example("1"), example("2", gold_sentences=((), (), ("Boats pass.",)))]
    own = {place: np.arange(4, dtype=np.float32) + place for place in (0, 1)}
    first = [np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0]), np.zeros(3)]
    calls = [call(0), call(1), call(0, answerable=True)]
    found = sentence_calls(
        calls, examples, own, first, {1: np.array([7.0, 8.0, 9.0])}, [0.1, 0.2, 0.3]
    )
    assert [(one.fold, one.evidence, one.gold.tolist()) for one in found] == [
        (0, 0.1, [True, False, False, False]),
        (1, 0.2, [False, False, True, False]),
        (1, 0.2, [False, False, True, False]),
    ]
    assert found[0].terms.tolist() == [[1, 1, 0], [1, 1, 1], [3, 3, 2], [3, 3, 3]]
    assert found[1].terms.tolist() == [[4, 4, 1], [4, 4, 2], [6, 6, 3], [6, 6, 4]]
    assert found[2].terms.tolist() == [[7, 4, 1], [7, 4, 2], [9, 6, 3], [9, 6, 4]]
