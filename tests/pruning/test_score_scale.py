"""Whether scores are logits or add up: what head weights say of it, and who asks."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from at2_rag import AT2Pruner
from at2_rag.errors import HeadWeightsError
from at2_rag.model.loading import LoadedModel
from at2_rag.readout.files import DESCRIPTION_FILE
from at2_rag.readout.head_weights import HeadWeights
from at2_rag_evals.rankers.at2 import AT2Ranker
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import random_weights

CHUNKS = ["Jane Austen wrote Emma.", "The river flows to the sea.", "It spans the harbour."]
FIXTURE = Path(__file__).parents[1] / "fixtures" / "score_estimator.pt"


def weights(**changes: Any) -> HeadWeights:
    made = random_weights(tiny_model(), tiny_tokenizer(), "apart")
    return dataclasses.replace(made, **changes)


def describe(folder: Path, **changes: Any) -> None:
    """Change the description; None takes a key out."""
    path = folder / DESCRIPTION_FILE
    description = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in description.items() if v is not None}))


def test_the_scale_is_kept(tmp_path: Path) -> None:
    for scale in ("logit", "additive"):
        weights(score_scale=scale).save(tmp_path)
        assert json.loads((tmp_path / DESCRIPTION_FILE).read_text())["score_scale"] == scale
        assert HeadWeights.load(tmp_path).score_scale == scale
        assert HeadWeights.load(tmp_path).describe(note="x").score_scale == scale


def test_an_unknown_scale_is_refused(tmp_path: Path) -> None:
    message = "'probability'.*reads 'logit' and 'additive'"
    with pytest.raises(HeadWeightsError, match=message):
        weights(score_scale="probability")
    weights().save(tmp_path)
    for scale in ("probability", 5, ["logit"]):
        describe(tmp_path, score_scale=scale)
        with pytest.raises(HeadWeightsError, match="reads 'logit' and 'additive'"):
            HeadWeights.load(tmp_path)


def test_top_p_over_fitted_scores_that_add_up_is_noted() -> None:
    def prune(scale: str, **limits: Any) -> tuple[str, ...]:
        made = AT2Pruner(
            LoadedModel(tiny_model(), tiny_tokenizer()), head_weights=weights(score_scale=scale)
        )
        return made.prune("who wrote Emma?", CHUNKS, **limits).notes

    [note] = prune("additive", top_p=0.5)
    assert note.startswith("top_p means little") and "uniform" not in note
    assert prune("additive", top_k=1) == prune("logit", top_p=0.5) == ()


def test_evals_take_the_scale_from_the_weights(tmp_path: Path) -> None:
    for scale in ("logit", "additive"):
        weights(score_scale=scale).save(tmp_path / scale)
        ranker = AT2Ranker(head_weights=str(tmp_path / scale))
        assert ranker.scores_are_logits is (scale == "logit")
    assert not AT2Ranker(head_weights="uniform").scores_are_logits
    assert AT2Ranker().scores_are_logits
