"""The fingerprint: the same for the same weights in any form, another for anything else."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from at2_rag.model.fingerprint import cached_fingerprint, model_fingerprint, states_scope
from tests.tiny_models import tiny_model, tiny_tokenizer


def fingerprint(model: Any, tokenizer: Any = None) -> str:
    return model_fingerprint(model.base_model, tokenizer or tiny_tokenizer())


def halved(**overrides: Any) -> Any:
    """Return a float32 model whose weights bfloat16 holds exactly, as published weights are."""
    return tiny_model(**overrides).to(torch.bfloat16).float()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_same_weights_have_the_same_fingerprint(family: str, tmp_path: Path) -> None:
    model = halved(model_type=family)
    expected = fingerprint(model)
    assert re.fullmatch("[0-9a-f]{64}", expected)
    assert fingerprint(copy.deepcopy(model).to(torch.bfloat16)) == expected
    for dtype in (torch.float32, torch.bfloat16):
        folder = tmp_path / str(dtype)
        copy.deepcopy(model).to(dtype).save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        for loaded_as in (torch.float32, torch.bfloat16):
            loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=loaded_as)
            assert fingerprint(loaded, tokenizer) == expected


def test_how_attention_is_computed_does_not_count() -> None:
    model = tiny_model()
    model.set_attn_implementation("sdpa")
    assert fingerprint(model.train()) == fingerprint(tiny_model())


def one_weight(model: Any) -> Any:
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] += 0.5
    return model


def rope(model: Any) -> Any:
    model.config.rope_parameters = {**model.config.rope_parameters, "rope_theta": 5e4}
    return model


def head_split(model: Any) -> Any:
    model.config.num_attention_heads, model.config.num_key_value_heads = 2, 1
    return model


def fewer_layers(model: Any) -> Any:
    return tiny_model(num_hidden_layers=2)


def other_shape(model: Any) -> Any:
    weight = model.model.layers[0].mlp.up_proj.weight
    weight.data = weight.data.reshape(weight.shape[1], weight.shape[0])
    return model


@pytest.mark.parametrize("change", [one_weight, rope, head_split, fewer_layers, other_shape])
def test_another_model_has_another_fingerprint(change: Callable[[Any], Any]) -> None:
    assert fingerprint(change(tiny_model())) != fingerprint(tiny_model())


def lower_case(tokenizer: Any) -> None:
    from tokenizers import normalizers

    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()


def split_digits(tokenizer: Any) -> None:
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("e", "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )


@pytest.mark.parametrize("change", [lower_case, split_digits])
def test_another_tokenizer_has_another_fingerprint(change: Callable[[Any], None]) -> None:
    tokenizer = copy.deepcopy(tiny_tokenizer())
    assert fingerprint(tiny_model(), tokenizer) == fingerprint(tiny_model())
    change(tokenizer)
    assert fingerprint(tiny_model(), tokenizer) != fingerprint(tiny_model())


class Cached:
    """A folder, and its fingerprint's cache; a fingerprint says how often it was computed."""

    def __init__(self, path: Path) -> None:
        self.folder, self.cache = path / "model", path / "not yet" / "there"
        self.calls = 0
        self.folder.mkdir()
        (self.folder / "config.json").write_text("{}")
        (self.folder / "model.safetensors").write_bytes(b"weights")

    def compute(self) -> str:
        self.calls += 1
        return f"{self.calls:064x}"

    def __call__(self, dtype: torch.dtype = torch.bfloat16) -> int:
        return int(cached_fingerprint(self.folder, self.cache, self.compute, dtype=dtype), 16)


@pytest.fixture
def cached(tmp_path: Path) -> Cached:
    return Cached(tmp_path)


def test_it_is_computed_once_for_each_dtype(cached: Cached) -> None:
    assert [cached(), cached(), cached()] == [1, 1, 1]
    assert len(list(cached.cache.iterdir())) == 1
    assert cached(torch.float16) == 2, "float16 can't hold all that bfloat16 can"


def grow(folder: Path) -> None:
    (folder / "config.json").write_text("{ }")


def touch(folder: Path) -> None:
    os.utime(folder / "model.safetensors", ns=(1, 1))


def add(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


def rot(folder: Path) -> None:
    path = folder / "model.safetensors"
    before = path.stat()
    path.write_bytes(b"w\0\0ghts")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [grow, touch, add, rot])
def test_it_is_computed_again_when_a_file_changes(
    change: Callable[[Path], None], cached: Cached
) -> None:
    cached()
    change(cached.folder)
    assert [cached(), cached()] == [2, 2]


@pytest.mark.parametrize("damage", [b"", b"g" * 64, b"\xff" * 64, b"0" * 65])
def test_a_damaged_entry_is_computed_again(damage: bytes, cached: Cached) -> None:
    cached()
    (entry,) = cached.cache.iterdir()
    entry.write_bytes(damage)
    assert [cached(), cached()] == [2, 2]


def test_a_cache_that_cannot_be_written_is_ignored(cached: Cached) -> None:
    cached.cache.parent.write_text("")
    assert [cached(), cached()] == [1, 2]
    assert cached.cache.parent.read_text() == ""


@pytest.mark.parametrize("package", ["transformers", "tokenizers"])
def test_another_version_of_a_library_computes_again(
    package: str, cached: Cached, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached()
    metadata = tmp_path / "other" / f"{package}-99.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 99\n")
    monkeypatch.syspath_prepend(str(tmp_path / "other"))
    assert [cached(), cached()] == [2, 2]


# --- what chunk states are bound to -------------------------------------------------------------


def scope(model: Any, **changed: Any) -> str:
    known = {"fingerprint": "f", "template_hash": "t", "depth": 2, **changed}
    return states_scope(model.base_model, **known)


def test_states_of_the_same_model_are_found_from_a_folder_and_an_object(tmp_path: Path) -> None:
    model = halved()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert scope(loaded) == scope(model) == scope(copy.deepcopy(model).train())


def test_states_are_bound_to_more_than_the_fingerprint() -> None:
    model = halved()
    others = [scope(model, fingerprint="g"), scope(model, template_hash="u"), scope(model, depth=1)]
    others += [scope(copy.deepcopy(model).to(torch.bfloat16)), scope(halved(rms_norm_eps=1e-3))]
    finer = copy.deepcopy(model)
    with torch.no_grad():
        next(finer.base_model.parameters()).mul_(1 + 1e-6)
    assert fingerprint(finer) == fingerprint(model), "head weights bear with it"
    others.append(scope(finer))
    granite = halved(model_type="granite")
    others += [scope(granite), scope(halved(model_type="granite", residual_multiplier=0.5))]
    assert len({scope(model), *others}) == 1 + len(others)
