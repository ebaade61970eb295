"""Features collected for training are those the pruner computes, and survive a killed process."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from at2_rag import AT2Pruner
from at2_rag.data.examples import Example
from at2_rag.errors import DataError, InputError, ScoringError, UnsupportedModelError
from at2_rag.model.loading import LoadedModel
from at2_rag.reading.features import PASSES, FeatureSpec, Reading
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.text.chunks import Chunk
from at2_rag.training.collection import features as collection
from at2_rag.training.collection.features import JOINT_MOST_CHUNKS, collect
from at2_rag.training.collection.shards import Sample, draw_samples, plan_shards
from at2_rag.training.collection.store import ShardFeatures
from tests.independent_reading import read
from tests.tiny_models import tiny_model, tiny_tokenizer

ROOT = Path(__file__).parents[3]
DEPTH = 2
HALF = 2.0**-11
"""Largest relative error of a number kept in float16."""


@pytest.fixture(scope="module", autouse=True)
def one_torch_thread() -> Iterator[None]:
    """As in the process that is killed: sums over many threads may differ in the last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_examples(sources: str = "abc", each: int = 4) -> list[Example]:
    rng = random.Random(0)
    words = "river bridge novel harbour town sea mill glass owl lamp Emma Austen".split()

    def text() -> str:
        return " ".join(rng.choices(words, k=rng.randint(2, 12)))

    return [
        Example(
            id=str(number),
            source=source,
            query=f"what is the {rng.choice(words)}?",
            chunks=tuple(Chunk(text(), title=rng.choice([None, "T"])) for _ in range(2 + number)),
            labels=(True, *[False] * (1 + number)),
        )
        for source in sources
        for number in range(each)
    ]


def make_model(**overrides: Any) -> ScoringModel:
    return ScoringModel(tiny_model(**overrides), tiny_tokenizer(), depth=DEPTH)


def run(folder: Path, examples: list[Example], **options: Any) -> ShardFeatures:
    options = {"reading": "independent", "fingerprint": "f", "seed": 0, **options}
    model = options.pop("model", None) or make_model()
    return collect(model, examples, folder, **options)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rows(collected: ShardFeatures) -> Iterator[tuple[int, slice]]:
    ends = np.cumsum(collected.counts)
    for example, start, end in zip(collected.examples, ends - collected.counts, ends, strict=True):
        yield int(example), slice(int(start), int(end))


def drawn(examples: list[Example], reading: Reading) -> list[Sample]:
    most: dict[str, Any] = {"most_chunks": JOINT_MOST_CHUNKS} if reading == "joint" else {}
    plan = plan_shards(examples)
    return [sample for shard in plan for sample in draw_samples(examples, shard, seed=0, **most)]


# --- what is collected -----------------------------------------------------------------------


@pytest.mark.parametrize("reading", ["independent", "joint"])
def test_features_give_the_pruners_scores(tmp_path: Path, reading: Reading) -> None:
    examples = make_examples()
    collected = run(tmp_path, examples, reading=reading)
    samples = drawn(examples, reading)
    assert [sample.example for sample in samples] == collected.examples.tolist()
    assert any(len(sample.chunks) > sample.own for sample in samples)
    shape = (len(PASSES[reading]), DEPTH, 4)
    rng = np.random.default_rng(0)
    for quantity, stored in (("log_ratio", collected.log_ratio), ("log_mass", collected.log_mass)):
        spec = FeatureSpec(quantity, PASSES[reading])  # type: ignore[arg-type]
        weights = HeadWeights(rng.normal(size=shape).astype(np.float32), 0.5, spec)
        pruner = AT2Pruner(LoadedModel(tiny_model(), tiny_tokenizer()), head_weights=weights)
        for sample, (index, place) in zip(samples, rows(collected), strict=True):
            assert collected.labels[place].tolist() == list(sample.labels)
            features = stored[place].astype(np.float64)
            max_missed = HALF * (np.abs(features) * np.abs(weights.weight)).sum((1, 2, 3)) + 1e-4
            scores = [s.score for s in pruner.score(examples[index].query, sample.chunks)]
            found = (features * weights.weight).sum((1, 2, 3)) + 0.5
            assert (np.abs(found - scores) <= max_missed).all()


