"""What a collection will take on the disk, against what it does take."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from at2_rag.errors import StorageError
from at2_rag.training.collection.ablations import SHARD_TOKENS, drawn_samples
from at2_rag.training.collection.features import plan_samples
from at2_rag.training.collection.shards import plan_shards
from at2_rag.training.collection.store_size import (
    ablation_bytes,
    check_room,
    feature_bytes,
    megabytes,
    missing_bytes,
)
from tests.tiny_models import tiny_tokenizer
from tests.training.collection import test_ablations as test_ablation_collection
from tests.training.collection import test_features as test_collection
from tests.training.collection.test_features import DEPTH, make_examples

FEATURES = 2 * DEPTH * 4
"""Passes, layers and heads of the tiny model."""


def written(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("shard-*"))


@pytest.mark.parametrize("padded", [True, False])
def test_features_take_about_what_was_said(tmp_path: Path, padded: bool) -> None:
    examples = make_examples("abc", each=10)
    test_collection.run(tmp_path, examples, padded=padded)
    shards = plan_samples(examples, reading="independent", seed=0, padded=padded)
    counts = [[len(sample.chunks) for sample in shard] for shard in shards]
    assert feature_bytes(counts, features=FEATURES) == pytest.approx(written(tmp_path), rel=0.2)


def test_ablations_take_about_what_was_said(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    examples = make_examples("ab", each=8)
    test_ablation_collection.run(tmp_path, examples)
    torch.set_num_threads(before)
    counts = [
        [len(sample.chunks) for sample in drawn_samples(examples, shard, seed=0)]
        for shard in plan_shards(examples, shard_tokens=SHARD_TOKENS)
    ]
    plan = test_ablation_collection.PLAN
    said = ablation_bytes(
        counts,
        features=FEATURES,
        masks=plan.masks,
        answer_tokens=plan.answer_tokens,
        query_tokens=len(tiny_tokenizer().encode(examples[0].query)),
    )
    assert said == pytest.approx(written(tmp_path), rel=0.2)


def test_what_is_there_is_not_needed_again(tmp_path: Path) -> None:
    assert missing_bytes(tmp_path / "not there", 1000) == 1000
    (tmp_path / "shard-00000.safetensors").write_bytes(b"x" * 300)
    (tmp_path / "shard-00001.part").write_bytes(b"x" * 300)
    assert missing_bytes(tmp_path, 1000) == 700
    assert missing_bytes(tmp_path, 200) == 0


def test_a_disk_with_less_free_is_refused_with_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there"
    check_room(folder, 1)
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    with pytest.raises(StorageError) as caught:
        check_room(folder, 10**18)
    message = str(caught.value)
    assert "takes about 1,000,000,000,000 MB more in " in message and str(folder) in message
    said = message.partition(", and ")[2].partition(" MB are free")[0]
    assert float(said.replace(",", "")) * 1e6 == pytest.approx(free, rel=0.5)
    assert "make room" in message
    assert not folder.exists()


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0.0 MB"), (449_000, "0.4 MB"), (812_300_000, "812 MB"), (12_345_600_000, "12,346 MB")],
)
def test_sizes_are_said_in_megabytes(size: int, text: str) -> None:
    assert megabytes(size) == text
