"""Which head weights a caller means: an object, a folder, a name, or the model's own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from at2_rag.features import Reading
from at2_rag.head_weights import UNIFORM, HeadWeights, TargetRule, shipped_names


def find_weights(
    spec: HeadWeights | str | os.PathLike[str] | None,
    config: Any,
    reading: Reading | None,
    fingerprint: str | None,
    target_rule: TargetRule = "question",
) -> HeadWeights:
    """Return the head weights that the caller means.

    Args:
        spec: As `AT2Pruner`'s argument `head_weights`.
        config: The model's configuration.
        reading: What the caller asked for; None for the default.
        fingerprint: The model's; None only where `spec` is `UNIFORM`.
        target_rule: Of weights that are found or made here.

    Raises:
        HeadWeightsError: If there are none, or they can't be read.
    """
    if isinstance(spec, HeadWeights):
        return spec
    if spec is None:
        name = getattr(config, "name_or_path", "") or "this model"
        return HeadWeights.for_model(
            fingerprint=fingerprint or "",
            reading=reading or "independent",
            model_name=name,
            target_rule=target_rule,
        )
    if spec == UNIFORM:
        return HeadWeights.uniform(
            layers=config.num_hidden_layers,
            heads=config.num_attention_heads,
            reading=reading or "independent",
            target_rule=target_rule,
        )
    if isinstance(spec, str) and spec in shipped_names():
        return HeadWeights.shipped(spec)
    return HeadWeights.load(Path(spec))
