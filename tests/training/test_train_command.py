"""`at2-rag train` from arguments to errors, with tiny real models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from at2_rag.cli import main
from tests.tiny_models import tiny_tokenizer, vision_model


@pytest.fixture(autouse=True)
def torch_threads() -> Iterator[None]:
    """The command sets the threads of its process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_model_without_layers_of_its_own_is_refused_in_one_line(tmp_path: Path) -> None:
    vision_model().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    chunks = [{"text": "Jane Austen wrote Emma.", "is_gold": True}, {"text": "b", "is_gold": False}]
    example = {"id": "1", "question": "Who wrote Emma?", "chunks": chunks}
    (tmp_path / "data.jsonl").write_text(json.dumps(example))
    options = ["--model", str(tmp_path / "model"), "--output", str(tmp_path / "output")]
    ran = CliRunner().invoke(main, ["train", str(tmp_path / "data.jsonl"), *options])
    assert ran.exit_code == 1
    assert ran.stderr.splitlines()[-1].startswith("Error: the family 'gemma3' has None layers")
    assert not (tmp_path / "output").exists()
