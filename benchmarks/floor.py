"""The least a cold call can take: the matrix products of the layers in use, and nothing else.

They run in the same rounds as the calls, on random numbers: every linear map of the layers in use,
over the tokens of the chunks and of the question, as often as each is read. In the last layer the
chunks need only keys, the question only queries and keys. Attention, normalisation, activations
and bookkeeping are left out, so no call can be as fast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from models import preset_weights, prompt_builder
from prompts import Prompt
from timing import Case
from torch import Tensor, nn

from at2_rag.model.loading import LoadedModel
from at2_rag.readout.head_weights import HeadWeights


class _Product(NamedTuple):
    """A linear map's weights, [out, in], and which tokens go through it."""

    weight: Tensor
    chunks: bool
    question: bool


def floor_case(model: LoadedModel, prompts: Sequence[Prompt], preset: str) -> Case | None:
    """Return the floor of a preset's cold call, whose stage "gflop" is its work in 10^9 operations.

    None for models without layers of separate `q_proj` and `k_proj`.
    """
    weights = preset_weights(model, preset)
    products = _products(model, weights.layers)
    if not products:
        return None
    tokens = [_tokens(model, prompt, weights) for prompt in prompts]
    most = max(chunks + question for chunks, question in tokens)
    inputs = {
        width: torch.randn(most, width).to(products[0].weight.dtype)
        for width in {weight.shape[1] for weight, _, _ in products}
    }

    def run(index: int) -> Mapping[str, float]:
        operations = 0
        of_chunks, of_question = tokens[index]
        with torch.inference_mode():
            for weight, chunks, question in products:
                if rows := of_chunks * chunks + of_question * question:
                    inputs[weight.shape[1]][:rows] @ weight.T
                    operations += 2 * rows * weight.numel()
        return {"gflop": operations / 1e9}

    return run


def _products(model: LoadedModel, depth: int) -> list[_Product]:
    """Return the linear maps of the first `depth` layers; none if they can't be told apart."""
    total = model.model.config.num_hidden_layers
    stacks = (
        module
        for module in model.model.modules()
        if isinstance(module, nn.ModuleList) and len(module) == total
    )
    products = []
    for index, layer in enumerate(list(next(stacks))[:depth]):
        last = index == depth - 1
        for name, module in layer.named_modules():
            if isinstance(module, nn.Linear):
                keys, queries = name.endswith("k_proj"), name.endswith("q_proj")
                question = not last or keys or queries
                products.append(_Product(module.weight, not last or keys, question))
    return products if any(not product.question for product in products) else []


def _tokens(model: LoadedModel, prompt: Prompt, weights: HeadWeights) -> tuple[int, int]:
    """Return how many tokens of chunks and of the question a cold call runs through the model.

    Of a shortlist the fewest chunks count.
    """
    layout = prompt_builder(model).independent(prompt.query, prompt.chunks)
    apart = len(layout.source_ids)
    if weights.shortlist is not None:
        apart = min(apart, weights.shortlist.least)
    copies = sum(apart if name == "apart" else 1 for name in weights.spec.passes)
    return sum(map(len, set(layout.source_ids))), copies * len(layout.question_ids)
