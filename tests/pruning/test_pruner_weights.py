"""Which head weights a pruner takes, which it refuses, and how it loads its model."""

from __future__ import annotations

import dataclasses
import shutil
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
    ModelNotFoundError,
    TokenCounterError,
    UnsupportedModelError,
)
from at2_rag.model.fingerprint import model_fingerprint
from at2_rag.model.hub import DEFAULT_MODEL
from at2_rag.model.loading import LoadedModel
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.readout.head_weights import HeadWeights, shipped_names
from at2_rag.readout.lookup import named_or_folder
from tests.tiny_models import tiny_model, tiny_tokenizer, vision_model
from tests.tiny_weights import random_weights

QUERY = "who wrote the novel Emma?"
CHUNKS = ["Jane Austen wrote Emma in 1815.", "The river flows to the sea.", "It spans the harbour."]


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


@pytest.fixture(scope="module")
def weights(model: Any) -> HeadWeights:
    return random_weights(model, tiny_tokenizer(), "together", "apart")


@pytest.fixture(scope="module")
def folder(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AT2_RAG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def make(model: Any, head_weights: Any, **options: Any) -> AT2Pruner:
    tokenizer = options.pop("tokenizer", tiny_tokenizer())
    return AT2Pruner(LoadedModel(model, tokenizer), head_weights=head_weights, **options)


def scores(pruner: AT2Pruner) -> list[float]:
    return [scored.score for scored in pruner.score(QUERY, CHUNKS)]


# --- what is taken ---------------------------------------------------------------------------


def test_weights_may_be_an_object_or_a_folder(
    model: Any, weights: HeadWeights, tmp_path: Path
) -> None:
    weights.save(tmp_path / "mine")
    expected = scores(make(model, weights))
    assert scores(make(model, tmp_path / "mine")) == expected
    with pytest.raises(HeadWeightsNotFoundError, match="pass a folder as a Path"):
        make(model, str(tmp_path / "mine"))


def test_the_reading_follows_the_weights(model: Any, weights: HeadWeights) -> None:
    joint = random_weights(model, tiny_tokenizer(), "joint")
    assert make(model, weights).reading == "independent"
    assert make(model, joint).reading == "joint"
    assert make(model, joint, reading="joint").reading == "joint"
    assert make(model, "uniform").reading == "independent"
    assert make(model, "uniform", reading="joint").reading == "joint"


def test_only_the_layers_with_weights_run(model: Any) -> None:
    assert model.config.num_hidden_layers == 3
    shallow = random_weights(model, tiny_tokenizer(), "together", layers=1)
    damaged = tiny_model()
    with torch.no_grad():
        for layer in damaged.model.layers[1:]:
            for parameter in layer.parameters():
                parameter.fill_(torch.nan)
    unbound = dataclasses.replace(shallow, fingerprint=None)
    assert scores(make(damaged, unbound)) == pytest.approx(scores(make(model, shallow)), abs=1e-6)


def test_a_base_model_scores_as_the_whole_one(model: Any, weights: HeadWeights) -> None:
    assert scores(make(model.model, weights)) == scores(make(model, weights))


# --- what is refused -------------------------------------------------------------------------


def test_weights_of_the_other_reading_name_both(model: Any, weights: HeadWeights) -> None:
    with pytest.raises(HeadWeightsMismatchError) as error:
        make(model, weights, reading="joint")
    assert "reading 'independent'" in str(error.value) and "'joint'" in str(error.value)


def test_weights_of_another_model_of_the_same_shape(model: Any, weights: HeadWeights) -> None:
    other = tiny_model(seed=1)
    with pytest.raises(HeadWeightsMismatchError) as error:
        make(other, weights)
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
        make(tiny_model(**shape), weights)
    assert all(number in str(error.value) for number in numbers)


def test_weights_of_another_prompt_template(model: Any, weights: HeadWeights) -> None:
    plain = tiny_tokenizer(chat_template=False)
    with pytest.raises(HeadWeightsMismatchError) as error:
        make(model, weights, tokenizer=plain)
    got = ScoringModel(model, plain, depth=1).prompts.template_hash
    assert "another prompt template" in str(error.value)
    assert f"expected {weights.template_hash}, got {got}" in str(error.value)


@pytest.mark.parametrize("reading", [None, "independent", "joint"])
def test_a_model_without_weights_names_the_ways_out(model: Any, reading: Any) -> None:
    with pytest.raises(HeadWeightsNotFoundError) as error:
        make(model, None, reading=reading)
    fingerprint = model_fingerprint(model.model, tiny_tokenizer())
    for part in ("at2-rag train", 'head_weights="uniform"', fingerprint[:12]):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("name", "reading", "command"),
    [
        ("", None, "--model MODEL --reading independent --output FOLDER`"),
        ("", "joint", "--model MODEL --reading joint --output FOLDER`"),
        ("me/my-model", "joint", "--model me/my-model --reading joint --output FOLDER`"),
        ("my models/a", None, "--model 'my models/a' --reading independent --output FOLDER`"),
    ],
)
def test_the_command_that_fits_weights_can_be_typed(name: str, reading: Any, command: str) -> None:
    model = tiny_model()
    model.config.name_or_path = name
    with pytest.raises(HeadWeightsNotFoundError) as error:
        make(model, None, reading=reading)
    assert f"`at2-rag train DATA {command}" in str(error.value)


