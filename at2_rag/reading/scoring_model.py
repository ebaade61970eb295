"""The scoring model: a causal language model of which only the lower layers run.

The caller's model is never changed: the scorer is a view of it, a copy of its module tree that
shares every parameter, cut after the last layer in use and switched to our attention function.
The LM head is not part of it. Buffers are copied, since some families write into theirs.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from at2_rag.errors import InputError, UnsupportedModelError
from at2_rag.model.forks import ForkLock, call_after_fork, forks
from at2_rag.prompt.layout import PromptBuilder
from at2_rag.reading.attention import (
    IMPLEMENTATION,
    READING_KEYWORD,
    AttentionCall,
    AttentionReader,
    PassComplete,
)
from at2_rag.wanted import check_wanted

# `model_type`s whose independent reading is held equal to a brute-force forward by a test.
INDEPENDENT_FAMILIES = frozenset({"gpt2", "granite", "llama", "olmo2", "qwen2", "qwen3"})

# Most tokens of one prompt whose feed-forward activations are in memory at a time. On a CPU each
# product of few rows costs more than its share: it brings the weights into the processor's order.
BLOCK_ROWS = 2048

# Least step of the numbers of tokens that a half-precision model runs, see `_padded_length`.
LENGTH_STEP = 16

_FIXED_ROPE = frozenset({"default", "linear", "llama3", "yarn"})
_DEFAULT_WINDOW = 2048


class ScoringModel:
    """A causal language model, cut to the layers in use, that reads prompts for their attention.

    Thread-safe: a call changes nothing on the object, and torch's thread count is left alone.
    `depth` is the number of layers in use, `layers` that of the whole model. Raises
    `UnsupportedModelError` if the family's attention can't be captured, or it can't be cut.
    """

    def __init__(self, model: Any, tokenizer: Any, *, depth: int | None = None) -> None:
        base = model.base_model
        self.layers, _ = layers_and_heads(base.config)
        if depth is not None and not 1 <= depth <= self.layers:
            raise InputError(f"depth is {depth}; this model has layers 1 to {self.layers}")
        self.depth = depth or self.layers
        self._view = _truncated_view(base, self.depth)
        # Position embeddings that follow the prompt's length keep state between calls.
        self._fixed = _rope_types(base.config) <= _FIXED_ROPE
        self._turn: AbstractContextManager[Any] = nullcontext() if self._fixed else ForkLock()
        self.prompts = PromptBuilder(tokenizer, max_tokens=_window(base.config, tokenizer))
        self._check_capture()
        call_after_fork(self._after_fork)

    def _after_fork(self) -> None:
        """Make this process do with one thread: OpenMP's others exist in the parent alone."""
        torch.set_num_threads(1)

    @property
    def heads(self) -> int:
        """Query heads of a layer."""
        return int(self._view.config.num_attention_heads)

    @property
    def key_heads(self) -> int:
        """Key heads of a layer; query heads share them evenly."""
        return int(getattr(self._view.config, "num_key_value_heads", None) or self.heads)

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        device: torch.device = next(self._view.parameters()).device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """The parameters' floating-point type."""
        dtype: torch.dtype = next(self._view.parameters()).dtype
        return dtype

    def check_independent(self) -> None:
        """Raise `UnsupportedModelError` unless chunks may be read independently."""
        config = self._view.config
        family = config.model_type
        reason = None
        if family not in INDEPENDENT_FAMILIES:
            known = ", ".join(sorted(INDEPENDENT_FAMILIES))
            reason = f"the family {family!r} is not verified for it (verified: {known})"
        elif "sliding_attention" in (getattr(config, "layer_types", None) or ()):
            reason = "its layers use sliding windows"
        elif moving := sorted(_rope_types(config) - _FIXED_ROPE):
            reason = f"its position embedding {moving[0]!r} depends on length"
        if reason:
            raise UnsupportedModelError(
                f'the model can\'t read chunks independently: {reason}; use reading="joint"'
            )

    def run(
        self,
        input_ids: Tensor,
        reading: AttentionReader,
        *,
        position_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> None:
        """Run the layers in use over `input_ids` [B, N] with `reading` in their attention.

        In half precision the reading may see more tokens than N, after all others.
        """
        tokens = input_ids.shape[1]
        extra = self._padding(tokens)
        if position_ids is None:
            extra = max(0, min(extra, self.prompts.max_tokens - tokens))
        if extra:  # causal attention hides them from the tokens before
            input_ids = pad(input_ids, (0, extra))
            position_ids = None if position_ids is None else pad(position_ids, (0, extra))
            attention_mask = None if attention_mask is None else pad(attention_mask, (0, extra))
        with self._turn, forks.held_off(), torch.inference_mode():
            try:
                self._view(
                    input_ids=input_ids,
                    position_ids=position_ids,
                    attention_mask=attention_mask,
                    use_cache=False,
                    **{READING_KEYWORD: reading},
                )
            except PassComplete:
                return

    def run_packed(self, input_ids: Tensor, position_ids: Tensor, reading: AttentionReader) -> None:
        """Run texts packed into one row, [N]; it is the reading that keeps them apart.

        `position_ids` [N] are each token's position in its own text.
        """
        # A mask of four dimensions is taken as it is, which keeps transformers from building one
        # for the whole row.
        unused = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=input_ids.device)
        tokens = len(input_ids)
        extra = self._padding(tokens)
        if extra:
            reading = _FirstTokens(reading, tokens, extra)
            input_ids, position_ids = pad(input_ids, (0, extra)), pad(position_ids, (0, extra))
        self.run(input_ids[None], reading, position_ids=position_ids[None], attention_mask=unused)

    def _padding(self, tokens: int) -> int:
        """Return how many tokens to add, so that few lengths occur.

        For each shape of a half-precision product oneDNN makes kernels of .7 MB, and keeps those
        of the last thousand shapes.
        """
        if not self._fixed or self.device.type != "cpu" or self.dtype == torch.float32:
            return 0
        return _padded_length(tokens) - tokens

    def _check_capture(self) -> None:
        """Run a few tokens and see that every attention layer calls our function."""
        seen = _SeenLayers()
        self.run(torch.tensor([self.prompts.prefix_ids[:4]], device=self.device), seen)
        config = self._view.config
        kinds = getattr(config, "layer_types", None) or ["full_attention"] * self.depth
        expected = {
            index
            for index, kind in enumerate(kinds)
            if kind.endswith("attention") and not kind.startswith("linear")
        }
        missing = sorted(expected - seen.layers)
        if missing or not expected:
            reason = (
                f"doesn't route the attention of layers {missing} through transformers' "
                "attention interface"
                if missing
                else f"has no attention in its first {self.depth} layers"
            )
            raise UnsupportedModelError(
                f"the family {config.model_type!r} {reason}, so it can't be captured; "
                "use a family that does (llama, qwen, gemma, mistral, gpt2 and many more)"
            )


