"""The model under measurement, and pruners over it for each set of head weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from transformers.utils import logging

from at2_rag.errors import UnsupportedModelError
from at2_rag.model.loading import LoadedModel
from at2_rag.prompt.layout import PromptBuilder
from at2_rag.pruner import AT2Pruner
from at2_rag.reading.chunk_states import ChunkStateStore
from at2_rag.reading.features import FeatureSpec, Pass
from at2_rag.readout.calibration import Calibration
from at2_rag.readout.head_weights import HeadWeights, shipped_names

PRESETS = DEFAULT, BALANCED, FAST = ("best", "balanced", "fast")
JOINT = "joint"

_STAND_INS: Mapping[str, tuple[tuple[Pass, ...], float]] = {
    DEFAULT: (("together", "apart"), 0.73),
    BALANCED: (("together", "apart"), 0.47),
    FAST: (("together",), 0.33),
    JOINT: (("joint",), 0.6),
}
"""By name of head weights: the passes, and the share of the model's layers, of what stands in
where none of that name are shipped for the model."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a process needs to load the model under measurement.

    Attributes:
        model: A known name, a local folder or a hub id.
        dtype: Name of a torch dtype; None for what the pruner would choose.
        threads: Threads of torch.
    """

    model: str
    dtype: str | None
    threads: int

    def load(self) -> LoadedModel:
        """Load the model as the pruner would, and set torch's threads.

        Raises:
            ModelNotFoundError: If the model can't be found or read.
            UnsupportedModelError: If it doesn't run on sdpa attention, as the unit of time does.
        """
        torch.set_num_threads(self.threads)
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        loaded = LoadedModel.from_pretrained(self.model, device="cpu", dtype=self.dtype)
        attention = loaded.model.config._attn_implementation
        if attention != "sdpa":
            raise UnsupportedModelError(
                f"{self.model} runs on {attention!r} attention; the unit of time is a forward pass "
                "on 'sdpa', so pass a model that has it"
            )
        return loaded


def make_pruner(
    model: LoadedModel, weights: str | HeadWeights, *, chunk_cache: ChunkStateStore | None = None
) -> AT2Pruner:
    """Return a pruner; a name means `preset_weights` of that name."""
    if isinstance(weights, str):
        weights = preset_weights(model, weights)
    return AT2Pruner(model, head_weights=weights, chunk_cache=chunk_cache)


def prompt_builder(model: LoadedModel) -> PromptBuilder:
    """Return what lays out prompts for the model."""
    return make_pruner(model, JOINT).scoring_model.prompts


def preset_weights(model: LoadedModel, name: str) -> HeadWeights:
    """Return the shipped head weights of a name, or a stand-in for another model.

    A stand-in is all zeros over as large a share of the layers, calibrated so that one chunk of ten
    is kept. Time and memory depend on passes and layers, not on the numbers.
    """
    if name in shipped_names():
        weights = HeadWeights.shipped(name)
        if weights.fingerprint == model.fingerprint:
            return weights
    passes, share = _STAND_INS[name]
    layers = max(1, round(share * model.model.config.num_hidden_layers))
    weights = zero_weights(model, passes, layers)
    calibration = Calibration(weights.weight, 0.0, (0.0, 0.0, 0.0, -3.0), (0.0, 0.0, 0.0))
    return HeadWeights(weights.weight, 0.0, weights.spec, calibration=calibration)


def zero_weights(model: LoadedModel, passes: tuple[Pass, ...], layers: int) -> HeadWeights:
    """Return head weights that are all zero, [passes, layers, heads]."""
    shape = (len(passes), layers, model.model.config.num_attention_heads)
    return HeadWeights(np.zeros(shape, dtype=np.float32), 0.0, FeatureSpec("log_mass", passes))


def weights_record(model: LoadedModel, names: tuple[str, ...]) -> dict[str, str]:
    """Return for each name what was read of the model, and whether the weights are stand-ins."""
    total = model.model.config.num_hidden_layers
    record = {}
    for name in names:
        weights = preset_weights(model, name)
        kind = "shipped" if weights.fingerprint else "stand-in"
        passes = " + ".join(weights.spec.passes)
        record[name] = f"{kind}, {passes}, {weights.layers} of {total} layers"
    return record
