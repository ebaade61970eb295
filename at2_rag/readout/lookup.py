"""Which head weights a caller means: an object, a name, a folder, or the model's own."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import overload

from at2_rag.errors import HeadWeightsMismatchError, HeadWeightsNotFoundError
from at2_rag.model.loading import LoadedModel
from at2_rag.reading.features import Reading
from at2_rag.reading.scoring_model import layers_and_heads
from at2_rag.readout.head_weights import RULE_FIX, UNIFORM, HeadWeights, TargetRule, shipped_names

_DEFAULT_NAME: Mapping[Reading, str] = {"independent": "best", "joint": "joint"}
_DEFAULT_ANSWER_NAME = "answer"


def resolve_head_weights(
    spec: HeadWeights | str | Path | None,
    model: LoadedModel,
    *,
    reading: Reading | None = None,
    target_rule: TargetRule = "question",
) -> HeadWeights:
    """Return the head weights that a caller means, which fit the model's size.

    Args:
        spec: The weights themselves, the name of shipped weights, "uniform", or a folder as a
            `Path`; None for the shipped weights fitted on the model.
        model: The scoring model.
        reading: The reading the weights must be for; None for any, and for "independent" where
            weights are looked up or made here.
        target_rule: Target rule of weights that are looked up or made here.

    Raises:
        HeadWeightsError: If there are none, they can't be read, or they don't fit.
    """
    layers, heads = layers_and_heads(model.model.base_model.config)
    if isinstance(spec, HeadWeights):
        weights = spec
    elif spec is None:
        weights = _for_model(model, reading or "independent", target_rule)
    elif spec == UNIFORM:
        weights = HeadWeights.uniform(
            layers=layers, heads=heads, reading=reading or "independent", target_rule=target_rule
        )
    else:
        weights = load_head_weights(spec)
    if reading not in (None, weights.reading):
        raise HeadWeightsMismatchError(
            f"the head weights are for reading {weights.reading!r}, not for {reading!r}; "
            "leave reading out, or pass weights fitted for it"
        )
    if weights.layers > layers or weights.heads != heads:
        raise HeadWeightsMismatchError(
            f"the head weights are for {weights.layers} layers of {weights.heads} heads, the model "
            f"has {layers} of {heads}; fit weights for it with `at2-rag train`"
        )
    return weights


def load_head_weights(spec: str | Path) -> HeadWeights:
    """Return the shipped weights of a name, or those in a folder (a `Path`).

    Raises:
        HeadWeightsError: If there are none, or they can't be read.
    """
    return HeadWeights.load(spec) if isinstance(spec, Path) else HeadWeights.shipped(spec)


def check_match(
    weights: HeadWeights,
    model: LoadedModel,
    *,
    template_hash: str,
    target_rule: TargetRule = "question",
) -> None:
    """Check that weights belong to a model, its prompt and whose attention is read.

    Raises:
        HeadWeightsMismatchError: If they don't.
    """
    fingerprint = "" if weights.fingerprint is None else model.fingerprint
    weights.check(fingerprint=fingerprint, template_hash=template_hash, target_rule=target_rule)


def _for_model(model: LoadedModel, reading: Reading, target_rule: TargetRule) -> HeadWeights:
    """Return the shipped weights fitted on a scoring model, by its fingerprint.

    Raises:
        HeadWeightsNotFoundError: If there are none.
    """
    name = _DEFAULT_ANSWER_NAME if target_rule == "answer" else _DEFAULT_NAME[reading]
    if name in shipped_names():
        weights = HeadWeights.shipped(name)
        if weights.fingerprint == model.fingerprint:
            return weights
    fingerprint = model.fingerprint[:12]
    if target_rule == "answer":
        raise HeadWeightsNotFoundError(
            f"no head weights for the target rule 'answer' are known for "
            f"{model.name or 'this model'} (fingerprint {fingerprint}); {RULE_FIX[target_rule]}, "
            f'or pass head_weights="{UNIFORM}" for the plain mean over all heads'
        )
    raise HeadWeightsNotFoundError(
        f"no head weights are known for {model.name or 'this model'} (fingerprint {fingerprint}, "
        f"reading {reading!r}); fit them with `at2-rag train DATA --model "
        f"{shlex.quote(model.name or 'MODEL')} --reading {reading} --output FOLDER` and pass "
        f'head_weights=Path(FOLDER), or pass head_weights="{UNIFORM}" for the plain mean over all '
        "heads"
    )


@overload
def named_or_folder(text: str) -> str | Path: ...
@overload
def named_or_folder(text: None) -> None: ...
def named_or_folder(text: str | None) -> str | Path | None:
    """Return what a text from a command line means: the name of head weights, or a folder.

    Args:
        text: A name, perhaps misspelt, or a path; a name wins over a folder of that name. None for
            None.
    """
    if text is None:
        return None
    names = (*shipped_names(), UNIFORM)
    is_path = "/" in text or os.sep in text or os.path.isdir(text)
    return Path(text) if is_path and text not in names else text
