"""Which head weights a caller means: an object, a folder, a name, or the model's own."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping

from at2_rag.errors import HeadWeightsMismatchError, HeadWeightsNotFoundError
from at2_rag.reading.features import Reading
from at2_rag.readout.head_weights import RULE_FIX, UNIFORM, HeadWeights, TargetRule, shipped_names

_DEFAULT_NAME: Mapping[Reading, str] = {"independent": "best", "joint": "joint"}
_DEFAULT_ANSWER_NAME = "answer"


def resolve_head_weights(
    spec: HeadWeights | str | os.PathLike[str] | None,
    *,
    layers: int,
    heads: int,
    reading: Reading | None,
    fingerprint: str,
    model_name: str | None,
    target_rule: TargetRule = "question",
) -> HeadWeights:
    """Return the head weights that a caller named.

    Args:
        spec: The weights themselves, a folder, the name of shipped weights, or "uniform"; None
            for the shipped weights fitted on the model.
        layers: The model's layers.
        heads: The model's query heads a layer.
        reading: The reading asked for; None for "independent" where the weights don't say.
        fingerprint: The model's, to find its shipped weights; "" where it wasn't taken.
        model_name: The model's name or folder, for messages; may be None.
        target_rule: Of weights that are found or made here.

    Raises:
        HeadWeightsError: If there are none, or they can't be read.
    """
    if isinstance(spec, HeadWeights):
        return spec
    if spec is None:
        return _for_model(
            fingerprint=fingerprint,
            reading=reading or "independent",
            model_name=model_name,
            target_rule=target_rule,
        )
    if spec == UNIFORM:
        return HeadWeights.uniform(
            layers=layers, heads=heads, reading=reading or "independent", target_rule=target_rule
        )
    if isinstance(spec, str) and _is_name(spec):
        return HeadWeights.shipped(spec)
    return HeadWeights.load(spec)


def check_fit(weights: HeadWeights, *, layers: int, heads: int, reading: Reading | None) -> None:
    """Check that weights are for a reading, None for any, and a model of this size.

    Raises:
        HeadWeightsMismatchError: If they aren't.
    """
    if reading not in (None, weights.reading):
        raise HeadWeightsMismatchError(
            f"the head weights are for reading {weights.reading!r}, asked for was {reading!r}; "
            "leave reading out, or pass weights fitted for it"
        )
    if weights.layers > layers or weights.heads != heads:
        raise HeadWeightsMismatchError(
            f"the head weights are for {weights.layers} layers of {weights.heads} heads, the model "
            f"has {layers} of {heads}; fit weights for it with `at2-rag train`"
        )


def _for_model(
    *,
    fingerprint: str,
    reading: Reading,
    model_name: str | None,
    target_rule: TargetRule = "question",
) -> HeadWeights:
    """Return the shipped weights fitted on a scoring model, by its fingerprint.

    Args:
        fingerprint: The model's.
        reading: How chunks are to be read.
        model_name: The model's name or folder, for the message; may be None.
        target_rule: Whose attention is read.

    Raises:
        HeadWeightsNotFoundError: If none were.
    """
    answers = target_rule == "answer"
    name = _DEFAULT_ANSWER_NAME if answers else _DEFAULT_NAME[reading]
    weights = HeadWeights.shipped(name) if name in shipped_names() else None
    if answers and (weights is None or weights.fingerprint != fingerprint):
        raise HeadWeightsNotFoundError(
            f"no head weights for the target rule 'answer' are known for "
            f"{model_name or 'this model'} (fingerprint {fingerprint[:12]}); "
            f"{RULE_FIX[target_rule]}, or pass "
            f'head_weights="{UNIFORM}" for the plain mean over all heads'
        )
    if weights is None or weights.fingerprint != fingerprint:
        raise HeadWeightsNotFoundError(
            f"no head weights are known for {model_name or 'this model'} (fingerprint "
            f"{fingerprint[:12]}, reading {reading!r}); fit them with `at2-rag train DATA "
            f"--model {shlex.quote(model_name or 'MODEL')} --reading {reading} "
            f"--output FOLDER` and pass head_weights=FOLDER, or pass "
            f'head_weights="{UNIFORM}" for the plain mean over all heads'
        )
    return weights


def _is_name(text: str) -> bool:
    """Whether a text names shipped weights, perhaps misspelt, and no folder."""
    return text in shipped_names() or not ("/" in text or os.sep in text or os.path.isdir(text))
