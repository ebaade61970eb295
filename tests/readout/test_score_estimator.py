"""AT2's `score_estimator.pt`: the reference's own file and scores, and files that are refused."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from at2_rag.attribution import AT2Attributor
from at2_rag.errors import HeadWeightsError, HeadWeightsNotFoundError
from at2_rag.model.fingerprint import model_fingerprint
from at2_rag.model.hub import DEFAULT_MODEL, resolve_model
from at2_rag.model.loading import LoadedModel, load_model
from at2_rag.reading.features import FeatureSpec
from at2_rag.reading.joint import read_answer
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.readout.score_estimator import read_score_estimator
from at2_rag.text.chunks import as_chunk
from tests.tiny_models import tiny_model, tiny_tokenizer

FIXTURE = Path(__file__).parents[1] / "fixtures" / "score_estimator.pt"
TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Reference:
    """A model, and what the reference package made of it."""

    model: Any
    tokenizer: Any
    file: Path
    results: dict[str, Any]

    @property
    def arguments(self) -> tuple[str, list[str], str]:
        return self.results["query"], self.results["chunks"], self.results["answer"]


def reference(model: Any, tokenizer: Any, file: Path) -> Reference:
    results = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    assert model_fingerprint(model.model, tokenizer) == results["model_fingerprint"], (
        "the model isn't the one the fixture was made with (another random generator?): run "
        "tests/fixtures/make_score_estimator.py"
    )
    return Reference(model, tokenizer, file, results)


@pytest.fixture(
    scope="module",
    params=["tiny", pytest.param("default", marks=pytest.mark.default_model)],
)
def made(request: pytest.FixtureRequest) -> Reference:
    if request.param == "tiny":
        return reference(tiny_model("llama"), tiny_tokenizer(), FIXTURE)
    folder = resolve_model(DEFAULT_MODEL)
    model, tokenizer = load_model(folder, device="cpu", dtype=torch.float32)
    return reference(model, tokenizer, FIXTURE.with_name("score_estimator_default_model.pt"))


def saved(**changes: Any) -> dict[str, Any]:
    """A good file's content with some values replaced, by dotted name; None removes one."""
    content: dict[str, Any] = {
        "class": "LinearScoreEstimator",
        "state_dict": {"linear.weight": torch.arange(6.0).view(1, 6)},
        "feature_extractor": {
            "class": "AttentionFeatureExtractor",
            "kwargs": {"num_layers": 2, "num_heads": 3, "model_type": "llama"},
        },
        "kwargs": {"normalize": True, "non_negative": False, "bias": False},
        "extras": {},
    }
    for name, value in changes.items():
        inner, *path = reversed(name.split("__"))
        entries = content
        for step in reversed(path):
            entries = entries[step]
        entries[inner.replace("-", ".")] = value
    return content


# --- against the reference ---------------------------------------------------------------------


def test_ids_and_features_are_the_references(made: Reference) -> None:
    scoring = ScoringModel(made.model, made.tokenizer)
    query, texts, answer = made.arguments
    layout = scoring.prompts.conversation(query, [as_chunk(text, 0) for text in texts], answer)
    assert list(layout.input_ids) == made.results["input_ids"]
    spans = layout.prompt.source_spans
    assert [list(span) for span in spans] == made.results["source_spans"]
    [read] = read_answer(scoring, layout, [(0, len(layout.answer_ids))], spans)
    expected = torch.tensor(made.results["features"])
    config = made.model.config
    shape = (config.num_hidden_layers, config.num_attention_heads, len(texts))
    assert read.shape == expected.shape == shape and expected.max() > 0.1
    assert (read - expected).abs().max() <= TOLERANCE


def test_scores_are_the_references(made: Reference) -> None:
    weights = read_score_estimator(made.file)
    attributor = AT2Attributor(LoadedModel(made.model, made.tokenizer), head_weights=weights)
    scores = [chunk.score for chunk in attributor.attribute(*made.arguments).chunks]
    assert scores == pytest.approx(made.results["scores"], abs=TOLERANCE)
    answer = made.results["answer"]
    tokens = attributor.scoring_model.prompts._encoder.encode_with_spans(answer)[1]
    first = attributor.attribute(*made.arguments, span=(0, tokens[2][1])).chunks
    expected = made.results["scores_of_the_first_3_tokens"]
    assert [chunk.score for chunk in first] == pytest.approx(expected, abs=TOLERANCE)
    assert max(abs(a - b) for a, b in zip(scores, expected, strict=True)) > 5 * TOLERANCE


def test_what_is_read_says_what_it_is_for() -> None:
    weights = read_score_estimator(FIXTURE)
    assert weights.spec == FeatureSpec("mass", ("joint",))
    assert (weights.target_rule, weights.bias, weights.fingerprint) == ("answer", 0.0, None)
    assert weights.weight.shape == (1, 3, 4) and weights.weight.dtype == np.float32
    assert weights.provenance["model_type"] == "llama" and weights.provenance["normalize"] is True


