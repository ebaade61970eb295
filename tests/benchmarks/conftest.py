"""What the benchmarks' tests run on; the scripts' folder is on the import path."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from at2_rag.model.cache import CACHE_VARIABLE
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.training.planted_examples import planted_examples, write_examples

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))


@pytest.fixture(scope="session")
def tiny_options(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Options of every script: a tiny model and questions it can read, both in one folder."""
    folder = tmp_path_factory.mktemp("benchmarks")
    tiny_model(num_hidden_layers=3).save_pretrained(folder / "tiny")
    tiny_tokenizer().save_pretrained(folder / "tiny")
    write_examples(folder / "train.jsonl", planted_examples(["novels", "seas"]))
    chunks = [{"text": f"Bridge {n} was opened in 1932.", "is_gold": n == 0} for n in range(10)]
    line = json.dumps({"id": "1", "question": "What was opened?", "chunks": chunks}) + "\n"
    (folder / "data.jsonl").write_text(2 * line, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(folder / "cache"))
        options = ["--model", str(folder / "tiny"), "--data", str(folder / "data.jsonl")]
        options += ["--threads", "1", "--dtype", "float32", "--prompt-tokens", "100", "2000"]
        yield options