def test_a_misspelt_name_lists_the_shipped_weights(
    model: Any, weights: HeadWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HeadWeightsNotFoundError, match="'together-appart'") as error:
        make(model, "together-appart")
    assert all(name in str(error.value) for name in ("uniform", *shipped_names()))
    assert named_or_folder("together-appart") == "together-appart"
    assert named_or_folder("./together-appart") == Path("together-appart")
    weights.save("together-appart")
    assert named_or_folder("together-appart") == Path("together-appart")
    (tmp_path / "best").mkdir()
    assert (named_or_folder("best"), named_or_folder(None)) == ("best", None)


def test_weights_that_are_not_there(model: Any, tmp_path: Path) -> None:
    with pytest.raises(HeadWeightsNotFoundError, match="no-such-folder"):
        make(model, tmp_path / "no-such-folder")
    with pytest.raises(HeadWeightsNotFoundError, match=r"head_weights\.safetensors"):
        make(model, tmp_path)


@pytest.mark.parametrize("reading", ["independent", "joint"])
def test_models_without_heads_are_refused_by_name(reading: Any) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "state_size": 4, "vocab_size": 384}
    kind: Any = AutoModelForCausalLM
    mamba = kind.from_config(AutoConfig.for_model("mamba", **sizes))
    for model, family in ((mamba, "mamba"), (vision_model(), "gemma3")):
        with pytest.raises(UnsupportedModelError, match=f"family '{family}'"):
            make(model, "uniform", reading=reading)


def test_a_family_that_cannot_be_read_independently_is_told_to_read_jointly() -> None:
    gemma = tiny_model("gemma2")
    with pytest.raises(UnsupportedModelError, match='reading="joint"'):
        make(gemma, "uniform")
    assert len(scores(make(gemma, "uniform", reading="joint"))) == len(CHUNKS)


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("reading", "both", InputError),
        ("on_error", "ignore", InputError),
        ("token_counter", 5, TokenCounterError),
    ],
)
def test_unknown_options_are_named(
    model: Any, option: str, value: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match=repr(value) if isinstance(value, str) else "int"):
        make(model, "uniform", **{option: value})


# --- loading ---------------------------------------------------------------------------------


def test_a_saved_model_scores_as_the_one_in_hand(
    model: Any, weights: HeadWeights, folder: Path
) -> None:
    expected = scores(make(model, weights))
    options: dict[str, Any] = {"head_weights": weights, "dtype": "float32", "device": "cpu"}
    for name in (folder, str(folder)):
        loaded = AT2Pruner.from_pretrained(name, **options)
        assert scores(loaded) == pytest.approx(expected, abs=1e-5)


def test_a_path_is_a_folder_and_never_a_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("owner/name", DEFAULT_MODEL):
        with pytest.raises(ModelNotFoundError, match=f"no model folder '{name}'"):
            AT2Pruner.from_pretrained(Path(name), head_weights="uniform")
    shutil.copytree(folder, DEFAULT_MODEL)
    pruner = AT2Pruner.from_pretrained(Path(DEFAULT_MODEL), head_weights="uniform")
    assert pruner.scoring_model.layers == 3


@pytest.mark.parametrize("dtype", ["int8", "f32", "", "double"])
def test_an_unknown_dtype_is_named_before_anything_is_loaded(dtype: str) -> None:
    with pytest.raises(InputError, match=f"dtype is '{dtype}'.*'bfloat16'"):
        AT2Pruner.from_pretrained("no/such-model", head_weights="uniform", dtype=dtype)


def test_weights_belong_to_the_model_in_any_dtype_and_folder(
    model: Any, weights: HeadWeights, folder: Path, cache: Path
) -> None:
    options: dict[str, Any] = {"head_weights": weights, "dtype": "bfloat16"}
    fresh = AT2Pruner.from_pretrained(folder, **options)
    remembered = AT2Pruner.from_pretrained(folder, **options)
    assert len(list((cache / "fingerprints").iterdir())) == 1
    assert scores(remembered) == pytest.approx(scores(fresh), abs=1e-4)


def test_a_model_changed_in_place_is_no_longer_the_one_remembered(
    weights: HeadWeights, tmp_path: Path
) -> None:
    for seed in (0, 1):
        tiny_model(seed=seed).save_pretrained(tmp_path / "tiny")
        tiny_tokenizer().save_pretrained(tmp_path / "tiny")
        if seed == 0:
            AT2Pruner.from_pretrained(tmp_path / "tiny", head_weights=weights)
    with pytest.raises(HeadWeightsMismatchError, match="another scoring model"):
        AT2Pruner.from_pretrained(tmp_path / "tiny", head_weights=weights)


def test_a_folder_that_is_not_a_model(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no config\.json"):
        AT2Pruner.from_pretrained(tmp_path, head_weights="uniform")
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in folder.iterdir():
        data = path.read_bytes()
        (broken / path.name).write_bytes(data[:1000] if "safetensors" in path.name else data)
    with pytest.raises(ModelNotFoundError, match=r"broken.* can't be loaded as a model"):
        AT2Pruner.from_pretrained(broken, head_weights="uniform")