class _RowBlocks(nn.Module):
    """A feed-forward block of a layer, run on a part of the tokens at a time.

    What is inside it is several times as wide as what goes in, and would take most of the memory.
    """

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner
        self._gated = hasattr(inner, "gate_proj")

    def forward(self, hidden: Tensor) -> Tensor:
        """Run the block on `hidden` [B, N, E]."""
        if hidden.shape[1] <= BLOCK_ROWS:
            return self._run(hidden)
        output = torch.empty_like(hidden)
        for start in range(0, hidden.shape[1], BLOCK_ROWS):
            part = slice(start, start + BLOCK_ROWS)
            output[:, part] = self._run(hidden[:, part])
        return output

    def _run(self, hidden: Tensor) -> Tensor:
        inner = self.inner
        if not self._gated:
            output: Tensor = inner(hidden)
            return output
        # As the families do it, to the bit, but for the product's memory.
        gate = inner.act_fn(inner.gate_proj(hidden))
        output = inner.down_proj(gate.mul_(inner.up_proj(hidden)))
        return output


class _FirstTokens:
    """A reading that sees the first tokens of a row alone, not those added after them."""

    def __init__(self, reading: AttentionReader, tokens: int, extra: int) -> None:
        self._reading, self._tokens, self._extra = reading, slice(tokens), extra

    def attend(self, call: AttentionCall) -> Tensor:
        query, key, value = (one[:, :, self._tokens] for one in (call.query, call.key, call.value))
        output = self._reading.attend(replace(call, query=query, key=key, value=value))
        return pad(output, (0, 0, 0, 0, 0, self._extra))  # [B, N, H, D]


