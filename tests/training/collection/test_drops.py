"""What leaving out chunks costs the reference answer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from at2_rag.data.examples import Example
from at2_rag.text.chunks import Chunk
from at2_rag.training.answering.answer_model import AnswerModel
from at2_rag.training.collection.collection import TOO_LONG
from at2_rag.training.collection.drops import DropCollection
from tests.tiny_models import tiny_model
from tests.training.answering.test_answer_model import log_softmax_of
from tests.training.small_examples import answer_model


def make_example(number: int, *, answers: tuple[str, ...] = ("", "Jane Austen")) -> Example:
    chunks = (
        Chunk(f"Jane Austen wrote novel {number}.", title="Emma"),
        Chunk("The river flows to the sea."),
        Chunk(f"House {number} is by the river."),
    )
    return Example(f"q{number}", "novels", "who wrote it?", chunks, (True, False, False), answers)


SILENT, LONG = make_example(1, answers=()), make_example(3, answers=("word " * 5000,))
EXAMPLES = [make_example(0), SILENT, make_example(2), LONG]


def nats(model: AnswerModel, example: Example, kept: list[Chunk]) -> float:
    """Return the mean log-probability of the answer's tokens by a plain forward pass."""
    layout = model.prompts.answer(model.prompts.joint(example.query, kept), "Jane Austen")
    with torch.inference_mode():
        logits = tiny_model()(torch.tensor([layout.input_ids])).logits[0]
    return float(log_softmax_of(layout, logits).mean())


def test_drops_are_those_of_plain_passes_without_each_chunk(tmp_path: Path) -> None:
    model = answer_model()
    collected = DropCollection(model, EXAMPLES, tmp_path, fingerprint="f").collect(workers=2)
    assert sorted(collected.rows) == [0, 2] and sorted(collected.left_out) == [1, 3]
    assert collected.left_out[3] == TOO_LONG
    for item, row in collected.rows.items():
        chunks = list(EXAMPLES[item].chunks)
        full = nats(model, EXAMPLES[item], chunks)
        expected = [
            full - nats(model, EXAMPLES[item], [other for other in chunks if other is not chunk])
            for chunk in chunks
        ]
        assert row["drops"] == pytest.approx(expected, abs=1e-5)