# --- order of features --------------------------------------------------------------------------


def test_a_feature_is_layer_times_heads_plus_head(tmp_path: Path) -> None:
    torch.save(saved(), tmp_path / "a.pt")
    weights = read_score_estimator(tmp_path / "a.pt")
    assert weights.weight.tolist() == [[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]]
    weights.save(tmp_path / "folder")
    assert np.array_equal(HeadWeights.load(tmp_path / "folder").weight, weights.weight)


# --- files that are refused --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class": "DeepScoreEstimator"}, "class 'DeepScoreEstimator'"),
        ({"feature_extractor__class": "Other"}, r"feature_extractor\.class 'Other'"),
        ({"feature_extractor": 5}, "feature_extractor is a int"),
        ({"feature_extractor__kwargs__num_layers": 0}, "num_layers 0"),
        ({"feature_extractor__kwargs__num_heads": True}, "num_heads True"),
        ({"feature_extractor__kwargs__num_heads": 4}, r"shape \(1, 6\).*\(1, 8\)"),
        ({"state_dict": []}, "state_dict is a list"),
        ({"state_dict__linear-weight": torch.zeros(6)}, r"shape \(6,\)"),
        ({"state_dict__linear-weight": torch.zeros(1, 6, dtype=torch.int64)}, "int64"),
        ({"state_dict__linear-weight": torch.zeros(1, 6).to_sparse()}, "a dense one"),
        ({"state_dict__linear-weight": torch.zeros(1, 1).expand(1, 6)}, "contiguous"),
        ({"state_dict__linear-bias": torch.nested.nested_tensor([torch.ones(1)])}, "a dense one"),
        ({"feature_extractor__kwargs__num_heads": 10**6}, "num_heads 1000000.*to 100000"),
        ({"feature_extractor__kwargs__num_heads": 10**5}, "2 layers of 100000 heads, 200000 in"),
        ({"state_dict__linear-weight": torch.zeros(1, 6)._neg_view()}, "values that can't be read"),
        ({"state_dict__linear-weight": torch.full((1, 6), torch.nan)}, "NaN or infinity"),
        ({"state_dict__linear-bias": torch.ones(1)}, "bias 1.0.*each token"),
        ({"state_dict__linear-bias": torch.ones(2)}, "linear.bias of shape"),
        ({"state_dict__other-weight": torch.ones(2)}, "unknown parameters other.weight"),
    ],
)
def test_other_content_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    torch.save(saved(**changes), tmp_path / "d.pt")
    with pytest.raises(HeadWeightsError, match=message):
        read_score_estimator(tmp_path / "d.pt")


def test_a_bias_of_zero_and_other_number_types_are_fine(tmp_path: Path) -> None:
    weight = torch.arange(6.0).view(1, 6).bfloat16().requires_grad_()
    content = saved(**{"state_dict__linear-bias": torch.zeros(1)}, kwargs={"x": 1}, extras={"a": 1})
    content["state_dict"]["linear.weight"] = weight
    torch.save(content, tmp_path / "e.pt")
    assert read_score_estimator(tmp_path / "e.pt").weight.ravel().tolist() == [0, 1, 2, 3, 4, 5]


class Code:
    """Unpickled, makes a folder: what a hostile file would do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    "write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, 2))]
)
def test_code_in_a_file_is_never_run(tmp_path: Path, write: Any) -> None:
    write(saved(extras={"x": Code(tmp_path / "ran")}), tmp_path / "f.pt")
    with pytest.raises(HeadWeightsError, match="can run code"):
        read_score_estimator(tmp_path / "f.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "data", [b"", b"PK\x03\x04", b"not a file of torch", FIXTURE.read_bytes()[:900]]
)
def test_a_damaged_file(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "g.pt").write_bytes(data)
    with pytest.raises(HeadWeightsError, match=r"g\.pt"):
        read_score_estimator(tmp_path / "g.pt")


def test_other_things_than_a_dictionary(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "h.pt")
    with pytest.raises(HeadWeightsError, match="the file is a list"):
        read_score_estimator(tmp_path / "h.pt")
    with pytest.raises(HeadWeightsNotFoundError, match=r"missing\.pt: No such file"):
        read_score_estimator(tmp_path / "missing.pt")
    with pytest.raises(HeadWeightsNotFoundError, match="directory"):
        read_score_estimator(tmp_path)


def test_a_small_file_takes_little_memory(tmp_path: Path) -> None:
    shown = 10**12
    content = saved(
        feature_extractor__kwargs={"num_layers": 10**6, "num_heads": 10**6, "model_type": "llama"},
        extras={"x": torch.zeros(1).expand(shown)},
    )
    content["state_dict"]["linear.weight"] = torch.zeros(1, 1).expand(1, shown)
    torch.save(content, tmp_path / "i.pt")
    assert (tmp_path / "i.pt").stat().st_size < 5000
    with pytest.raises(HeadWeightsError, match="num_layers 1000000"):
        read_score_estimator(tmp_path / "i.pt")
