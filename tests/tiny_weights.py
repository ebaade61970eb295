"""Random head weights for the tiny models, and pruners over them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from at2_rag.model.fingerprint import model_fingerprint
from at2_rag.model.loading import LoadedModel
from at2_rag.pruner import AT2Pruner
from at2_rag.reading.features import FeatureSpec, Pass, Quantity
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.readout.calibration import Calibration
from at2_rag.readout.files import DESCRIPTION_FILE
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.readout.multi_hop import MultiHop
from at2_rag.readout.shortlist import Shortlist
from tests.tiny_models import tiny_model, tiny_tokenizer


def random_weights(
    model: Any,
    tokenizer: Any,
    *passes: Pass,
    quantity: Quantity = "log",
    layers: int = 2,
    seed: int = 0,
) -> HeadWeights:
    """Return weights that are bound to a model, as those that training writes are."""
    rng = np.random.default_rng(seed)
    spec = FeatureSpec(quantity, passes)
    prompts = ScoringModel(model, tokenizer, depth=1).prompts
    shape = (len(passes), layers, model.config.num_attention_heads)
    return HeadWeights(
        weight=rng.normal(size=shape).astype(np.float32),
        bias=float(rng.normal()),
        spec=spec,
        fingerprint=model_fingerprint(model.base_model, tokenizer),
        template_hash=prompts.template_hash(spec.reading),
        provenance={"model": "tiny", "seed": seed},
    )


def tiny_pruner(
    head_weights: Any = "uniform", model: Any = None, tokenizer: Any = None, **options: Any
) -> AT2Pruner:
    """Return a pruner over a tiny model, by default one of its kind."""
    loaded = LoadedModel(model or tiny_model(), tokenizer or tiny_tokenizer())
    return AT2Pruner(loaded, head_weights=head_weights, **options)


def shortlist_weights(model: Any, tokenizer: Any, **numbers: Any) -> HeadWeights:
    """Return random weights for all passes, with a shortlist of two or three chunks."""
    weights = random_weights(model, tokenizer, "late", "together", "apart")
    late = np.random.default_rng(7).normal(size=weights.weight.shape[1:]).astype(np.float32)
    chosen: dict[str, Any] = {"slope": 0.5, "constant": -1.0, "least": 2, "most": 3, "gap": 0.5}
    return replace(weights, shortlist=Shortlist(late, 0.25, **{**chosen, **numbers}))


def exact(pruner: AT2Pruner) -> AT2Pruner:
    """Return the pruner, from now on without a cache: states are as the model computes them."""
    reader = pruner._scorer._reader
    pruner._scorer._reader = reader and reader.forgetful()
    return pruner


def change_description(folder: Path, **changes: Any) -> None:
    """Change the description of saved head weights; None takes a key out."""
    path = folder / DESCRIPTION_FILE
    description = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in description.items() if v is not None}))


def calibrated_weights(model: Any, tokenizer: Any, *, cosine_weight: float) -> HeadWeights:
    """Return weights that learned everything that weights can learn about chunks."""
    weights = random_weights(model, tokenizer, "together", "apart")
    return replace(
        weights,
        calibration=Calibration(
            -weights.weight,
            0.25,
            (0.3, 0.9, -0.2, 1.0),
            (0.1, 0.2, 0.2, 0.1, 1.5),
            unread=1.0,  # the tiny tokenizer knows few words
        ),
        prior_weight=0.8,
        cosine_weight=cosine_weight,
        multi_hop=MultiHop(2 * weights.weight[0], 0.2, (0.2, 0.7, 0.3)),
    )


def calibrated_folder(model_folder: Path, folder: Path) -> Path:
    """Save calibrated weights for a saved model in a folder, and return it."""
    loaded = LoadedModel.from_pretrained(model_folder, dtype="float32")
    calibrated_weights(loaded.model, loaded.tokenizer, cosine_weight=0.5).save(folder)
    return folder