def test_a_chunk_read_in_windows_has_the_features_of_its_strongest(tmp_path: Path) -> None:
    long = Chunk(" ".join(f"{number} rivers" for number in range(400)))
    examples = [
        Example(
            "0", "a", "what is Emma?", (Chunk("a novel"), long, Chunk("b")), (True, False, False)
        )
    ]
    collected = run(tmp_path, examples)
    model = make_model()
    [sample] = drawn(examples, "independent")
    layout = model.prompts.independent(examples[0].query, sample.chunks)
    place = sample.chunks.index(long)
    windows = [source for source, owner in enumerate(layout.owners) if owner == place]
    assert len(windows) > 1
    for number, attention in enumerate(read(model, layout)):
        means = [float(attention.log_ratio[..., window].mean()) for window in windows]
        strongest = windows[means.index(max(means))]
        expected = attention.log_ratio[..., strongest].numpy()
        assert collected.log_ratio[place, number] == pytest.approx(expected, rel=HALF, abs=1e-4)
        mass = attention.mass[..., strongest].clamp(min=1e-9).log().numpy()
        assert collected.log_mass[place, number] == pytest.approx(mass, rel=HALF, abs=1e-4)


def test_workers_change_nothing_but_the_time(tmp_path: Path) -> None:
    examples = make_examples("ab")
    calls: list[tuple[int, int]] = []
    alone = run(tmp_path / "1", examples)
    many = run(tmp_path / "3", examples, workers=3, progress=lambda *numbers: calls.append(numbers))
    for name in ("examples", "counts", "labels"):
        assert np.array_equal(getattr(alone, name), getattr(many, name))
    assert many.log_ratio == pytest.approx(alone.log_ratio, rel=2 * HALF, abs=1e-4)
    total = len(alone.counts)
    assert calls[-1] == (total, total)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_a_source_without_distractors_is_left_out(tmp_path: Path) -> None:
    alone = Example("0", "solo", "who?", (Chunk("only"),), (True,))
    collected = run(tmp_path / "some", [alone, *make_examples("a")])
    assert 0 not in collected.examples and len(collected.examples) == 4
    with pytest.raises(InputError, match="none of the 1 examples has both gold and other chunks"):
        run(tmp_path / "none", [alone])


# --- what the window doesn't take -------------------------------------------------------------


def too_long(**changes: Any) -> Example:
    return dataclasses.replace(make_examples("a")[3], id="long", **changes)


@pytest.mark.parametrize("reading", ["independent", "joint"])
def test_an_example_longer_than_the_window_is_left_out(tmp_path: Path, reading: Reading) -> None:
    long = too_long(query="river " * 3000)
    collected = run(tmp_path / "some", [*make_examples("a"), long], reading=reading)
    assert sorted(collected.examples.tolist()) == [0, 1, 2, 3]
    again = run(tmp_path / "some", [*make_examples("a"), long], reading=reading)
    assert np.array_equal(again.log_ratio, collected.log_ratio)
    with pytest.raises(InputError, match="none of the 1 examples fits the model's window of 2048"):
        run(tmp_path / "none", [long], reading=reading)


def test_long_chunks_are_left_out_of_joint_reading_alone(tmp_path: Path) -> None:
    long = too_long(chunks=tuple(Chunk("river " * 400) for _ in range(5)))
    examples = [*make_examples("a"), long]
    assert 4 not in run(tmp_path / "joint", examples, reading="joint").examples
    assert 4 in run(tmp_path / "independent", examples).examples


def test_joint_reading_adds_no_more_chunks_than_fit(tmp_path: Path) -> None:
    examples = [
        dataclasses.replace(
            example,
            chunks=tuple(Chunk(f"{chunk.text} {'river ' * 160}") for chunk in example.chunks),
        )
        for example in make_examples("abc")
    ]
    samples = drawn(examples, "joint")
    prompts = make_model().prompts

    def tokens(sample: Sample, size: int) -> int:
        text = sum(len(prompts.joint("q", [chunk]).source_ids[0]) for chunk in sample.chunks[:size])
        return text + len(prompts.joint(examples[sample.example].query, []).input_ids)

    expected = {}
    for sample in samples:
        sizes = range(sample.own, len(sample.chunks) + 1)
        expected[sample.example] = max(n for n in sizes if tokens(sample, n) <= 2048)
    cut = [s for s in samples if expected[s.example] < len(s.chunks)]
    assert cut and any(expected[s.example] > s.own for s in cut)
    collected = run(tmp_path, examples, reading="joint")
    found = dict(zip(collected.examples.tolist(), collected.counts.tolist(), strict=True))
    assert found == expected


# --- resuming --------------------------------------------------------------------------------

KILLED = """
import sys, time
import torch
torch.set_num_threads(1)
from pathlib import Path
from tests.training.collection.test_features import make_examples, run
folder = Path(sys.argv[1])
def progress(done, total):
    if len(list(folder.glob("*.safetensors"))) == 1 and done > 5:  # within the second shard
        print("waiting", flush=True)
        time.sleep(600)
run(folder, make_examples(), progress=progress)
"""


