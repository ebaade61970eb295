"""Small random models of many families and a small tokenizer, built in code and offline."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedTokenizerFast,
)

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

_TEXT = (
    "Answer the question using only the passages below. Question: who wrote the novel Emma?",
    "Jane Austen wrote Emma in 1815. The river flows through the old town to the sea.",
    "The bridge was opened in 1932 and spans the harbour; what is it called?",
)

_BASE: dict[str, Any] = {
    "vocab_size": 384,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 2048,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_NO_GQA = {"num_key_value_heads": None, "head_dim": None}
_OVERRIDES: dict[str, dict[str, Any]] = {
    "gpt2": {
        "vocab_size": 384,
        "n_embd": 32,
        "n_layer": 3,
        "n_head": 4,
        "n_positions": 2048,
        "bos_token_id": 0,
        "eos_token_id": 2,
    },
    "gpt_neox": _NO_GQA,
    "opt": {**_NO_GQA, "ffn_dim": 48, "word_embed_proj_dim": 32},
    "llama": {},
    "gemma": {},
    "olmo2": {},
    "gemma2": {"query_pre_attn_scalar": 8, "sliding_window": 16, "attn_logit_softcapping": 2.0},
    "gemma3_text": {"query_pre_attn_scalar": 8, "sliding_window": 16},
    "mistral": {"sliding_window": 16},
    "phi3": {"sliding_window": 16},
    "qwen2": {"use_sliding_window": False},
    "qwen3": {"use_sliding_window": False},
    "granite": {"attention_multiplier": 0.3},
    "gpt_oss": {"sliding_window": 16, "num_local_experts": 2, "num_experts_per_tok": 1},
    "smollm3": {"use_sliding_window": False},
}

FAMILIES = tuple(_OVERRIDES)


@cache
def tiny_tokenizer(chat_template: bool = True) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer of 384 tokens, with or without a ChatML template."""
    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend = _trained(split, pre_tokenizers.ByteLevel.alphabet())
    backend.decoder = decoders.ByteLevel()
    # An added token that is not "special", as `<think>` is in some families.
    backend.add_tokens([AddedToken("<tool>", normalized=False)])
    tokenizer = _fast(backend, additional_special_tokens=["<|im_start|>"])
    tokenizer.chat_template = CHAT_TEMPLATE if chat_template else None
    return tokenizer


@cache
def dropping_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer that drops white space, and whatever isn't ASCII."""
    return _fast(_trained(pre_tokenizers.WhitespaceSplit(), list(map(chr, range(33, 127)))))


def _trained(split: Any, alphabet: list[str]) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = split
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(_TEXT, trainer)
    return backend


def _fast(backend: Tokenizer, **settings: Any) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=2048,
        **settings,
    )


def tiny_model(model_type: str = "llama", *, seed: int = 0, **overrides: Any) -> Any:
    """Return a random causal LM of a family, float32, its attention far from uniform.

    Args:
        model_type: The family, one of `FAMILIES`.
        seed: Of the weights.
        **overrides: Configuration values.
    """
    config_values = {**({} if model_type == "gpt2" else _BASE), **_OVERRIDES.get(model_type, {})}
    config_values = {k: v for k, v in {**config_values, **overrides}.items() if v is not None}
    config = AutoConfig.for_model(model_type, **config_values)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: Any = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config, attn_implementation="eager"
        )
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and ("q_proj" in name or "k_proj" in name or "attn" in name):
                torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def vision_model() -> Any:
    """Return a random model around a text model, whose own config has no layers and heads."""
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    config = AutoConfig.for_model("gemma3", text_config=_BASE, vision_config=vision)
    kind: Any = AutoModelForImageTextToText
    return kind.from_config(config).eval()
