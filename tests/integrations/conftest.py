"""A real pruner over a tiny random model, and one whose scores can't be used."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from at2_rag import AT2Pruner
from at2_rag.model.loading import LoadedModel
from tests.integrations.frameworks import FRAMEWORKS, PASSAGES, Framework
from tests.tiny_models import tiny_model, tiny_tokenizer


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> Framework:
    return FRAMEWORKS[request.param]


@pytest.fixture
def items(framework: Framework) -> list[Any]:
    return [framework.item(passage) for passage in PASSAGES]


@pytest.fixture(scope="session")
def pruner() -> AT2Pruner:
    return AT2Pruner(LoadedModel(tiny_model(), tiny_tokenizer()), head_weights="uniform")


@pytest.fixture(scope="session")
def broken_model() -> torch.nn.Module:
    """A model whose weights are all NaN, so that scoring fails."""
    model: torch.nn.Module = tiny_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    return model
