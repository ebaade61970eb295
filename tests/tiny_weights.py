"""Random head weights for the tiny models, and pruners over them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from at2_rag.model.fingerprint import model_fingerprint
from at2_rag.model.loading import LoadedModel
from at2_rag.pruner import AT2Pruner
from at2_rag.reading.features import FeatureSpec, Pass, Quantity
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.readout.files import DESCRIPTION_FILE
from at2_rag.readout.head_weights import HeadWeights
from tests.tiny_models import tiny_model, tiny_tokenizer


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


def tiny_pruner(
    head_weights: Any = "uniform", model: Any = None, tokenizer: Any = None, **options: Any
) -> AT2Pruner:
    """Return a pruner over a tiny model, by default one of its kind."""
    loaded = LoadedModel(model or tiny_model(), tokenizer or tiny_tokenizer())
    return AT2Pruner(loaded, head_weights=head_weights, **options)


def change_description(folder: Path, **changes: Any) -> None:
    """Change the description of saved head weights; None takes a key out."""
    path = folder / DESCRIPTION_FILE
    description = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in description.items() if v is not None}))
