"""AT2's own file form, `score_estimator.pt`, read without trust.

The form of the reference package `at2` 0.0.1: a dictionary of `class`, `state_dict` (with
`linear.weight` [1, L*H], index layer * H + head), `feature_extractor` (`class` and `kwargs`),
`kwargs` and `extras`. Its features are attention mass in one causal prompt, its targets what
predicts the answer's tokens. Held against files and scores of that package on a tiny model and on
the default model; the files its authors published, for models of 4 to 8 billion parameters, were
never tried.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from at2_rag.errors import HeadWeightsError, HeadWeightsNotFoundError, brief
from at2_rag.reading.features import FeatureSpec
from at2_rag.readout.head_weights import HeadWeights

ESTIMATOR = "LinearScoreEstimator"
FEATURES = "AttentionFeatureExtractor"

MOST_HEADS = 100_000
"""Most heads of all layers that a file may state; the largest known models have about 16,000."""


def read_score_estimator(path: str | os.PathLike[str]) -> HeadWeights:
    """Read a `score_estimator.pt` as head weights for `AT2Attributor`.

    The file doesn't say which model it was fitted on, nor with which wording of the prompt, so that
    only numbers of layers and heads are checked.

    Raises:
        HeadWeightsNotFoundError: If the file can't be opened.
        HeadWeightsError: If it holds anything but tensors and plain values, an unknown class,
            another shape than it states, numbers that aren't finite, or a bias other than 0.
    """
    path = Path(path)
    saved = _load(path)
    try:
        weight, provenance = _content(saved)
    except HeadWeightsError as error:
        raise HeadWeightsError(f"{path} {error}") from error
    except Exception as error:  # whatever odd tensors and values lead to
        raise HeadWeightsError(
            f"{path} holds values that can't be read ({type(error).__name__}); it is no "
            "score_estimator.pt as the at2 package writes it"
        ) from error
    return HeadWeights(
        weight=weight,
        bias=0.0,
        spec=FeatureSpec("mass", ("joint",)),
        provenance={"source": path.name, "form": "at2 score estimator", **provenance},
        target_rule="answer",
        score_scale="additive",
    )


def _content(saved: Any) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
    """Return the weights [1, L, H], and facts about them."""
    _expect("class", _mapping("the file", saved).get("class"), ESTIMATOR)
    extractor = _mapping("feature_extractor", saved.get("feature_extractor"))
    _expect("feature_extractor.class", extractor.get("class"), FEATURES)
    facts = _mapping("feature_extractor.kwargs", extractor.get("kwargs"))
    layers, heads = (_count(name, facts.get(name)) for name in ("num_layers", "num_heads"))
    if layers * heads > MOST_HEADS:
        raise HeadWeightsError(
            f"states {layers} layers of {heads} heads, {layers * heads} in all; at most "
            f"{MOST_HEADS} are read"
        )
    state = _mapping("state_dict", saved.get("state_dict"))
    unknown = sorted(map(str, set(state) - {"linear.weight", "linear.bias"}))
    if unknown:
        raise HeadWeightsError(
            f"has the unknown parameters {', '.join(unknown)}; a linear estimator has "
            "linear.weight and linear.bias"
        )
    weight = _numbers("linear.weight", state.get("linear.weight"), (1, layers * heads))
    if "linear.bias" in state and _numbers("linear.bias", state["linear.bias"], (1,)).any():
        raise HeadWeightsError(
            f"has the bias {float(state['linear.bias'])}, which AT2 adds once for each token of a "
            "source; head weights can't, fit with bias=False"
        )
    options = saved.get("kwargs")
    options = options if isinstance(options, Mapping) else {}
    provenance = {
        name: values[name]
        for name, values, kind in (
            ("model_type", facts, str),
            ("normalize", options, bool),
            ("non_negative", options, bool),
        )
        if isinstance(values.get(name), kind)
    }
    return weight.reshape(1, layers, heads), provenance


def _load(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise HeadWeightsNotFoundError(
            f"no score estimator at {path}: {error.strerror}; pass a score_estimator.pt"
        ) from error
    except pickle.UnpicklingError as error:
        raise HeadWeightsError(
            f"{path} holds more than tensors and plain values, or isn't a file of torch.save; "
            "such a file can run code and is not loaded. Have it written again by the at2 package"
        ) from error
    except Exception as error:  # torch raises whatever a damaged file leads to
        raise HeadWeightsError(
            f"{path} can't be read ({type(error).__name__}); it is damaged or no score_estimator.pt"
        ) from error


# What these raise goes on after the file's path.


def _mapping(name: str, value: Any) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise HeadWeightsError(
            f"is no score estimator: {name} is a {type(value).__name__}, expected a mapping"
        )
    return value


def _expect(name: str, value: Any, expected: str) -> None:
    if value != expected:
        raise HeadWeightsError(f"has the {name} {brief(value)}; only {expected!r} can be read")


def _count(name: str, value: Any) -> int:
    if type(value) is not int or not 1 <= value <= MOST_HEADS:
        raise HeadWeightsError(
            f"has {name} {brief(value)}; expected a whole number from 1 to {MOST_HEADS}"
        )
    return value


def _numbers(name: str, value: Any, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Return a tensor as a float32 array."""
    if not isinstance(value, torch.Tensor):
        raise HeadWeightsError(f"has a {type(value).__name__} as {name}, expected a tensor")
    if value.is_nested or value.is_meta or value.layout != torch.strided:
        raise HeadWeightsError(f"has {name} as an unusual tensor; expected a dense one")
    if not value.is_floating_point() or tuple(value.shape) != shape:
        raise HeadWeightsError(
            f"has {name} of shape {tuple(value.shape)}, {value.dtype}; expected {shape} of "
            "floating point, as num_layers * num_heads says"
        )
    if not value.is_contiguous():  # a view may show a few stored numbers as many
        raise HeadWeightsError(f"has {name} not stored as it is; save it contiguous")
    array: npt.NDArray[np.float32] = value.detach().float().numpy().copy()
    if not np.isfinite(array).all():
        raise HeadWeightsError(f"has NaN or infinity in {name}; fit the estimator again")
    return array
