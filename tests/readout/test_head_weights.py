"""Head weights on disk and in use: whole or refused, and never code."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from at2_rag.errors import (
    HeadWeightsError,
    HeadWeightsNotFoundError,
)
from at2_rag.model.hub import resolve_model
from at2_rag.model.loading import LoadedModel
from at2_rag.reading.features import FeatureSpec
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.readout.files import DESCRIPTION_FILE, WEIGHTS_FILE
from at2_rag.readout.head_weights import HeadWeights, shipped_names
from at2_rag.readout.shipped import check_match
from tests.tiny_weights import change_description

SHIPPED = Path(__file__).parents[2] / "at2_rag" / "weights"
SHAPE = (2, 3, 4)


def make(**changes: Any) -> HeadWeights:
    rng = np.random.default_rng(0)
    weights = HeadWeights(
        weight=rng.normal(size=SHAPE).astype(np.float32),
        bias=1 / 3,
        spec=FeatureSpec("log", ("together", "apart")),
        fingerprint="f" * 64,
        template_hash="7" * 64,
        provenance={"model": "tiny", "data": ["a.jsonl"], "ridge": 0.01, "title": "Größe"},
    )
    return dataclasses.replace(weights, **changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make().save(tmp_path / "weights")
    return tmp_path / "weights"


def replace_tensors(folder: Path, raw: bytes) -> None:
    """Write other bytes instead of the weights, with the checksum to match."""
    (folder / WEIGHTS_FILE).write_bytes(raw)
    change_description(folder, sha256=hashlib.sha256(raw).hexdigest())


# --- on disk ---------------------------------------------------------------------------------


def test_what_is_saved_is_loaded_bit_by_bit(folder: Path, tmp_path: Path) -> None:
    weights, loaded = make(), HeadWeights.load(folder)
    assert loaded.weight.tobytes() == weights.weight.tobytes()
    assert loaded.weight.shape == SHAPE and loaded.weight.dtype == np.float32
    assert loaded.bias == weights.bias
    for name in ("spec", "fingerprint", "template_hash", "provenance"):
        assert getattr(loaded, name) == getattr(weights, name)
    loaded.save(tmp_path / "again")
    for path in folder.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_the_folder_holds_two_files_that_other_tools_read(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {WEIGHTS_FILE, DESCRIPTION_FILE}
    tensors = safetensors.numpy.load_file(folder / WEIGHTS_FILE)
    assert {name: value.shape for name, value in tensors.items()} == {
        "weight": SHAPE,
        "bias": (1,),
    }
    description = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
    raw = (folder / WEIGHTS_FILE).read_bytes()
    assert description["sha256"] == hashlib.sha256(raw).hexdigest()
    expected = {"layers": 3, "heads": 4, "reading": "independent", "target_rule": "question"}
    assert {name: description[name] for name in expected} == expected


@pytest.mark.parametrize("name", [WEIGHTS_FILE, DESCRIPTION_FILE])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(HeadWeightsNotFoundError, match=rf"No such file.*{name}.*at2-rag train"):
        HeadWeights.load(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no FIFOs")
@pytest.mark.parametrize("name", [WEIGHTS_FILE, DESCRIPTION_FILE])
def test_a_file_that_never_ends_is_not_read(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(HeadWeightsNotFoundError, match=f"not a regular file .*{name}"):
        HeadWeights.load(folder)
    (folder / name).unlink()
    (folder / name).symlink_to("/dev/zero")
    with pytest.raises(HeadWeightsNotFoundError, match=f"not a regular file .*{name}"):
        HeadWeights.load(folder)


@pytest.mark.parametrize("index", [0, -1])
def test_a_flipped_bit_is_seen(folder: Path, index: int) -> None:
    raw = bytearray((folder / WEIGHTS_FILE).read_bytes())
    whole = hashlib.sha256(raw).hexdigest()
    raw[index] ^= 1
    (folder / WEIGHTS_FILE).write_bytes(raw)
    with pytest.raises(HeadWeightsError) as error:
        HeadWeights.load(folder)
    got = hashlib.sha256(raw).hexdigest()
    assert f"expected SHA-256 {whole!r}, got {got!r}" in str(error.value)


@pytest.mark.parametrize("length", [0, -1])
def test_a_file_cut_short_is_seen_even_with_its_checksum(folder: Path, length: int) -> None:
    replace_tensors(folder, (folder / WEIGHTS_FILE).read_bytes()[:length])
    with pytest.raises(HeadWeightsError, match="unusable head weights"):
        HeadWeights.load(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"bias": None},
        {"weight": None},
        {"bias": np.zeros(0)},
        {"weight": np.zeros((3, 4), np.float32)},
    ],
    ids=str,
)
def test_unusable_tensors_are_refused(folder: Path, changes: dict[str, Any]) -> None:
    tensors = {"weight": np.zeros(SHAPE, np.float32), "bias": np.zeros(1), **changes}
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    replace_tensors(folder, safetensors.numpy.save(kept))
    with pytest.raises(HeadWeightsError, match="unusable head weights"):
        HeadWeights.load(folder)


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "boom")


@pytest.mark.parametrize("checksum", [False, True])
def test_a_pickle_is_refused_and_not_run(folder: Path, tmp_path: Path, checksum: bool) -> None:
    raw = pickle.dumps(Bomb(tmp_path / "boom"))
    if checksum:
        replace_tensors(folder, raw)
    else:
        (folder / WEIGHTS_FILE).write_bytes(raw)
    with pytest.raises(HeadWeightsError):
        HeadWeights.load(folder)
    assert not (tmp_path / "boom").exists()
    pickle.loads(raw)
    assert (tmp_path / "boom").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f"{DESCRIPTION_FILE} is not JSON"),
        ("\ufeffnot json", f"{DESCRIPTION_FILE} is not JSON"),
        ("[" * 200_000, f"{DESCRIPTION_FILE} is not JSON"),
        ("[]", "format version None"),
        ("null", "format version None"),
        ('{"format_version": 2}', "format version 2.*reads 1;"),
    ],
)
def test_a_description_of_another_form(folder: Path, text: str, message: str) -> None:
    (folder / DESCRIPTION_FILE).write_text(text, encoding="utf-8")
    with pytest.raises(HeadWeightsError, match=message):
        HeadWeights.load(folder)


@pytest.mark.parametrize(
    "key",
    ["quantity", "passes", "fingerprint", "template_hash", "provenance", "target_rule", "sha256"]
    + ["layers", "heads", "score_scale"],
)
def test_a_description_without_one_of_its_keys(folder: Path, key: str) -> None:
    change_description(folder, **{key: None})
    with pytest.raises(HeadWeightsError, match=key if key != "sha256" else "SHA-256 None"):
        HeadWeights.load(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("quantity", ["mass"]),
        ("passes", "joint"),
        ("passes", ["together", "joint"]),
        ("passes", 5),
        ("provenance", "text"),
        ("layers", 2),
        ("heads", "4"),
        ("fingerprint", 5),
        ("target_rule", "prompt"),
        ("score_scale", ["logit"]),
        ("prior_weight", -1),
        ("prior_weight", 10**400),
        ("cosine_weight", "much"),
        ("cosine_weight", float("inf")),
        *[(part, "x") for part in ("calibration", "multi_hop", "sentences")],
        *[(part, {"chunk": {}, "score": {}}) for part in ("calibration", "multi_hop", "sentences")],
    ],
)
def test_a_description_with_other_values(folder: Path, key: str, value: Any) -> None:
    change_description(folder, **{key: value})
    with pytest.raises(HeadWeightsError, match="unusable head weights"):
        HeadWeights.load(folder)


@pytest.mark.parametrize(
    ("name", "values"),
    [("target_rule", ("question", "answer")), ("score_scale", ("logit", "additive"))],
)
def test_target_rule_and_score_scale_are_kept(tmp_path: Path, name: str, values: Any) -> None:
    for value in values:
        make(**{name: value}).save(tmp_path)
        assert getattr(HeadWeights.load(tmp_path).describe(note="x"), name) == value
    with pytest.raises(HeadWeightsError, match=f"'other'.*reads {' and '.join(values)}"):
        make(**{name: "other"})


# --- in use ----------------------------------------------------------------------------------


def test_scores_are_sums_of_products() -> None:
    weights = make()
    features = np.random.default_rng(1).normal(size=(5, 24))
    flat = [float(w) for block in weights.weight for layer in block for w in layer]
    expected = [1 / 3 + sum(w * x for w, x in zip(flat, row, strict=True)) for row in features]
    assert weights.score(features) == pytest.approx(expected, abs=1e-12)
    assert weights.score(np.zeros((0, 24))).shape == (0,)


def test_a_score_does_not_depend_on_its_neighbours() -> None:
    features = np.random.default_rng(2).normal(size=(33, 24)).astype(np.float32)
    whole = make().score(features)
    assert [float(make().score(row[None])[0]) for row in features] == whole.tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": np.zeros((3, 4), np.float32)}, r"\(3, 4\); expected \[passes"),
        ({"weight": np.zeros((3, 3, 4), np.float32)}, r"with 2 passes \(together, apart\)"),
        ({"weight": np.full(SHAPE, np.nan, np.float32)}, "NaN or infinity"),
        ({"bias": float("inf")}, "NaN or infinity"),
    ],
)
def test_unusable_weights_cannot_be_made(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(HeadWeightsError, match=message):
        make(**changes)


@pytest.mark.parametrize(("reading", "name"), [("independent", "together"), ("joint", "joint")])
def test_uniform_is_the_mean_of_the_mass_and_fits_every_model(reading: Any, name: Any) -> None:
    uniform = HeadWeights.uniform(layers=5, heads=2, reading=reading)
    assert (uniform.layers, uniform.heads, uniform.reading) == (5, 2, reading)
    assert uniform.spec == FeatureSpec("mass", (name,))
    features = np.random.default_rng(3).uniform(size=(4, 10))
    assert uniform.score(features) == pytest.approx(features.mean(axis=1), abs=1e-7)


def test_weights_can_be_copied_pickled_and_made_mappings(folder: Path) -> None:
    facts = {"model": "tiny"}
    for weights in (make(provenance=facts), HeadWeights.load(folder), make().describe(seed=3)):
        for other in (pickle.loads(pickle.dumps(weights)), copy.deepcopy(weights)):
            assert other.weight.tobytes() == weights.weight.tobytes()
            assert (other.spec, other.provenance) == (weights.spec, weights.provenance)
        assert dataclasses.asdict(weights)["provenance"] == weights.provenance
    weights = make(provenance=facts)
    facts["model"] = "another"
    assert weights.provenance == {"model": "tiny"}


# --- shipped ---------------------------------------------------------------------------------


def test_shipped_names_are_the_folders_of_the_package() -> None:
    folders = {path.parent.name for path in SHIPPED.glob(f"*/{DESCRIPTION_FILE}")}
    assert set(shipped_names()) == folders
    with pytest.raises(HeadWeightsNotFoundError, match="'nonesuch'") as error:
        HeadWeights.shipped("nonesuch")
    assert all(name in str(error.value) for name in folders)


def test_shipped_weights_load_and_have_a_model_card() -> None:
    card = (SHIPPED / "README.md").read_text(encoding="utf-8")
    assert {"best", "balanced", "fast", "joint", "answer"} == set(shipped_names())
    for name in shipped_names():
        weights = HeadWeights.shipped(name)
        assert weights.fingerprint and weights.template_hash
        assert weights.provenance["model"] == "smollm2-135m-instruct"
        assert f"`{name}`" in card


@pytest.mark.default_model
def test_shipped_weights_belong_to_the_default_model() -> None:
    model = LoadedModel.from_pretrained(resolve_model("smollm2-135m-instruct"), device="cpu")
    prompts = ScoringModel(model.model, model.tokenizer, depth=1).prompts
    for name in shipped_names():
        weights = HeadWeights.shipped(name)
        rule = weights.target_rule
        template_hash = prompts.template_hash(weights.reading)
        check_match(weights, model, template_hash=template_hash, target_rule=rule)
        assert weights.heads == model.model.config.num_attention_heads
        assert weights.layers <= model.model.config.num_hidden_layers
