"""The model under measurement and the pruners over it, one for each name of head weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from at2_rag.errors import InputError, UnsupportedModelError
from at2_rag.model.loading import LoadedModel
from at2_rag.pruner import AT2Pruner
from at2_rag.reading.chunk_states import ChunkStateStore
from at2_rag.reading.features import FeatureSpec, Pass
from at2_rag.readout.calibration import Calibration
from at2_rag.readout.head_weights import HeadWeights, shipped_names

JOINT, TOGETHER, DEFAULT = "joint", "together", "best"
FAST, BALANCED = "fast", "balanced"

STAND_IN = "stand-in"
_STAND_INS: Mapping[str, tuple[tuple[Pass, ...], float]] = {
    JOINT: (("joint",), 0.6),
    TOGETHER: (("together",), 0.73),
    DEFAULT: (("together", "apart"), 0.73),
    FAST: (("together",), 0.33),
    BALANCED: (("together", "apart"), 0.47),
}
"""Names of head weights, with what stands in where none of that name are shipped for the model: the
passes, and the share of the layers in use."""
_STAND_IN_CHUNK, _STAND_IN_CALL = (0.0, 0.0, 0.0, -3.0), (0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Subject:
    """Which model to measure, and how: what a fresh process needs to load the same again.

    Attributes:
        model: A known name, a local folder or a hub id.
        dtype: Name of a torch dtype; None for what the pruner would choose.
        threads: Threads of torch.
    """

    model: str
    dtype: str | None
    threads: int


@dataclass(frozen=True, slots=True)
class MeasuredModel:
    """A loaded model."""

    loaded: LoadedModel

    @property
    def model(self) -> Any:
        """The transformers model."""
        return self.loaded.model

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer."""
        return self.loaded.tokenizer

    @property
    def fingerprint(self) -> str:
        """Its fingerprint."""
        return self.loaded.fingerprint

    def pruner(self, readout: str, *, chunk_cache: ChunkStateStore | None = None) -> AT2Pruner:
        """Return a pruner with the head weights of this name."""
        return AT2Pruner(
            self.loaded,
            head_weights=self.head_weights(readout)[1],
            chunk_cache=chunk_cache,
        )

    def head_weights(self, readout: str) -> tuple[str, HeadWeights]:
        """Return the head weights of a name, with the name or "stand-in".

        Those shipped for this model, where there are any. Otherwise a stand-in: zeros over as
        large a share of the layers, calibrated so that one chunk is kept of ten. Time and memory
        depend on the passes and the layers, not on the numbers.
        """
        if readout in shipped_names():
            weights = HeadWeights.shipped(readout)
            if weights.fingerprint == self.fingerprint:
                return readout, weights
        config = self.model.config
        passes, share = _STAND_INS[readout]
        layers = max(1, round(share * config.num_hidden_layers))
        zeros = np.zeros((len(passes), layers, config.num_attention_heads), dtype=np.float32)
        return STAND_IN, HeadWeights(
            zeros,
            0.0,
            FeatureSpec("log_ratio", passes),
            calibration=Calibration(zeros, 0.0, _STAND_IN_CHUNK, _STAND_IN_CALL),
        )


def load(subject: Subject) -> MeasuredModel:
    """Load a model as the pruner would, and set torch's threads.

    Raises:
        InputError: If the threads are not a positive number.
        ModelNotFoundError: If the model can't be found or read.
        UnsupportedModelError: If it doesn't run on stock sdpa, which the unit of time is.
    """
    if subject.threads < 1:
        raise InputError(f"--threads is {subject.threads}; pass 1 or more")
    torch.set_num_threads(subject.threads)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    dtype = getattr(torch, subject.dtype) if subject.dtype else None
    loaded = LoadedModel.from_pretrained(subject.model, device="cpu", dtype=dtype)
    attention = loaded.model.config._attn_implementation
    if attention != "sdpa":
        raise UnsupportedModelError(
            f"{subject.model} runs on {attention!r} attention; the unit of time is a forward pass "
            "on 'sdpa', so pass a model that has it"
        )
    return MeasuredModel(loaded)
