"""Converts a llama GGUF file to a folder that transformers reads.

The folder's bytes depend on the GGUF file alone. Head weights are fitted on one set of weights and
one tokenisation, so nothing is left to the installed version of transformers: its GGUF loader adds
other special tokens in other 5.x releases, and none of them knows that this vocabulary splits every
digit off. For the same reason a file with an unknown field or tensor is refused. Weights are
dequantised in float32 and rounded once, to bfloat16; they equal those of transformers' loader.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_NORMAL_TOKEN, _CONTROL_TOKEN = 1, 3
_SAMPLE = "In 1999,\n\n  3 naïve cafés?"

# Names in the metadata, without `llama.`, and in config.json.
_CONFIG_FIELDS = {
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "rope.dimension_count": "head_dim",
    "rope.freq_base": "rope_theta",
    "vocab_size": "vocab_size",
}
_TENSORS = {
    "output.weight": "lm_head.weight",
    "output_norm.weight": "model.norm.weight",
    "token_embd.weight": "model.embed_tokens.weight",
}
_LAYER_TENSORS = {
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_norm.weight": "input_layernorm.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
}


def convert_gguf(gguf: Path, folder: Path, *, report: Callable[[float], None]) -> None:
    """Convert a llama GGUF file with a byte-level BPE tokenizer to a folder that doesn't exist yet.

    `report` takes the share of tensors done so far.
    """
    from gguf import GGUFReader

    folder.mkdir()
    reader: Any = GGUFReader(gguf)
    metadata = {name: field.contents() for name, field in reader.fields.items()}
    config = _config(metadata)
    config["tie_word_embeddings"] = all(tensor.name != "output.weight" for tensor in reader.tensors)
    _write_json(folder / "config.json", config)
    special_ids = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    _write_json(folder / "generation_config.json", special_ids)
    _write_tokenizer(metadata, folder)
    _write_weights(reader.tensors, config, folder / "model.safetensors", report)
    # safetensors makes its files private; a cache may be shared, so all files get one mode.
    (folder / "model.safetensors").chmod((folder / "config.json").stat().st_mode)


def _config(metadata: Mapping[str, Any]) -> dict[str, Any]:
    architecture = metadata["general.architecture"]
    if architecture != "llama":
        raise ValueError(f"the architecture is {architecture!r}; only 'llama' is handled")
    fields = _fields(metadata, "llama.")
    if fields.keys() != _CONFIG_FIELDS.keys():
        odd = ", ".join(sorted(fields.keys() ^ _CONFIG_FIELDS.keys()))
        raise ValueError(f"llama fields that are missing or not handled: {odd}")
    config = {name: fields[key] for key, name in _CONFIG_FIELDS.items()}
    theta = config.pop("rope_theta")
    return {
        **config,
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "dtype": "bfloat16",
        "eos_token_id": metadata.get("tokenizer.ggml.eos_token_id"),
        "hidden_act": "silu",
        "mlp_bias": False,
        "model_type": "llama",
        "pad_token_id": metadata.get("tokenizer.ggml.padding_token_id"),
        "rope_parameters": {"rope_theta": theta, "rope_type": "default"},
    }


def _write_weights(
    tensors: list[Any], config: Mapping[str, Any], path: Path, report: Callable[[float], None]
) -> None:
    import torch
    from gguf import dequantize
    from safetensors.torch import save_file

    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    weights = {}
    for done, tensor in enumerate(tensors, start=1):
        name = _tensor_name(tensor.name)
        values = dequantize(tensor.data, tensor.tensor_type)
        part = tensor.name.split(".")[-2]
        if part in heads:
            # GGUF interleaves the two halves that RoPE rotates.
            # [H * D, hidden] -> [H, D/2, 2, hidden] -> [H, 2, D/2, hidden] -> [H * D, hidden]
            halves = values.reshape(heads[part], -1, 2, values.shape[-1])
            values = halves.swapaxes(1, 2).reshape(values.shape)
        weights[name] = torch.tensor(values, dtype=torch.float32).to(torch.bfloat16)
        report(done / len(tensors))
    expected = 2 + len(_LAYER_TENSORS) * config["num_hidden_layers"]
    expected += not config["tie_word_embeddings"]
    if len(weights) != expected:
        raise ValueError(f"{len(weights)} tensors, {expected} expected")
    save_file(weights, path, metadata={"format": "pt"})


def _tensor_name(name: str) -> str:
    match = re.fullmatch(r"blk\.(\d+)\.(.+)", name)
    converted = _LAYER_TENSORS.get(match[2]) if match else _TENSORS.get(name)
    if converted is None:
        raise ValueError(f"the tensor {name!r} isn't handled")
    return f"model.layers.{match[1]}.{converted}" if match else converted


def _write_tokenizer(metadata: Mapping[str, Any], folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    fields = _fields(metadata, "tokenizer.ggml.")
    kind = (fields["model"], fields.get("pre"), fields.get("add_bos_token", False))
    if kind != ("gpt2", "smollm", False):
        raise ValueError(
            f"the tokenizer is of the kind (model, pre, add_bos_token) = {kind}; "
            "only ('gpt2', 'smollm', False) is handled"
        )
    tokens, types = fields["tokens"], fields["token_type"]
    if not set(types) <= {_NORMAL_TOKEN, _CONTROL_TOKEN}:
        raise ValueError(f"token types {sorted(set(types))}; only 1 and 3 are handled")
    tokenizer: Any = Tokenizer(
        models.BPE(
            vocab={token: index for index, token in enumerate(tokens)},
            merges=[tuple(merge.split(" ", 1)) for merge in fields["merges"]],
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, types, strict=True) if kind == _CONTROL_TOKEN]
    special = [AddedToken(token, special=True, normalized=False) for token in control]
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))

    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    for role, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")):
        token_id = fields.get(f"{key}_token_id")
        config[f"{role}_token"] = None if token_id is None else tokens[token_id]
    _write_json(folder / "tokenizer_config.json", config)
    template = metadata.get("tokenizer.chat_template")
    if template is not None:
        (folder / "chat_template.jinja").write_bytes(template.encode("utf-8"))
    _check_tokenizer(folder, tokenizer.encode(_SAMPLE).ids, template)


def _check_tokenizer(folder: Path, expected: list[int], template: str | None) -> None:
    """Load the tokenizer as users do and compare it with the one that was saved."""
    from transformers import AutoTokenizer

    loaded: Any = AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    ids = loaded(_SAMPLE)["input_ids"]
    if ids != expected or loaded.decode(ids) != _SAMPLE:
        raise ValueError(
            f"the saved tokenizer reads {_SAMPLE!r} as {ids}, not as {expected}; "
            "this version of transformers changes it on loading"
        )
    if loaded.chat_template != template:
        raise ValueError("the saved tokenizer lost its chat template on loading")


def _fields(metadata: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {
        name.removeprefix(prefix): metadata[name] for name in metadata if name.startswith(prefix)
    }


def _write_json(path: Path, fields: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")
