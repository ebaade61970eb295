"""Random head weights for the tiny models."""

from __future__ import annotations

from typing import Any

import numpy as np

from at2_rag.model.fingerprint import model_fingerprint
from at2_rag.reading.features import FeatureSpec, Pass, Quantity
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.readout.head_weights import HeadWeights


def random_weights(
    model: Any,
    tokenizer: Any,
    *passes: Pass,
    quantity: Quantity = "log_ratio",
    layers: int = 2,
    seed: int = 0,
) -> HeadWeights:
    """Return weights that are bound to a model, as those that training writes are."""
    rng = np.random.default_rng(seed)
    shape = (len(passes), layers, model.config.num_attention_heads)
    return HeadWeights(
        weight=rng.normal(size=shape).astype(np.float32),
        bias=float(rng.normal()),
        spec=FeatureSpec(quantity, passes),
        fingerprint=model_fingerprint(model.base_model, tokenizer),
        template_hash=ScoringModel(model, tokenizer, depth=1).prompts.template_hash,
        provenance={"model": "tiny", "seed": seed},
    )
