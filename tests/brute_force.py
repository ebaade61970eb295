"""What captured attention must equal, computed the slow way.

All of it adds up the attention weights that transformers' eager attention returns
(`output_attentions=True`); nothing of at2_rag's attention is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from at2_rag.prompt.layout import PromptLayout
from at2_rag.prompt.sentence_tokens import SourcePart

LIMIT = 50.0


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """Mass and log ratio of each source, both [L, H, S]."""

    mass: Tensor
    log_ratio: Tensor

    @classmethod
    def join(cls, parts: Sequence[Expected]) -> Expected:
        """Return the sources of all parts, one after another."""
        masses, ratios = zip(*((part.mass, part.log_ratio) for part in parts), strict=True)
        return cls(torch.cat(masses, dim=-1), torch.cat(ratios, dim=-1))


def assert_equal(
    actual: Any, expected: Any, *, depth: int | None = None, tolerance: float = 1e-5
) -> None:
    """Assert that mass and log ratio agree on the first `depth` layers (None: on all)."""
    for name in ("mass", "log_ratio"):
        one, other = getattr(actual, name), getattr(expected, name)[:depth]
        assert one.shape == other.shape, f"{name}: {one.shape} against {other.shape}"
        assert one.dtype == torch.float32
        difference = (one - other).abs().max().item()
        assert difference <= tolerance, f"{name} differs by {difference}"


def attention_layers(attention: Any, kinds: Sequence[str]) -> Expected:
    """Return only those layers of captured attention that attend."""
    layers = [index for index, kind in enumerate(kinds) if kind == "full_attention"]
    return Expected(attention.mass[layers], attention.log_ratio[layers])


Spans = Sequence[tuple[int, int]]


def joint(model: Any, layout: PromptLayout, spans: Spans | None = None) -> Expected:
    """Read the layout as one ordinary causal prompt; `spans` in place of its sources."""
    weights = eager_weights(model, layout.input_ids)
    spans = layout.source_spans if spans is None else spans
    return _sum_up(weights, layout.target_span, spans, len(layout.prefix_ids))


def apart(model: Any, layout: PromptLayout) -> Expected:
    """Read an ordinary causal prompt with one source for each of them."""
    return Expected.join([joint(model, single(layout, ids)) for ids in layout.source_ids])


def part_apart(model: Any, layout: PromptLayout, span: tuple[int, int]) -> Expected:
    """Read a prompt with one source, of which the question sees the tokens of `span` alone."""
    total = len(layout.input_ids)
    start, end = layout.source_spans[0]
    allowed = torch.ones(total, total, dtype=torch.bool).tril()
    allowed[end:, start:end] = False
    allowed[end:, span[0] : span[1]] = True
    weights = eager_weights(model, layout.input_ids, mask=_additive(allowed))
    return _sum_up(weights, layout.target_span, [span], len(layout.prefix_ids))


def together(model: Any, layout: PromptLayout, spans: Spans | None = None) -> Expected:
    """Read one long sequence whose mask hides the sources from each other.

    Each source sees the prefix and itself, the question everything before it; every source's
    positions start where the prefix ends, the question's where the longest source ends. `spans`
    are summed up in place of the sources.
    """
    prefix, total = len(layout.prefix_ids), len(layout.input_ids)
    longest = max(map(len, layout.source_ids))
    owner = [-1] * prefix
    positions = list(range(prefix))
    for index, ids in enumerate(layout.source_ids):
        owner += [index] * len(ids)
        positions += range(prefix, prefix + len(ids))
    question = range(len(owner), total)
    positions += range(prefix + longest, prefix + longest + len(question))
    owners = torch.tensor(owner + [-2] * len(question))
    same = owners[:, None] == owners[None, :]
    allowed = same | (owners[None, :] == -1) | (owners[:, None] == -2)
    mask = _additive(allowed & torch.ones(total, total, dtype=torch.bool).tril())
    weights = eager_weights(model, layout.input_ids, mask=mask, positions=positions)
    spans = layout.source_spans if spans is None else spans
    return _sum_up(weights, layout.target_span, spans, prefix)


def together_cached(model: Any, layout: PromptLayout) -> Expected:
    """Do as `together`, but with much less memory: the question runs over joined caches.

    Each source runs after the prefix alone, and leaves one of transformers' caches.
    """
    prefix = len(layout.prefix_ids)
    caches = []
    for ids in layout.source_ids:
        cache = DynamicCache()
        _forward(model, (*layout.prefix_ids, *ids), past_key_values=cache)
        caches.append(cache)
    joined = DynamicCache()
    for layer in range(model.config.num_hidden_layers):
        states: list[Any] = [cache.layers[layer] for cache in caches]
        keys = [states[0].keys[:, :, :prefix], *(state.keys[:, :, prefix:] for state in states)]
        values = [state.values[:, :, prefix:] for state in states]
        values.insert(0, states[0].values[:, :, :prefix])
        joined.update(torch.cat(keys, dim=2), torch.cat(values, dim=2), layer)
    rows, past = len(layout.question_ids), prefix + sum(map(len, layout.source_ids))
    start = prefix + max(map(len, layout.source_ids))
    weights = eager_weights(
        model,
        layout.question_ids,
        mask=_additive(torch.ones(rows, past + rows, dtype=torch.bool).tril(past)),
        positions=range(start, start + rows),
        past_key_values=joined,
    )
    return _sum_up(weights, layout.target, layout.source_spans, prefix)


def late(
    model: Any, layout: PromptLayout, *, offset: int, parts: Sequence[SourcePart] | None = None
) -> Expected:
    """Read the question blind to the sources, but for the one layer whose weights are summed up.

    Each source stands after the prefix, the question `offset` positions after it. `parts` are
    summed up in place of the sources. Mass is the logistic function of the log ratio.
    """
    prefix = len(layout.prefix_ids)
    if parts is None:
        parts = [SourcePart(index, 0, len(ids)) for index, ids in enumerate(layout.source_ids)]
    read = []
    for part in parts:
        alone = single(layout, layout.source_ids[part.source])
        weights = _weights_of_opened_layers(model, alone, offset)
        span = prefix + part.start, prefix + part.end
        read.append(_sum_up(weights, alone.target_span, [span], prefix))
    ratio = Expected.join(read).log_ratio
    return Expected(ratio.sigmoid(), ratio)


def _weights_of_opened_layers(model: Any, layout: PromptLayout, offset: int) -> Tensor:
    """Return for each layer the weights where it alone lets the question see the one source."""
    modules = [part for part in model.modules() if isinstance(part, torch.nn.ModuleList)]
    [layers] = [part for part in modules if len(part) == model.config.num_hidden_layers]
    prefix, total = len(layout.prefix_ids), len(layout.input_ids)
    start = total - len(layout.question_ids)
    seeing = torch.ones(total, total, dtype=torch.bool).tril()
    blind = seeing.clone()
    blind[start:, prefix:start] = False
    mask = _additive(seeing)

    def open_eyes(_: Any, arguments: Any, keywords: Any) -> Any:
        arguments = (mask if _like(one, mask) else one for one in arguments)
        keywords = {key: mask if _like(one, mask) else one for key, one in keywords.items()}
        return tuple(arguments), keywords

    positions = [*range(start), *range(prefix + offset, prefix + offset + total - start)]
    weights = []
    for number, layer in enumerate(layers):
        hook = layer.register_forward_pre_hook(open_eyes, with_kwargs=True)
        read = eager_weights(model, layout.input_ids, mask=_additive(blind), positions=positions)
        hook.remove()
        weights.append(read[number])
    return torch.stack(weights)


def single(layout: PromptLayout, ids: tuple[int, ...]) -> PromptLayout:
    """Return the layout with one source only."""
    return PromptLayout(layout.prefix_ids, (ids,), (0,), layout.question_ids, layout.target)


def random_layout(
    lengths: Sequence[int], *, prefix: Sequence[int], question: int = 9, seed: int = 0
) -> PromptLayout:
    """Return a layout of random sources of the given lengths, ids from 3 to 383."""
    generator = torch.Generator().manual_seed(seed)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, 384, (count,), generator=generator).tolist())

    sources = tuple(ids(length) for length in lengths)
    return PromptLayout(
        tuple(prefix), sources, tuple(range(len(lengths))), ids(question), (2, question)
    )


def eager_weights(
    model: Any,
    ids: Sequence[int],
    *,
    mask: Tensor | None = None,
    positions: Sequence[int] | None = None,
    past_key_values: Any = None,
) -> Tensor:
    """Return the attention weights of one sequence, [L, H, rows, columns]."""
    output = _forward(
        model,
        ids,
        attention_mask=mask,
        position_ids=None if positions is None else torch.tensor([list(positions)]),
        past_key_values=past_key_values,
        output_attentions=True,
    )
    return torch.cat(output.attentions)


def _forward(model: Any, ids: Sequence[int], **kwargs: Any) -> Any:
    assert model.config._attn_implementation == "eager"
    with torch.inference_mode():
        use_cache = kwargs.get("past_key_values") is not None
        return model(torch.tensor([list(ids)]), use_cache=use_cache, **kwargs)


def _additive(allowed: Tensor) -> Tensor:
    zeros = torch.zeros(1, 1, *allowed.shape)
    return zeros.masked_fill(~allowed, torch.finfo(torch.float32).min)


def _like(value: Any, mask: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == mask.shape


def _sum_up(
    weights: Tensor, target: tuple[int, int], spans: Sequence[tuple[int, int]], prefix: int
) -> Expected:
    rows = weights[:, :, target[0] : target[1]]
    of_prefix = rows[..., :prefix].sum(-1)
    of_sources = torch.stack([rows[..., start:end].sum(-1) for start, end in spans], dim=-1)
    ratio = (of_sources / of_prefix[..., None]).log()
    ratio = ratio.nan_to_num(nan=0.0, posinf=LIMIT, neginf=-LIMIT)  # 0 / 0, x / 0, 0 / x
    return Expected(of_sources.mean(2), ratio.mean(2))
