"""Which head weights a caller means: an object, a name, a folder, or those for the model."""

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
from at2_rag.readout.head_weights import UNIFORM, HeadWeights, TargetRule, shipped_names

_DEFAULT_NAME: Mapping[Reading, str] = {"independent": "best", "joint": "joint"}
_USER: Mapping[TargetRule, str] = {"question": "AT2Pruner", "answer": "AT2Attributor"}
_RULE_FIX: Mapping[TargetRule, str] = {
    "question": "pass weights that `at2-rag train` fitted, or name shipped ones",
    "answer": "pass weights that `at2-rag train --signal ablation --target answer` fitted, or of "
    "AT2's own form with `at2_rag.readout.score_estimator.read_score_estimator`",
}


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
        reading: The reading the weights must be for; None accepts any; shipped or uniform
            weights are then for independent reading.
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
        fix = "leave reading out, or pass" if target_rule == "question" else "pass"
        raise HeadWeightsMismatchError(
            f"the head weights are for reading {weights.reading!r}, not for {reading!r}; "
            f"{fix} weights fitted for it"
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
        HeadWeightsMismatchError: If they were fitted on another model, wording or target rule.
    """
    if weights.target_rule != target_rule:
        raise HeadWeightsMismatchError(
            f"the head weights are for the target rule {weights.target_rule!r}, "
            f"{_USER[target_rule]} reads {target_rule!r}; use them with "
            f"{_USER[weights.target_rule]}, {_RULE_FIX[target_rule]}, or pass "
            f'head_weights="{UNIFORM}"'
        )
    if weights.fingerprint is None:
        return
    for what, expected, got in (
        ("scoring model", weights.fingerprint, model.fingerprint),
        ("prompt template", weights.template_hash, template_hash),
    ):
        if expected != got:
            raise HeadWeightsMismatchError(
                f"the head weights were fitted on {weights.provenance.get('model', 'a model')} "
                f"with another {what}: expected {expected}, got {got}; load that model, fit "
                "weights for this one with `at2-rag train`, or pass "
                f'head_weights="{UNIFORM}"'
            )


def _for_model(model: LoadedModel, reading: Reading, target_rule: TargetRule) -> HeadWeights:
    """Return the shipped weights fitted on a scoring model, by its fingerprint.

    Raises:
        HeadWeightsNotFoundError: If there are none.
    """
    name = "answer" if target_rule == "answer" else _DEFAULT_NAME[reading]
    if name in shipped_names():
        weights = HeadWeights.shipped(name)
        if weights.fingerprint == model.fingerprint:
            return weights
    label, fingerprint = model.name or "this model", model.fingerprint[:12]
    instead = f'pass head_weights="{UNIFORM}" for the plain mean over all heads'
    if target_rule == "answer":
        raise HeadWeightsNotFoundError(
            f"no head weights for the target rule 'answer' are known for {label} (fingerprint "
            f"{fingerprint}); {_RULE_FIX[target_rule]}, or {instead}"
        )
    command = (
        f"at2-rag train DATA --model {shlex.quote(model.name or 'MODEL')} --reading {reading} "
        "--output FOLDER"
    )
    raise HeadWeightsNotFoundError(
        f"no head weights are known for {label} (fingerprint {fingerprint}, reading {reading!r}); "
        f"fit them with `{command}` and pass head_weights=Path(FOLDER), or {instead}"
    )


@overload
def named_or_folder(text: str) -> str | Path: ...
@overload
def named_or_folder(text: None) -> None: ...
def named_or_folder(text: str | None) -> str | Path | None:
    """Return what a text from a command line means: the name of head weights, or a folder.

    A name, which may be misspelt, wins over a folder of that name. None gives None.
    """
    if text is None:
        return None
    names = (*shipped_names(), UNIFORM)
    is_path = "/" in text or os.sep in text or os.path.isdir(text)
    return Path(text) if is_path and text not in names else text
