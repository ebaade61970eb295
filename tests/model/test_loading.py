"""Loading a scoring model from a folder: complete, as data only, on a usable device."""

from __future__ import annotations

import io
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from at2_rag.errors import InputError, ModelNotFoundError
from at2_rag.model.loading import load_model, preferred_dtype
from tests.tiny_models import tiny_model, tiny_tokenizer

CPU_INFO = Path("/proc/cpuinfo")


def saved(folder: Path, model: Any = None) -> Path:
    (model or tiny_model()).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def configure(folder: Path, name: str = "config.json", **values: Any) -> None:
    config = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**config, **values}))


def lose(folder: Path, *parts: str) -> None:
    """Take tensors out of the weights, by parts of their names."""
    tensors = load_file(folder / "model.safetensors")
    left = {k: v for k, v in tensors.items() if not any(part in k for part in parts)}
    assert len(left) < len(tensors)
    save_file(left, folder / "model.safetensors", metadata={"format": "pt"})


def failure(folder: Path) -> str:
    with pytest.raises(ModelNotFoundError, match=r"can't be loaded as a model: .*; ") as caught:
        load_model(folder, device="cpu")
    assert str(caught.value).startswith(str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- what is loaded --------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text", "gpt_oss"])
def test_what_save_pretrained_wrote_is_loaded_whole(family: str, tmp_path: Path) -> None:
    model = tiny_model(family)
    loaded, _ = load_model(saved(tmp_path, model), device="cpu", dtype=torch.float32)
    expected = model.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in loaded.state_dict().items())


@pytest.mark.skipif(
    platform.machine() != "x86_64" or not CPU_INFO.exists(), reason="asks Linux about an x86 CPU"
)
def test_bfloat16_is_preferred_only_where_the_cpu_has_fast_instructions_for_it(
    model_folder: Path,
) -> None:
    lines = CPU_INFO.read_text().splitlines()
    flags = next(line for line in lines if line.startswith("flags")).split()
    intel = any("GenuineIntel" in line for line in lines)
    fast = "amx_bf16" in flags or ("avx512_bf16" in flags and not intel)
    expected = torch.bfloat16 if fast else torch.float32
    assert preferred_dtype(torch.device("cpu")) == expected
    model, tokenizer = load_model(model_folder, device="cpu")
    assert model.dtype == expected
    assert tokenizer("who wrote Emma?").input_ids == tiny_tokenizer()("who wrote Emma?").input_ids


@pytest.mark.parametrize("tied", [True, False])
def test_the_head_of_the_language_model_may_be_missing(tied: bool, tmp_path: Path) -> None:
    model = tiny_model(tie_word_embeddings=tied)
    saved(tmp_path, model)
    if not tied:
        lose(tmp_path, "lm_head")
    loaded, _ = load_model(tmp_path, device="cpu", dtype=torch.float32)
    assert torch.equal(loaded.model.norm.weight, model.model.norm.weight)
    saved(tmp_path / "base", model.model)
    load_model(tmp_path / "base", device="cpu")


# --- what is refused -------------------------------------------------------------------------


def odd_config(folder: Path) -> None:
    configure(folder, hidden_size="wide")


def endless_layers(folder: Path) -> None:
    configure(folder, num_hidden_layers=10**400)


def deep_config(folder: Path) -> None:
    text = (folder / "config.json").read_text()
    nest = '{"a":' * 3000 + "1" + "}" * 3000
    (folder / "config.json").write_text(text.replace("{", f'{{"deep": {nest},', 1))


def huge_number(folder: Path) -> None:
    configure(folder, hidden_size=10**400)


def break_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x00" * 64)


def garble_config(folder: Path) -> None:
    (folder / "config.json").write_bytes(b"\xff\x00")


def lose_a_shard(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    index = {"metadata": {}, "weight_map": {"model.norm.weight": "b.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def remove_all(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    "damage",
    [
        odd_config,
        endless_layers,
        deep_config,
        huge_number,
        garble_config,
        break_weights,
        lose_a_shard,
        remove_all,
    ],
)
def test_a_folder_that_is_not_a_model(damage: Callable[[Path], None], tmp_path: Path) -> None:
    damage(saved(tmp_path))
    assert "; pass a folder that transformers' save_pretrained wrote" in failure(tmp_path)


def test_missing_weights_are_not_made_up(tmp_path: Path) -> None:
    lose(saved(tmp_path / "layer"), "layers.1.")
    message = failure(tmp_path / "layer")
    assert "model.layers.1.input_layernorm.weight is missing (and 8 more)" in message
    saved(tmp_path / "tied", tiny_model(tie_word_embeddings=True))
    lose(tmp_path / "tied", "embed_tokens")
    assert "model.embed_tokens.weight is missing; restore" in failure(tmp_path / "tied")


def test_weights_of_another_shape_are_named_with_both(tmp_path: Path) -> None:
    configure(saved(tmp_path), intermediate_size=64)
    message = failure(tmp_path)
    name = "model.layers.0.mlp.down_proj.weight"
    assert f"{name} has the shape [32, 48] instead of [32, 64] (and 8 more)" in message


@pytest.mark.parametrize("part", ["model", "tokenizer"])
def test_code_of_a_folder_is_neither_run_nor_asked_for(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(tmp_path / "model")
    (folder / "custom.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    if part == "model":
        classes: dict[str, Any] = {
            "AutoConfig": "custom.Config",
            "AutoModelForCausalLM": "custom.Model",
        }
        configure(folder, model_type="custom", auto_map=classes)
    else:
        classes = {"auto_map": {"AutoTokenizer": ["custom.New", None]}, "tokenizer_class": "New"}
        configure(folder, "tokenizer_config.json", **classes)
    answers = io.StringIO("y\n" * 9)
    monkeypatch.setattr("sys.stdin", answers)
    message = failure(folder)
    assert "the folder needs custom code, which is never run; use a model whose family" in message
    assert "trust_remote_code" not in message
    assert answers.tell() == 0, "a question was answered"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_a_config_reaches_no_kernel_loader(key: str, tmp_path: Path) -> None:
    """It names code on the hub; the package that would fetch it isn't even looked for."""
    configure(saved(tmp_path), **{key: "kernels-community/flash-attn2"})
    with pytest.raises(ImportError, match="kernels"):
        AutoModelForCausalLM.from_pretrained(tmp_path)
    model, _ = load_model(tmp_path, device="cpu")
    assert model.config._attn_implementation == "sdpa"
    configure(tmp_path, **{key: "flex_attention", "experts_implementation": "sonicmoe"})
    config = load_model(tmp_path, device="cpu")[0].config
    assert (config._attn_implementation, config._experts_implementation) == ("sdpa", "eager")


@pytest.mark.parametrize("shown", [True, False])
def test_loading_shows_no_bar_and_leaves_the_callers_switch(
    shown: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "_tqdm_active", shown)
    load_model(saved(tmp_path), device="cpu")
    remove_all(tmp_path)
    failure(tmp_path)
    assert "Loading weights" not in capfd.readouterr().err
    assert logging.is_progress_bar_enabled() is shown
    AutoModelForCausalLM.from_pretrained(saved(tmp_path))
    assert ("Loading weights" in capfd.readouterr().err) is shown


# --- devices ---------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["gpu", "cuda:99", 3.5])
def test_an_unusable_device(device: Any, model_folder: Path) -> None:
    with pytest.raises(InputError, match=f"device is {device!r}, .*; pass 'cpu', or None"):
        load_model(model_folder, device=device)
