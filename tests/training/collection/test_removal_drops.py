"""What leaving out chunks costs the reference answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from at2_rag.data.examples import Example
from at2_rag.errors import DataError, InputError
from at2_rag.text.chunks import Chunk
from at2_rag.training.answering.answer_model import AnswerModel
from at2_rag.training.collection.removal_drops import collect_drops
from at2_rag.training.collection.rows import SHARD_EXAMPLES
from tests.tiny_models import tiny_model, tiny_tokenizer


def make_example(number: int, *, answers: tuple[str, ...] = ("", "Jane Austen")) -> Example:
    chunks = (
        Chunk(f"Jane Austen wrote novel {number}.", title="Emma"),
        Chunk("The river flows to the sea."),
        Chunk(f"House {number} is by the river."),
    )
    return Example(f"q{number}", "novels", "who wrote it?", chunks, (True, False, False), answers)


EXAMPLES = [make_example(0), make_example(1, answers=()), make_example(2)]


@pytest.fixture(scope="module")
def model() -> AnswerModel:
    return AnswerModel(tiny_model(), tiny_tokenizer())


def nats(model: AnswerModel, example: Example, kept: list[Chunk]) -> float:
    """Return the mean log-probability of the answer's tokens by a plain forward pass."""
    layout = model.prompts.answer(model.prompts.joint(example.query, kept), "Jane Austen")
    with torch.inference_mode():
        logits = tiny_model()(torch.tensor([layout.input_ids])).logits[0].double()
    tokens = torch.tensor(layout.answer_ids)
    told = logits[-len(tokens) - 1 : -1].log_softmax(-1).gather(1, tokens[:, None])
    return float(told.mean())


def test_drops_are_those_of_plain_passes_without_each_chunk(
    model: AnswerModel, tmp_path: Path
) -> None:
    found = collect_drops(model, EXAMPLES, tmp_path, fingerprint="f", workers=2)
    assert sorted(found) == [0, 2]  # the other has no answer
    for place, drops in found.items():
        example = EXAMPLES[place]
        full = nats(model, example, list(example.chunks))
        expected = [
            full - nats(model, example, [own for own in example.chunks if own is not chunk])
            for chunk in example.chunks
        ]
        assert drops == pytest.approx(expected, abs=1e-5)


def test_a_killed_collection_goes_on(model: AnswerModel, tmp_path: Path) -> None:
    examples = [make_example(number) for number in range(SHARD_EXAMPLES + 3)]
    whole = collect_drops(model, examples, tmp_path / "whole", fingerprint="f")

    def stop(done: int, total: int) -> None:
        if done > SHARD_EXAMPLES:
            raise KeyboardInterrupt

    place = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        collect_drops(model, examples, place, fingerprint="f", progress=stop)
    seen: list[int] = []
    again = collect_drops(
        model, examples, place, fingerprint="f", progress=lambda done, total: seen.append(done)
    )
    assert seen == [20, 21, 22, 23]
    assert list(again) == list(whole)
    assert all(np.array_equal(again[place], whole[place]) for place in whole)


def test_what_can_not_be_read_is_said(model: AnswerModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none of the 1 examples has chunks and a reference"):
        collect_drops(model, EXAMPLES[1:2], tmp_path / "none", fingerprint="f")
    long = make_example(3, answers=("word " * 5000,))
    with pytest.raises(InputError, match="that fit the model's window of"):
        collect_drops(model, [long], tmp_path / "long", fingerprint="f")
    collect_drops(model, EXAMPLES, tmp_path / "own", fingerprint="f")
    with pytest.raises(DataError, match="other settings|another collection"):
        collect_drops(model, EXAMPLES[:2], tmp_path / "own", fingerprint="f")
