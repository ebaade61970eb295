"""Conversion against transformers' own GGUF loader and against tokens worked out by hand."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from at2_rag.model.gguf import convert_gguf
from tests.tiny_gguf import MERGES, TEMPLATE, TOKENS, write_tiny_gguf


def convert(gguf: Path, folder: Path) -> Path:
    convert_gguf(gguf, folder, report=lambda share: None)
    return folder


@pytest.mark.parametrize("tied", [True, False])
def test_weights_and_logits_equal_those_of_transformers(tmp_path: Path, tied: bool) -> None:
    gguf = write_tiny_gguf(tmp_path / "tiny.gguf", tied=tied)
    folder = convert(gguf, tmp_path / "model")
    theirs: Any = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file=gguf.name, dtype=torch.float32
    )
    for weights in theirs.parameters():
        weights.data = weights.data.to(torch.bfloat16).float()
    ours: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    state, expected = ours.state_dict(), theirs.state_dict()
    assert state.keys() == expected.keys()
    for name, value in state.items():
        assert torch.equal(value, expected[name]), name
    assert AutoModelForCausalLM.from_pretrained(folder).dtype == torch.bfloat16
    ids = torch.arange(3, 40)[None]
    assert torch.equal(ours(ids).logits, theirs(ids).logits)
    assert ours.config.max_position_embeddings == theirs.config.max_position_embeddings
    assert ours.config.tie_word_embeddings is tied


def test_tokenizer_splits_digits_and_keeps_its_template(tmp_path: Path) -> None:
    folder = convert(write_tiny_gguf(tmp_path / "tiny.gguf"), tmp_path / "model")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == len(TOKENS)
    assert "Ġ1" in TOKENS and "Ġ 1" in MERGES  # a merge that digits standing alone never reach
    assert tokenizer.tokenize("the 1\n\n  12<|im_end|>") == (
        ["t", "he", "Ġ", "1", "ĊĊ", "ĠĠ", "1", "2", "<|im_end|>"]
    )
    text = "naïve 日本語 👩‍👩‍👧 \x00 the"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.chat_template == TEMPLATE
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert (tokenizer.pad_token, tokenizer.unk_token) == ("<|im_end|>", "<|endoftext|>")


def test_bytes_are_the_same_each_time_and_files_share_a_mode(tmp_path: Path) -> None:
    gguf = write_tiny_gguf(tmp_path / "tiny.gguf")
    folders = [convert(gguf, tmp_path / name) for name in ("one", "two")]
    one, two = (
        {path.name: hashlib.sha256(path.read_bytes()).digest() for path in folder.iterdir()}
        for folder in folders
    )
    assert one == two
    assert len({path.stat().st_mode for path in folders[0].iterdir()}) == 1


def test_nothing_is_printed_and_no_random_number_drawn(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    gguf, state = write_tiny_gguf(tmp_path / "tiny.gguf"), torch.get_rng_state()
    convert(gguf, tmp_path / "model")
    assert torch.equal(state, torch.get_rng_state())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("oddity", "message"),
    [
        ({"pre": "llama-bpe"}, r"\('gpt2', 'llama-bpe', False\); only \('gpt2', 'smollm', False\)"),
        ({"extra_field": "rope.scaling.factor"}, r"not handled: rope\.scaling\.factor"),
        ({"extra_tensor": "rope_freqs.weight"}, r"'rope_freqs\.weight' isn't handled"),
        ({"extra_tensor": "blk.0.attn_q.bias"}, r"'blk\.0\.attn_q\.bias' isn't handled"),
    ],
)
def test_what_is_not_understood_is_refused(
    tmp_path: Path, oddity: dict[str, str], message: str
) -> None:
    gguf = write_tiny_gguf(tmp_path / "tiny.gguf", **oddity)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        convert(gguf, tmp_path / "model")
