"""Whether a ranker's scores are logits: what its head weights say."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from at2_rag_evals.rankers.at2 import AT2Ranker
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import random_weights


@pytest.mark.parametrize("scale", ["logit", "additive"])
def test_the_scale_is_that_of_the_weights(tmp_path: Path, scale: Any) -> None:
    weights = random_weights(tiny_model(), tiny_tokenizer(), "apart")
    dataclasses.replace(weights, score_scale=scale).save(tmp_path)
    assert AT2Ranker(head_weights=str(tmp_path)).scores_are_logits is (scale == "logit")
    assert not AT2Ranker(head_weights="uniform").scores_are_logits
    assert AT2Ranker().scores_are_logits
