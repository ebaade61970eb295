"""Which head weights a caller means: an object, a folder, a name, or the model's own."""

from __future__ import annotations

import os

from at2_rag.errors import HeadWeightsMismatchError
from at2_rag.features import Reading
from at2_rag.head_weights import UNIFORM, HeadWeights, TargetRule, shipped_names


def resolve_head_weights(
    spec: HeadWeights | str | os.PathLike[str] | None,
    *,
    layers: int,
    heads: int,
    reading: Reading | None,
    fingerprint: str,
    model_name: str | None,
    target_rule: TargetRule = "question",
) -> HeadWeights:
    """Return the head weights that a caller named.

    Args:
        spec: The weights themselves, a folder, the name of shipped weights, or "uniform"; None
            for the shipped weights fitted on the model.
        layers: The model's layers.
        heads: The model's query heads a layer.
        reading: The reading asked for; None for "independent" where the weights don't say.
        fingerprint: The model's, to find its shipped weights; "" where it wasn't taken.
        model_name: The model's name or folder, for messages; may be None.
        target_rule: Of weights that are found or made here.

    Raises:
        HeadWeightsError: If there are none, or they can't be read.
    """
    if isinstance(spec, HeadWeights):
        return spec
    if spec is None:
        return HeadWeights.for_model(
            fingerprint=fingerprint,
            reading=reading or "independent",
            model_name=model_name,
            target_rule=target_rule,
        )
    if spec == UNIFORM:
        return HeadWeights.uniform(
            layers=layers, heads=heads, reading=reading or "independent", target_rule=target_rule
        )
    if isinstance(spec, str) and _is_name(spec):
        return HeadWeights.shipped(spec)
    return HeadWeights.load(spec)


def check_fit(weights: HeadWeights, *, layers: int, heads: int, reading: Reading | None) -> None:
    """Check that weights are for a reading, None for any, and a model of this size.

    Raises:
        HeadWeightsMismatchError: If they aren't.
    """
    if reading not in (None, weights.reading):
        raise HeadWeightsMismatchError(
            f"the head weights are for reading {weights.reading!r}, asked for was {reading!r}; "
            "leave reading out, or pass weights fitted for it"
        )
    if weights.layers > layers or weights.heads != heads:
        raise HeadWeightsMismatchError(
            f"the head weights are for {weights.layers} layers of {weights.heads} heads, the model "
            f"has {layers} of {heads}; fit weights for it with `at2-rag train`"
        )


def _is_name(text: str) -> bool:
    """Whether a text names shipped weights, perhaps misspelt, and no folder."""
    return text in shipped_names() or not ("/" in text or os.sep in text or os.path.isdir(text))
