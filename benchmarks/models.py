"""Pruners over the model under measurement, for each set of head weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from at2_rag.model.loading import LoadedModel
from at2_rag.prompt.layout import PromptBuilder
from at2_rag.pruner import AT2Pruner
from at2_rag.reading.chunk_states import StateStore
from at2_rag.reading.features import FeatureSpec, Pass
from at2_rag.readout.calibration import Calibration
from at2_rag.readout.head_weights import HeadWeights, shipped_names
from at2_rag.readout.shortlist import Shortlist
from at2_rag.states.store import ChunkCache

PRESETS = DEFAULT, BALANCED, FAST = ("best", "balanced", "fast")
JOINT = "joint"
NO_LIMIT = 2**40
"""Bytes, more than any cache needs."""

_STAND_INS: Mapping[str, tuple[tuple[Pass, ...], float]] = {
    DEFAULT: (("late", "together", "apart"), 0.6),
    BALANCED: (("late",), 0.6),
    FAST: (("late",), 0.3),
    JOINT: (("joint",), 0.6),
}
"""Passes, and share of the model's layers, of what stands in for shipped weights of this name."""


def make_pruner(
    model: LoadedModel, weights: str | HeadWeights, *, chunk_cache: StateStore | None = None
) -> AT2Pruner:
    """Return a pruner; a name means `preset_weights` of that name.

    Without a cache it keeps nothing, so that every call is cold.
    """
    if isinstance(weights, str):
        weights = preset_weights(model, weights)
    if chunk_cache is None:
        chunk_cache = ChunkCache(max_memory_bytes=0)
    return AT2Pruner(model, head_weights=weights, chunk_cache=chunk_cache)


def prompt_builder(model: LoadedModel) -> PromptBuilder:
    """Return what lays out prompts for the model."""
    return make_pruner(model, JOINT).scoring_model.prompts


def preset_weights(model: LoadedModel, name: str) -> HeadWeights:
    """Return the shipped head weights of a name, or a stand-in for another model.

    A stand-in has as large a share of the layers, and is calibrated so that one chunk of ten is
    kept. Late alone, one key head of a layer has a weight; with other passes five chunks are
    shortlisted. Time and memory depend on that, not on the numbers.
    """
    if name in shipped_names():
        weights = HeadWeights.shipped(name)
        if weights.fingerprint == model.fingerprint:
            return weights
    passes, share = _STAND_INS[name]
    layers = max(1, round(share * model.model.config.num_hidden_layers))
    weight = zero_weights(model, passes, layers).weight
    shortlist = None
    if passes == ("late",):
        weight[..., 0] = 1.0
    elif "late" in passes:
        shortlist = Shortlist(weight[0], 0.0, most=5)
    calibration = Calibration(weight, 0.0, (0.0, 0.0, 0.0, -3.0), (0.0,) * 5)
    spec = FeatureSpec("log", passes)
    return HeadWeights(weight, 0.0, spec, shortlist=shortlist, calibration=calibration)


def zero_weights(model: LoadedModel, passes: tuple[Pass, ...], layers: int) -> HeadWeights:
    """Return head weights that are all zero, [passes, layers, heads]."""
    shape = (len(passes), layers, model.model.config.num_attention_heads)
    return HeadWeights(np.zeros(shape, dtype=np.float32), 0.0, FeatureSpec("log", passes))


def weights_record(model: LoadedModel, *names: str) -> dict[str, str]:
    """Return for each name what is read of the model, and whether the weights are stand-ins."""
    total = model.model.config.num_hidden_layers
    record = {}
    for name in names:
        weights = preset_weights(model, name)
        kind = "shipped" if weights.fingerprint else "stand-in"
        passes = " + ".join(weights.spec.passes)
        record[name] = f"{kind}, {passes}, {weights.layers} of {total} layers"
    return record
