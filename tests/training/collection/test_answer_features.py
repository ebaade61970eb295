"""Features of ablated answers are those that attribution uses."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from at2_rag.data.examples import Example
from at2_rag.errors import DataError, InputError
from at2_rag.reading.answer_pass import read_answer
from at2_rag.text.chunks import Chunk
from at2_rag.training.collection import answer_features
from at2_rag.training.collection.ablations import AblationCollection, AblationPlan
from at2_rag.training.collection.answer_features import ANSWERS_FOLDER, AnswerFeatureCollection
from at2_rag.training.collection.collection import TOO_LONG
from tests.training.small_examples import answer_model, scoring_model


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two answers a shard, and no added chunks."""
    monkeypatch.setattr(answer_features, "SHARD_SAMPLES", 2)
    monkeypatch.setattr("at2_rag.training.collection.samples.PADDED_SHARE", 0.0)


def examples_of_five(count: int) -> list[Example]:
    chunks = tuple(Chunk(f"Chunk {number} of the river and the sea.") for number in range(5))
    return [
        Example(str(number), "a", f"what is {number}?", chunks, (True, *[False] * 4))
        for number in range(count)
    ]


def ablations_of(folder: Path, examples: list[Example], *, seed: int = 0) -> AblationCollection:
    plan = AblationPlan(masks=6, answer_tokens=4)
    return AblationCollection(
        scoring_model(), answer_model(), examples, folder, fingerprint="f", seed=seed, plan=plan
    )


def test_features_are_those_of_attribution(tmp_path: Path) -> None:
    examples, model = examples_of_five(5), scoring_model()
    ablations = ablations_of(tmp_path, examples)
    ablated = ablations.collect().rows
    collected = AnswerFeatureCollection(model, examples, ablations, ablated).collect(workers=2)
    assert list(collected.rows) == list(ablated)
    assert len(list((tmp_path / ANSWERS_FOLDER).glob("shard-*"))) == 3
    for item, row in collected.rows.items():
        answer = ablated[item]["answer"].tobytes().decode()
        layout = model.prompts.conversation(examples[item].query, examples[item].chunks, answer)
        spans = layout.prompt.source_spans
        with torch.inference_mode():
            [expected] = read_answer(model, layout, [(0, len(layout.answer_ids))], spans)
        assert np.exp(row["log_mass"][:, 0].astype(float)) == pytest.approx(
            expected.mass.permute(2, 0, 1).numpy(), rel=1e-2, abs=1e-4
        )
        assert row["log_ratio"][:, 0] == pytest.approx(
            expected.log_ratio.permute(2, 0, 1).numpy(), rel=2e-3, abs=1e-3
        )


def test_features_of_other_ablations_are_refused(tmp_path: Path) -> None:
    examples, model = examples_of_five(2), scoring_model()
    ablations = ablations_of(tmp_path, examples)
    ablated = ablations.collect().rows
    AnswerFeatureCollection(model, examples, ablations, ablated).collect()
    other = ablations_of(tmp_path, examples, seed=1)
    with pytest.raises(DataError, match="ablations: '"):
        AnswerFeatureCollection(model, examples, other, {}).check()


def test_answers_longer_than_the_window_are_left_out(tmp_path: Path) -> None:
    examples, model = examples_of_five(3), scoring_model()
    long = tuple(Chunk(f"{number} " + "river " * 500) for number in range(5))
    examples.append(dataclasses.replace(examples[0], id="long", chunks=long))
    ablations = ablations_of(tmp_path, examples)
    ablated = ablations.collect().rows
    assert len(ablated) == 4
    collected = AnswerFeatureCollection(model, examples, ablations, ablated).collect()
    assert list(collected.rows) == [0, 1, 2] and collected.left_out == {3: TOO_LONG}
    alone = ablations_of(tmp_path / "alone", examples[3:])
    with pytest.raises(InputError, match="none of the 1 examples .*longer than the model's window"):
        AnswerFeatureCollection(model, examples[3:], alone, alone.collect().rows).collect()