class _SeenLayers:
    """A reading that only notes which layers call it."""

    def __init__(self) -> None:
        self.layers: set[int] = set()

    def attend(self, call: AttentionCall) -> Tensor:
        self.layers.add(call.layer)
        return call.plain()


def between_steps() -> None:
    """Let forks have their moment, and end here if nobody waits for the result any more."""
    forks.let_pass()
    check_wanted()


def layers_and_heads(config: Any) -> tuple[int, int]:
    """Return how many layers a base model has, and how many query heads a layer."""
    names = ("num_hidden_layers", "num_attention_heads")
    layers, heads = (getattr(config, name, None) for name in names)
    if isinstance(layers, int) and isinstance(heads, int):
        return layers, heads
    raise UnsupportedModelError(
        f"the family {config.model_type!r} has {layers} layers with {heads} attention heads by "
        "its config, where two numbers are expected; use a text-only decoder with attention"
    )


def _padded_length(tokens: int) -> int:
    """Round up by less than an eighth, or to a multiple of `LENGTH_STEP`."""
    step = max(LENGTH_STEP, 1 << max(0, tokens.bit_length() - 4))
    return -(-tokens // step) * step


def _window(config: Any, tokenizer: Any) -> int:
    limit = getattr(config, "max_position_embeddings", None)
    if isinstance(limit, int) and limit > 0:
        return limit
    limit = tokenizer.model_max_length
    return limit if limit < 10**9 else _DEFAULT_WINDOW


def _rope_types(config: Any) -> set[str]:
    """Return the kinds of position embedding that a config names, of all kinds of layers."""
    rope = getattr(config, "rope_parameters", None) or {}
    by_layer = [value for value in rope.values() if isinstance(value, Mapping)]
    return {kind.get("rope_type", "default") for kind in by_layer or [rope]}


def shared_view(model: nn.Module) -> Any:
    """Return a copy of a model's module tree that shares all parameters, with our attention."""
    view: Any = copy.deepcopy(model, {id(tensor): tensor for tensor in model.parameters()})
    try:
        view.set_attn_implementation(IMPLEMENTATION)
    except ValueError as error:
        raise UnsupportedModelError(
            f"the family {view.config.model_type!r} can't use another attention function: "
            f"{error}; use a family that supports transformers' attention interface"
        ) from error
    return view.eval()


def _truncated_view(base: nn.Module, depth: int) -> Any:
    """Return a view of the base model that ends after `depth` layers."""
    view = shared_view(base)
    total = view.config.num_hidden_layers
    stacks = [
        (parent, name)
        for parent in view.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == total
    ]
    if len(stacks) != 1:
        raise UnsupportedModelError(
            f"the family {view.config.model_type!r} has {len(stacks)} stacks of {total} layers "
            "where one is expected, so it can't be cut; use a text-only decoder"
        )
    parent, name = stacks[0]
    layers = getattr(parent, name)[:depth]
    for layer in layers:
        layer.register_forward_pre_hook(lambda *_: between_steps())
        if view.config.model_type in INDEPENDENT_FAMILIES:
            layer.mlp = _RowBlocks(layer.mlp)
    setattr(parent, name, layers)
    view.config.num_hidden_layers = depth
    kinds = getattr(view.config, "layer_types", None)
    if kinds and len(kinds) > depth:  # families that derive the list have already cut it
        view.config.layer_types = kinds[:depth]
    return view
