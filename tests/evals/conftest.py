"""Tiny random models for the systems that need one, saved as folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny_models import tiny_model, tiny_tokenizer


@pytest.fixture(scope="session")
def scoring_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scoring") / "tiny"
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
