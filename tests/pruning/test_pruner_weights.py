"""Which head weights a pruner takes, which it refuses, and how it loads its model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from at2_rag import AT2Pruner
from at2_rag.errors import (
    HeadWeightsMismatchError,
    HeadWeightsNotFoundError,
    InputError,
    TokenCounterError,
    UnsupportedModelError,
)
from at2_rag.model.fingerprint import model_fingerprint
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.readout.head_weights import HeadWeights, shipped_names
from at2_rag.readout.shipped import named_or_folder
from tests.tiny_models import tiny_model, tiny_tokenizer, vision_model
from tests.tiny_weights import random_weights, tiny_pruner

QUERY = "who wrote the novel Emma?"
CHUNKS = ["Jane Austen wrote Emma in 1815.", "The river flows to the sea.", "It spans the harbour."]


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


@pytest.fixture(scope="module")
def weights(model: Any) -> HeadWeights:
    return random_weights(model, tiny_tokenizer(), "together", "apart")


def scores(pruner: AT2Pruner) -> list[float]:
    return [scored.score for scored in pruner.score(QUERY, CHUNKS)]


# --- what is taken ---------------------------------------------------------------------------


def test_weights_may_be_an_object_or_a_folder(
    model: Any, weights: HeadWeights, tmp_path: Path
) -> None:
    weights.save(tmp_path / "mine")
    expected = scores(tiny_pruner(weights, model))
    assert scores(tiny_pruner(tmp_path / "mine", model)) == expected
    with pytest.raises(HeadWeightsNotFoundError, match="pass a folder as a Path"):
        tiny_pruner(str(tmp_path / "mine"), model)


def test_the_reading_follows_the_weights(model: Any, weights: HeadWeights) -> None:
    joint = random_weights(model, tiny_tokenizer(), "joint")
    assert tiny_pruner(weights).reading == tiny_pruner().reading == "independent"
    assert tiny_pruner(joint).reading == tiny_pruner(joint, reading="joint").reading == "joint"
    assert tiny_pruner(reading="joint").reading == "joint"
    with pytest.raises(HeadWeightsMismatchError, match="reading 'independent', not for 'joint'"):
        tiny_pruner(weights, reading="joint")


def test_only_the_layers_with_weights_run(model: Any) -> None:
    assert model.config.num_hidden_layers == 3
    shallow = random_weights(model, tiny_tokenizer(), "together", layers=1)
    damaged = tiny_model()
    with torch.no_grad():
        for layer in damaged.model.layers[1:]:
            for parameter in layer.parameters():
                parameter.fill_(torch.nan)
    unbound = dataclasses.replace(shallow, fingerprint=None)
    assert scores(tiny_pruner(unbound, damaged)) == pytest.approx(
        scores(tiny_pruner(shallow, model)), abs=1e-6
    )


def test_a_base_model_scores_as_the_whole_one(model: Any, weights: HeadWeights) -> None:
    assert scores(tiny_pruner(weights, model.model)) == scores(tiny_pruner(weights, model))


# --- what is refused -------------------------------------------------------------------------


def test_weights_of_another_model_of_the_same_shape(model: Any, weights: HeadWeights) -> None:
    other = tiny_model(seed=1)
    with pytest.raises(HeadWeightsMismatchError) as error:
        tiny_pruner(weights, other)
    expected, got = weights.fingerprint, model_fingerprint(other.model, tiny_tokenizer())
    assert f"expected {expected}, got {got}" in str(error.value)
    assert 'head_weights="uniform"' in str(error.value)
    assert "fitted on tiny" in str(error.value)


@pytest.mark.parametrize(
    ("shape", "numbers"),
    [
        ({"num_attention_heads": 8, "hidden_size": 64}, ("2 layers of 4", "3 of 8")),
        ({"num_hidden_layers": 1}, ("2 layers of 4", "1 of 4")),
    ],
    ids=["heads", "layers"],
)
def test_weights_of_a_model_of_another_shape(
    weights: HeadWeights, shape: dict[str, Any], numbers: tuple[str, str]
) -> None:
    with pytest.raises(HeadWeightsMismatchError) as error:
        tiny_pruner(weights, tiny_model(**shape))
    assert all(number in str(error.value) for number in numbers)


def test_weights_of_another_prompt_template(model: Any, weights: HeadWeights) -> None:
    plain = tiny_tokenizer(chat_template=False)
    with pytest.raises(HeadWeightsMismatchError) as error:
        tiny_pruner(weights, model, tokenizer=plain)
    got = ScoringModel(model, plain, depth=1).prompts.template_hash(weights.reading)
    assert "another prompt template" in str(error.value)
    assert f"expected {weights.template_hash}, got {got}" in str(error.value)


@pytest.mark.parametrize(
    ("name", "reading", "command"),
    [
        ("", None, "--model MODEL --reading independent --output FOLDER`"),
        ("me/my-model", "joint", "--model me/my-model --reading joint --output FOLDER`"),
        ("my models/a", None, "--model 'my models/a' --reading independent --output FOLDER`"),
    ],
)
def test_a_model_without_weights_names_the_ways_out(name: str, reading: Any, command: str) -> None:
    model = tiny_model()
    model.config.name_or_path = name
    with pytest.raises(HeadWeightsNotFoundError) as error:
        tiny_pruner(None, model, reading=reading)
    fingerprint = model_fingerprint(model.model, tiny_tokenizer())
    for part in (f"`at2-rag train DATA {command}", 'head_weights="uniform"', fingerprint[:12]):
        assert part in str(error.value)


def test_a_misspelt_name_lists_the_shipped_weights(
    model: Any, weights: HeadWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HeadWeightsNotFoundError, match="'together-appart'") as error:
        tiny_pruner("together-appart", model)
    assert all(name in str(error.value) for name in ("uniform", *shipped_names()))
    assert named_or_folder("together-appart") == "together-appart"
    assert named_or_folder("./together-appart") == Path("together-appart")
    weights.save("together-appart")
    assert named_or_folder("together-appart") == Path("together-appart")
    (tmp_path / "best").mkdir()
    assert (named_or_folder("best"), named_or_folder(None)) == ("best", None)


@pytest.mark.parametrize("reading", ["independent", "joint"])
def test_models_without_heads_are_refused_by_name(reading: Any) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "state_size": 4, "vocab_size": 384}
    kind: Any = AutoModelForCausalLM
    mamba = kind.from_config(AutoConfig.for_model("mamba", **sizes))
    for model, family in ((mamba, "mamba"), (vision_model(), "gemma3")):
        with pytest.raises(UnsupportedModelError, match=f"family '{family}'"):
            tiny_pruner("uniform", model, reading=reading)


def test_a_family_that_cannot_be_read_independently_names_joint_reading() -> None:
    gemma = tiny_model("gemma2")
    with pytest.raises(UnsupportedModelError, match='reading="joint"'):
        tiny_pruner("uniform", gemma)
    assert len(scores(tiny_pruner("uniform", gemma, reading="joint"))) == len(CHUNKS)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"reading": "both"}, InputError, "'both'"),
        ({"on_error": "ignore"}, InputError, "'ignore'"),
        ({"token_counter": 5}, TokenCounterError, "int"),
    ],
)
def test_unknown_options_are_named(options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        tiny_pruner(**options)


# --- loading ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["int8", "f32", "", "double"])
def test_an_unknown_dtype_is_named_before_anything_is_loaded(dtype: str) -> None:
    with pytest.raises(InputError, match=f"dtype is '{dtype}'.*'bfloat16'"):
        AT2Pruner.from_pretrained("no/such-model", head_weights="uniform", dtype=dtype)


def test_a_saved_model_scores_as_the_one_in_hand_in_any_dtype(
    weights: HeadWeights, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AT2_RAG_CACHE", str(tmp_path))
    for dtype, tolerance in (("float32", 1e-5), ("bfloat16", 0.5)):
        options: dict[str, Any] = {"head_weights": weights, "dtype": dtype, "device": "cpu"}
        loaded = AT2Pruner.from_pretrained(model_folder, **options)
        assert scores(loaded) == pytest.approx(scores(tiny_pruner(weights)), abs=tolerance)
        again = AT2Pruner.from_pretrained(str(model_folder), **options)
        assert scores(again) == pytest.approx(scores(loaded), abs=1e-4)
    assert len(list((tmp_path / "fingerprints").iterdir())) == 2, "one a dtype"


def test_a_model_changed_in_place_is_no_longer_the_one_remembered(
    weights: HeadWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AT2_RAG_CACHE", str(tmp_path / "cache"))
    for seed in (0, 1):
        tiny_model(seed=seed).save_pretrained(tmp_path / "tiny")
        tiny_tokenizer().save_pretrained(tmp_path / "tiny")
        if seed == 0:
            AT2Pruner.from_pretrained(tmp_path / "tiny", head_weights=weights)
    with pytest.raises(HeadWeightsMismatchError, match="another scoring model"):
        AT2Pruner.from_pretrained(tmp_path / "tiny", head_weights=weights)