def test_killed_and_resumed_equals_uninterrupted_byte_for_byte(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "killed")],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    timer = threading.Timer(500, process.kill)
    timer.start()
    assert process.stdout is not None and process.stdout.readline() == "waiting\n"
    os.kill(process.pid, signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)
    assert process.wait() != 0
    timer.cancel()

    shards = [path.name for path in (tmp_path / "killed").glob("*.safetensors")]
    assert shards == ["shard-00000.safetensors"]
    first = (tmp_path / "killed" / shards[0]).stat().st_mtime_ns
    calls: list[int] = []
    resumed = run(
        tmp_path / "killed", make_examples(), progress=lambda done, total: calls.append(done)
    )
    whole = run(tmp_path / "whole", make_examples())
    assert bytes_of(tmp_path / "killed") == bytes_of(tmp_path / "whole")
    assert len(bytes_of(tmp_path / "whole")) == 4
    assert (tmp_path / "killed" / shards[0]).stat().st_mtime_ns == first
    assert calls[0] == 4  # the first shard was not read again
    for name in ShardFeatures.__slots__:
        assert np.array_equal(getattr(resumed, name), getattr(whole, name))


def test_a_finished_collection_is_not_read_again(tmp_path: Path) -> None:
    examples = make_examples("ab")
    before = run(tmp_path, examples)
    broken = tiny_model()
    with torch.no_grad():
        for parameter in broken.parameters():
            parameter.fill_(torch.nan)
    after = run(tmp_path, examples, model=ScoringModel(broken, tiny_tokenizer(), depth=DEPTH))
    assert np.array_equal(before.log_ratio, after.log_ratio)
    assert np.isfinite(after.log_ratio).all()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "seed: 0 there, 1 now"),
        ({"fingerprint": "g"}, "fingerprint: 'f' there, 'g' now"),
        ({"reading": "joint"}, "reading: 'independent' there, 'joint' now"),
        ({"examples": make_examples("ab")[:-1]}, "examples: "),
        ({"model": "shallow"}, "depth: 2 there, 1 now"),
        ({"model": "plain"}, "template: "),
    ],
)
def test_a_folder_of_another_collection_is_refused(
    tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    run(tmp_path, make_examples("ab"))
    models = {
        "shallow": lambda: ScoringModel(tiny_model(), tiny_tokenizer(), depth=1),
        "plain": lambda: ScoringModel(tiny_model(), tiny_tokenizer(chat_template=False), depth=2),
    }
    options = {"examples": make_examples("ab"), **change}
    if "model" in change:
        options["model"] = models[change["model"]]()
    before = bytes_of(tmp_path)
    with pytest.raises(DataError, match=named):
        run(tmp_path, **options)
    assert bytes_of(tmp_path) == before


def test_a_folder_of_another_format_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, make_examples("a"))
    monkeypatch.setattr(collection, "FORMAT", collection.FORMAT + 1)
    with pytest.raises(DataError, match="format: 1 there, 2 now"):
        run(tmp_path, make_examples("a"))


def test_examples_are_read_as_they_are_where_wanted(tmp_path: Path) -> None:
    examples = make_examples("ab")
    collected = run(tmp_path, examples, padded=False)
    by_example = dict(zip(collected.examples.tolist(), collected.counts.tolist(), strict=True))
    assert by_example == {index: len(one.chunks) for index, one in enumerate(examples)}
    with pytest.raises(DataError, match="padded: False there, None now"):
        run(tmp_path, examples)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_attention_that_is_no_number_is_refused(tmp_path: Path, value: float) -> None:
    broken = tiny_model()
    with torch.no_grad():
        for parameter in broken.parameters():
            parameter.fill_(value)
    model = ScoringModel(broken, tiny_tokenizer(), depth=DEPTH)
    with pytest.raises(ScoringError, match="NaN or infinity; load it in float32"):
        run(tmp_path, make_examples("a"), model=model)
    assert not list(tmp_path.glob("shard-*"))


def test_a_family_that_cannot_be_read_independently_is_refused(tmp_path: Path) -> None:
    model = ScoringModel(tiny_model("gemma2"), tiny_tokenizer(), depth=2)
    with pytest.raises(UnsupportedModelError, match="joint"):
        run(tmp_path / "independent", make_examples("a"), model=model)
    assert (
        len(run(tmp_path / "joint", make_examples("a"), model=model, reading="joint").counts) == 4
    )
