"""Features collected for training are those the pruner computes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from at2_rag import AT2Pruner
from at2_rag.data.examples import Example
from at2_rag.errors import DataError, ScoringError
from at2_rag.model.loading import LoadedModel
from at2_rag.reading.features import PASSES, FeatureSpec, Reading, as_log
from at2_rag.reading.independent import IndependentReader, LayoutPasses
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.text.chunks import Chunk
from at2_rag.training.collection.collection import TOO_LONG, Collected
from at2_rag.training.collection.features import FeatureCollection, Features, feature_array
from at2_rag.training.collection.samples import ONE_KIND, Sample
from tests.independent_reading import read
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import exact
from tests.training.small_examples import DEPTH, make_examples, scoring_model

HALF = 2.0**-11
"""Largest relative error of a number kept in float16."""


def collection(folder: Path, examples: list[Example], **options: Any) -> FeatureCollection:
    options = {"reading": "independent", "fingerprint": "f", "seed": 0, **options}
    model = options.pop("model", None) or scoring_model()
    return FeatureCollection(model, examples, folder, **options)


def collect(folder: Path, examples: list[Example], **options: Any) -> Collected:
    return collection(folder, examples, **options).collect()


@pytest.mark.parametrize("reading", ["independent", "joint"])
def test_features_give_the_pruners_scores(tmp_path: Path, reading: Reading) -> None:
    examples = make_examples("ab")
    planned = collection(tmp_path, examples, reading=reading)
    collected = planned.collect(workers=2)
    samples = planned.samples
    assert list(samples) == list(collected.rows)
    assert any(len(sample.chunks) > sample.original for sample in samples.values())
    shape = (len(PASSES[reading]), DEPTH, 4)
    rng = np.random.default_rng(0)
    spec = FeatureSpec("log", PASSES[reading])
    weights = HeadWeights(rng.normal(size=shape).astype(np.float32), 0.5, spec)
    loaded = LoadedModel(tiny_model(), tiny_tokenizer())
    pruner = exact(AT2Pruner(loaded, head_weights=weights))
    for item, row in collected.rows.items():
        features = row["log"].astype(np.float64)
        tolerance = HALF * (np.abs(features) * np.abs(weights.weight)).sum((1, 2, 3)) + 1e-4
        scored = pruner.score(examples[item].query, samples[item].chunks)
        scores = (features * weights.weight).sum((1, 2, 3)) + 0.5
        assert (np.abs(scores - [one.score for one in scored]) <= tolerance).all()


def test_a_chunk_read_in_windows_has_the_features_of_its_strongest(tmp_path: Path) -> None:
    long = Chunk(" ".join(f"{number} rivers" for number in range(400)))
    chunks = (Chunk("a novel"), long, Chunk("b"))
    examples = [Example("0", "a", "what is Emma?", chunks, (True, False, False))]
    planned = collection(tmp_path, examples, padded=False)
    row = planned.collect().rows[0]
    model = scoring_model()
    layout = model.prompts.independent(examples[0].query, chunks)
    windows = [source for source, owner in enumerate(layout.owners) if owner == 1]
    assert len(windows) > 1
    [late] = IndependentReader(model).read([LayoutPasses(layout, {"late": None})])
    masses = [mass.clamp(min=1e-9).log() for mass in read(model, layout)]
    for number, log in enumerate((late["late"], *masses)):
        means = [float(log[..., window].mean()) for window in windows]
        strongest = windows[means.index(max(means))]
        expected = log[..., strongest].numpy()
        assert row["log"][1, number] == pytest.approx(expected, rel=HALF, abs=1e-4)


def test_a_source_without_distractors_is_left_out(tmp_path: Path) -> None:
    alone = Example("0", "solo", "who?", (Chunk("only"),), (True,))
    collected = collect(tmp_path, [alone, *make_examples("a")])
    assert collected.left_out == {0: ONE_KIND} and len(collected.rows) == 4


def test_what_exceeds_the_window_is_left_out(tmp_path: Path) -> None:
    """A long question in both readings, long chunks in joint reading alone."""
    examples = make_examples("a")
    asking = dataclasses.replace(examples[3], id="query", query="river " * 3000)
    chunks = tuple(Chunk("river " * 400) for _ in range(5))
    examples += [asking, dataclasses.replace(examples[3], id="chunks", chunks=chunks)]
    joint = collect(tmp_path / "joint", examples, reading="joint")
    assert joint.left_out == {4: TOO_LONG, 5: TOO_LONG}
    assert collect(tmp_path / "independent", examples).left_out == {4: TOO_LONG}


def test_joint_reading_adds_no_more_chunks_than_fit(tmp_path: Path) -> None:
    examples = [
        dataclasses.replace(
            example,
            chunks=tuple(Chunk(f"{chunk.text} {'river ' * 160}") for chunk in example.chunks),
        )
        for example in make_examples("abc")
    ]
    planned = collection(tmp_path, examples, reading="joint")
    prompts = scoring_model().prompts

    def tokens(sample: Sample, size: int) -> int:
        text = sum(len(prompts.joint("q", [chunk]).source_ids[0]) for chunk in sample.chunks[:size])
        return text + len(prompts.joint(examples[sample.example].query, []).input_ids)

    expected = {}
    for sample in planned.samples.values():
        sizes = range(sample.original, len(sample.chunks) + 1)
        expected[sample.example] = max(n for n in sizes if tokens(sample, n) <= 2048)
    cut = [s for s in planned.samples.values() if expected[s.example] < len(s.chunks)]
    assert cut and any(expected[s.example] > s.original for s in cut)
    rows = planned.collect().rows
    assert {item: len(row["log"]) for item, row in rows.items()} == expected


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "seed: 0 there, 1 now"),
        ({"reading": "joint"}, "reading: 'independent' there, 'joint' now"),
        ({"padded": False}, "padded: True there, False now"),
        ({"passes": ("together",)}, "passes: "),
        ({"examples": make_examples("a")[:-1]}, "examples: "),
        ({"model": scoring_model(1)}, "depth: 2 there, 1 now"),
        (
            {"model": ScoringModel(tiny_model(), tiny_tokenizer(chat_template=False), depth=2)},
            "template: ",
        ),
    ],
)
def test_whatever_decides_the_content_is_in_the_settings(
    tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    collect(tmp_path, make_examples("a"))
    with pytest.raises(DataError, match=named):
        collect(tmp_path, **{"examples": make_examples("a"), **change})


def test_attention_that_is_no_number_is_refused(tmp_path: Path) -> None:
    broken = tiny_model()
    with torch.no_grad():
        broken.model.embed_tokens.weight.fill_(torch.nan)
    model = ScoringModel(broken, tiny_tokenizer(), depth=DEPTH)
    with pytest.raises(ScoringError, match="NaN or infinity; load it in float32"):
        collect(tmp_path, make_examples("a"), model=model)
    assert not list(tmp_path.glob("shard-*"))


@pytest.mark.parametrize(("quantity", "depth"), [("mass", 1), ("log", 4)])
@pytest.mark.parametrize("passes", [("apart",), ("apart", "late"), ("joint",)])
def test_the_matrix_is_in_the_order_of_the_features_at_inference(
    passes: Any, quantity: Any, depth: int
) -> None:
    spec, rng = FeatureSpec(quantity, passes), np.random.default_rng(0)
    attention = {
        name: torch.tensor(rng.uniform(0.01, 0.5, (4, 3, 7)), dtype=torch.float32)
        for name in PASSES[spec.reading]
    }
    log = feature_array([as_log(name, read) for name, read in attention.items()])
    rows = {5: {"log": log[:4]}, 2: {"log": log[4:]}}
    features = Features.of(rows, PASSES[spec.reading])
    assert features.examples.tolist() == [5, 2] and features.counts.tolist() == [4, 3]
    cut = {name: read[:depth] for name, read in attention.items()}
    expected, matrix = spec.extract(cut).numpy(), features.matrix(spec, depth)
    assert matrix.shape == (7, len(passes) * depth * 3) == expected.shape
    assert matrix.dtype == np.float32
    assert matrix == pytest.approx(expected, rel=3e-3, abs=1e-3)
    assert [len(part) for part in features.by_sample(matrix)] == [4, 3]
