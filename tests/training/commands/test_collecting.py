"""What a run reads, shard by shard and each by a process that knows only its number."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from at2_rag import LoadedModel
from at2_rag.training.commands.collecting import CollectionRequest, open_input, read_questions
from at2_rag.training.fitting import samples
from tests.tiny_weights import random_weights
from tests.training.commands.train_runs import FILES, bytes_of, trained
from tests.training.planted_examples import planted_examples, write_examples

DEFAULTS: dict[str, Any] = {
    "revision": None,
    "signal": "evidence",
    "target": "question",
    "reading": "independent",
    "depths": (),
    "features": (),
    "limit": None,
    "hold_out": None,
    "seed": 0,
    "masks": 4,
    "answers": "generated",
    "answer_tokens": 4,
    "shortlist": None,
    "dtype": "float32",
    "dev": (),
}


@pytest.mark.parametrize("case", ["shortlist and dev", "answers"])
def test_shards_read_one_by_one_are_what_training_reads(
    data: Path, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any]
    if case == "answers":
        monkeypatch.setattr(samples, "LEAST_CONTRIBUTION", 1e-3)
        changes = {"signal": "ablation", "target": "answer", "features": ("log:joint",)}
        more = ["--masks", "4", "--answer-tokens", "4"]
    else:
        loaded = LoadedModel.from_pretrained(data / "tiny")
        random_weights(loaded.model, loaded.tokenizer, "late").save(tmp_path / "late")
        dev = write_examples(tmp_path / "dev.jsonl", planted_examples(["towns"]))
        changes = {"features": ("log:late+together",), "shortlist": str(tmp_path / "late")}
        changes, more = {**changes, "dev": (str(dev),)}, []
    for name, value in changes.items():
        more += [f"--{name}", value[0] if isinstance(value, tuple) else value]
    trained(data, *more, "--collected", tmp_path / "alone", output=tmp_path / "out")
    request = CollectionRequest(
        files=tuple(str(data / name) for name in FILES),
        model=str(data / "tiny"),
        collected=str(tmp_path / "shared"),
        **{**DEFAULTS, **changes},
    )
    questions = read_questions(request)
    folders = set()
    for number, part in enumerate(open_input(request, questions).parts()):
        assert part.missing_shards()
        for shard in part.missing_shards():
            parts = open_input(request, questions).parts()
            [reader] = islice(parts, number, number + 1)
            reader.read_shards([shard])
        assert not part.missing_shards()
        folders.add(part.folder)
    assert len(folders) == {"answers": 2, "shortlist and dev": 4}[case]
    assert bytes_of(tmp_path / "shared") == bytes_of(tmp_path / "alone")
