"""Features of ablated answers: those that attribution uses, kept and resumed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from at2_rag.attribution import AT2Attributor
from at2_rag.data.examples import Example
from at2_rag.errors import DataError, InputError
from at2_rag.model.fingerprint import model_fingerprint
from at2_rag.model.loading import LoadedModel
from at2_rag.reading.answer_pass import read_answer
from at2_rag.reading.features import FeatureSpec
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.text.chunks import Chunk
from at2_rag.training.answering.answer_model import AnswerModel
from at2_rag.training.collection import answer_features
from at2_rag.training.collection.ablations import AblationPlan
from at2_rag.training.collection.answer_features import ANSWERS_FOLDER, with_answer_features
from at2_rag.training.collection.shards import Sample
from at2_rag.training.collection.store import ShardAblations
from at2_rag.training.fitting import ablation_validation
from at2_rag.training.fitting.ablation_trainer import train_on_ablations
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.training.collection.test_ablations import run
from tests.training.collection.test_features import DEPTH, make_examples


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_features, "SHARD_SAMPLES", 2)


def own_samples(examples: list[Example], collected: ShardAblations) -> list[Sample]:
    """Samples without added chunks, as those examples are collected that have five."""
    return [
        Sample(int(index), examples[index].chunks, examples[index].labels, own=5)
        for index in collected.examples
    ]


def examples_of_five(count: int = 5) -> list[Example]:
    chunks = [Chunk(f"Chunk {number} of the river and the sea.") for number in range(5)]
    return [
        Example(str(number), "a", f"what is {number}?", tuple(chunks), (True, *[False] * 4))
        for number in range(count)
    ]


def collected_of(
    monkeypatch: pytest.MonkeyPatch, folder: Path, examples: list[Example]
) -> ShardAblations:
    monkeypatch.setattr("at2_rag.training.collection.shards.PADDED_SHARE", 0.0)
    return run(folder, examples)


def test_features_are_those_of_attribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = examples_of_five()
    collected = collected_of(monkeypatch, tmp_path, examples)
    samples = own_samples(examples, collected)
    model = ScoringModel(tiny_model(), tiny_tokenizer(), depth=DEPTH)
    calls: list[tuple[int, int]] = []
    found = with_answer_features(
        model,
        examples,
        collected,
        samples,
        tmp_path / "answers",
        identity="x",
        workers=2,
        progress=lambda *numbers: calls.append(numbers),
    )
    assert calls == [(2, 5), (4, 5), (5, 5)]
    assert np.array_equal(found.masks, collected.masks)
    answers = found.answers_of_samples()
    for number, sample in enumerate(samples):
        query = examples[sample.example].query
        layout = model.prompts.conversation(query, sample.chunks, answers[number])
        spans = layout.prompt.source_spans
        with torch.inference_mode():
            [expected] = read_answer(model, layout, [(0, len(layout.answer_ids))], spans)
        own = slice(5 * number, 5 * number + 5)
        assert np.exp(found.log_mass[own, 0].astype(float)) == pytest.approx(
            expected.mass.permute(2, 0, 1).numpy(), rel=1e-2, abs=1e-4
        )
        assert found.log_ratio[own, 0] == pytest.approx(
            expected.log_ratio.permute(2, 0, 1).numpy(), rel=2e-3, abs=1e-3
        )


def test_what_was_read_is_not_read_again_and_not_mixed_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = examples_of_five()
    collected = collected_of(monkeypatch, tmp_path, examples)
    samples = own_samples(examples, collected)
    model = ScoringModel(tiny_model(), tiny_tokenizer(), depth=DEPTH)

    def read(identity: str = "x") -> ShardAblations:
        return with_answer_features(
            model, examples, collected, samples, tmp_path / "answers", identity=identity
        )

    first = read()
    (tmp_path / "answers" / "shard-00001.safetensors").unlink()
    kept = (tmp_path / "answers" / "shard-00000.safetensors").stat().st_mtime_ns
    again = read()
    assert np.array_equal(first.log_mass, again.log_mass)
    assert (tmp_path / "answers" / "shard-00000.safetensors").stat().st_mtime_ns == kept
    with pytest.raises(DataError, match="ablations: 'x' there, 'y' now"):
        read("y")


def test_answers_longer_than_the_window_are_left_out_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = examples_of_five(3)
    long = tuple(Chunk(f"{number} " + "river " * 500) for number in range(5))
    examples.append(dataclasses.replace(examples[0], id="long", chunks=long))
    collected = collected_of(monkeypatch, tmp_path, examples)
    samples = own_samples(examples, collected)
    model = ScoringModel(tiny_model(), tiny_tokenizer(), depth=DEPTH)
    assert len(samples) == 4
    found = with_answer_features(
        model, examples, collected, samples, tmp_path / "answers", identity="x"
    )
    assert found.examples.tolist() == [0, 1, 2]
    assert found.left_out.reshape(-1, 3).sum(0).tolist() == [0, 1, 0]
    assert len(found.log_mass) == 15
    for before, after in zip(
        collected.token_logits_of_samples()[:3], found.token_logits_of_samples(), strict=True
    ):
        assert np.array_equal(before, after)
    with pytest.raises(InputError, match="none of the 1 samples fits the model's window"):
        with_answer_features(
            model,
            examples,
            collected.take(np.array([False] * 3 + [True])),
            samples[3:],
            tmp_path / "none",
            identity="x",
        )


def test_weights_for_answers_are_the_attributors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablation_validation, "LEAST_CONTRIBUTION", 1e-3)
    model, tokenizer = tiny_model(), tiny_tokenizer()
    training = train_on_ablations(
        ScoringModel(model, tokenizer, depth=DEPTH),
        AnswerModel(model, tokenizer),
        make_examples("ab", each=6),
        tmp_path,
        fingerprint=model_fingerprint(model.base_model, tokenizer),
        target="answer",
        plan=AblationPlan(masks=6, answer_tokens=4),
    )
    assert {result.candidate.spec.passes for result in training.results} == {("joint",)}
    assert training.weights.target_rule == "answer" and training.weights.reading == "joint"
    assert (tmp_path / ANSWERS_FOLDER / "collection.json").exists()
    attributor = AT2Attributor(LoadedModel(model, tokenizer), head_weights=training.weights)
    attribution = attributor.attribute("who wrote Emma?", ["Jane Austen did.", "A sea."], "Austen")
    assert len(attribution.chunks) == 2
    with pytest.raises(InputError, match="to be fitted for is 'joint'"):
        train_on_ablations(
            ScoringModel(model, tokenizer, depth=DEPTH),
            AnswerModel(model, tokenizer),
            make_examples("ab", each=6),
            tmp_path,
            fingerprint="f",
            target="answer",
            specs=[FeatureSpec("mass", ("together",))],
        )
