"""One thread for torch, and tiny models that tests share.

Small models take 2 to 40 times the CPU time with more threads (OpenMP spins).
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of subprocesses too
os.environ["AT2_RAG_CONFIG"] = os.devnull  # not the developer's own options

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny llama and its tokenizer; tests don't write to it."""
    from tests.tiny_models import tiny_model, tiny_tokenizer

    folder = tmp_path_factory.mktemp("tiny-model")
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def embedding_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny sentence-transformers model that reads at most eight tokens."""
    from tests.tiny_embeddings import save_tiny_embeddings

    return save_tiny_embeddings(tmp_path_factory.mktemp("embedding"))
