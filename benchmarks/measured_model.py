"""The model under measurement and the pruners over it, one for each way to read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from at2_rag.chunk_states import ChunkStateStore
from at2_rag.errors import InputError, UnsupportedModelError
from at2_rag.features import FeatureSpec, Pass
from at2_rag.fingerprint import cached_fingerprint, model_fingerprint
from at2_rag.head_weights import HeadWeights, shipped_names
from at2_rag.model_hub import cache_dir, resolve_model
from at2_rag.model_loading import load_model
from at2_rag.pruner import AT2Pruner

JOINT: tuple[Pass, ...] = ("joint",)
TOGETHER: tuple[Pass, ...] = ("together",)
TOGETHER_APART: tuple[Pass, ...] = ("together", "apart")

STAND_IN = "stand-in"
_STAND_IN_SHARE = 0.6


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
    """A loaded model with its tokenizer."""

    model: Any
    tokenizer: Any
    fingerprint: str

    def pruner(
        self, passes: tuple[Pass, ...], *, chunk_states: ChunkStateStore | None = None
    ) -> AT2Pruner:
        """Return a pruner that reads with these passes."""
        return AT2Pruner(
            model=self.model,
            tokenizer=self.tokenizer,
            head_weights=self.head_weights(passes)[1],
            chunk_states=chunk_states,
            fingerprint=self.fingerprint,
        )

    def head_weights(self, passes: tuple[Pass, ...]) -> tuple[str, HeadWeights]:
        """Return head weights for these passes with their name.

        Those shipped for this model, where there are any. Otherwise a stand-in: zeros over as
        many layers as the shipped ones of another reading use, or 60 % of the model's. Time and
        memory depend on the passes and the layers, not on the numbers.
        """
        fitting = {}
        for name in shipped_names():
            weights = HeadWeights.shipped(name)
            if (weights.fingerprint, weights.target_rule) == (self.fingerprint, "question"):
                fitting[weights.spec.passes] = (name, weights)
        if passes in fitting:
            return fitting[passes]
        config = self.model.config
        layers = round(_STAND_IN_SHARE * config.num_hidden_layers)
        for _, weights in fitting.values():
            layers = weights.layers
        zeros = np.zeros((len(passes), layers, config.num_attention_heads), dtype=np.float32)
        return STAND_IN, HeadWeights(zeros, 0.0, FeatureSpec("log_ratio", passes))


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
    folder = resolve_model(subject.model)
    dtype = getattr(torch, subject.dtype) if subject.dtype else None
    model, tokenizer = load_model(folder, device="cpu", dtype=dtype)
    attention = model.config._attn_implementation
    if attention != "sdpa":
        raise UnsupportedModelError(
            f"{subject.model} runs on {attention!r} attention; the unit of time is a forward pass "
            "on 'sdpa', so pass a model that has it"
        )
    fingerprint = cached_fingerprint(
        folder,
        cache_dir() / "fingerprints",
        lambda: model_fingerprint(model.base_model, tokenizer),
        dtype=model.dtype,
    )
    return MeasuredModel(model, tokenizer, fingerprint)
