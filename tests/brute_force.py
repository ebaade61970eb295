"""What captured attention must equal, computed the slow way.

All of it adds up the attention weights that transformers' eager attention returns
(`output_attentions=True`); nothing of at2_rag's attention is used. What is returned is the mass of
each source, of late reading the log ratio, [L, H, S].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from at2_rag.prompt.layout import PromptLayout
from at2_rag.prompt.sentence_tokens import SourcePart

LIMIT = 50.0


def assert_equal(
    actual: Tensor, expected: Tensor, *, depth: int | None = None, tolerance: float = 1e-5
) -> None:
    """Assert that attention agrees on the first `depth` layers (None: on all)."""
    expected = expected[:depth]
    assert actual.shape == expected.shape, f"{actual.shape} against {expected.shape}"
    assert actual.dtype == torch.float32
    difference = (actual - expected).abs().max().item()
    assert difference <= tolerance, f"it differs by {difference}"


Spans = Sequence[tuple[int, int]]


def joint(model: Any, layout: PromptLayout, spans: Spans | None = None) -> Tensor:
    """Read the layout as one ordinary causal prompt; `spans` in place of its sources."""
    weights = eager_weights(model, layout.input_ids)
    spans = layout.source_spans if spans is None else spans
    return _sum_up(weights, layout.target_span, spans)


def apart(model: Any, layout: PromptLayout) -> Tensor:
    """Read an ordinary causal prompt with one source for each of them."""
    read = [joint(model, single(layout, ids)) for ids in layout.source_ids]
    return torch.cat(read, dim=-1)


def part_apart(model: Any, layout: PromptLayout, span: tuple[int, int]) -> Tensor:
    """Read a prompt with one source, of which the question sees the tokens of `span` alone."""
    total = len(layout.input_ids)
    start, end = layout.source_spans[0]
    allowed = torch.ones(total, total, dtype=torch.bool).tril()
    allowed[end:, start:end] = False
    allowed[end:, span[0] : span[1]] = True
    weights = eager_weights(model, layout.input_ids, mask=_additive(allowed))
    return _sum_up(weights, layout.target_span, [span])


def together(model: Any, layout: PromptLayout, spans: Spans | None = None) -> Tensor:
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
    return _sum_up(weights, layout.target_span, spans)


def together_cached(model: Any, layout: PromptLayout) -> Tensor:
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
    return _sum_up(weights, layout.target, layout.source_spans)


def late(
    model: Any, layout: PromptLayout, *, offset: int, parts: Sequence[SourcePart] | None = None
) -> Tensor:
    """Read the question blind to the sources, but for the one layer whose weights are summed up.

    Each source stands after the prefix, the question `offset` positions after it. `parts` are
    summed up in place of the sources.
    """
    prefix = len(layout.prefix_ids)
    if parts is None:
        parts = [SourcePart(index, 0, len(ids)) for index, ids in enumerate(layout.source_ids)]
    read = []
    for part in parts:
        alone = single(layout, layout.source_ids[part.source])
        question = len(alone.input_ids) - len(alone.question_ids)
        read_rows = [question + row for row in alone.content or range(*alone.target)]
        rows = _weights_of_opened_layers(model, alone, offset)[:, :, read_rows]
        of_source = rows[..., prefix + part.start : prefix + part.end].sum(-1)
        read.append((of_source / rows[..., :prefix].sum(-1)).log().clamp(-LIMIT, LIMIT).mean(2))
    return torch.stack(read, dim=-1)


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
    return replace(layout, source_ids=(ids,), owners=(0,))


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


def _sum_up(weights: Tensor, target: tuple[int, int], spans: Spans) -> Tensor:
    rows = weights[:, :, target[0] : target[1]]
    return torch.stack([rows[..., start:end].sum(-1).mean(2) for start, end in spans], dim=-1)
