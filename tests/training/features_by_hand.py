"""The features that head weights are multiplied with, put together by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from at2_rag.reading.features import FeatureSpec
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.text.chunks import Chunk
from tests import brute_force
from tests.independent_reading import read
from tests.tiny_models import tiny_tokenizer


def features_by_hand(
    model: Any, query: str, chunks: Sequence[Chunk], spec: FeatureSpec
) -> npt.NDArray[np.float64]:
    """Return the features [S, P, L, H] of chunks over all layers of a tiny model."""
    whole = ScoringModel(model, tiny_tokenizer())
    attention: dict[str, Any] = {}
    if spec.reading == "joint":
        attention["joint"] = brute_force.joint(model, whole.prompts.joint(query, chunks))
    else:
        layout = whole.prompts.independent(query, chunks)
        attention["together"], attention["apart"] = read(whole, layout)
    read_by = [attention[name] for name in spec.passes]
    if spec.quantity == "log_ratio":
        values = torch.stack([one.log_ratio for one in read_by])
    else:
        values = torch.stack([one.mass for one in read_by])
        values = values.log() if spec.quantity == "log_mass" else values
    features: npt.NDArray[np.float64] = values.permute(3, 0, 1, 2).double().numpy()
    return features
