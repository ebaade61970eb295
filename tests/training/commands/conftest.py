"""A folder with data and a model to train on, and a run over it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from at2_rag.model.cache import CACHE_VARIABLE
from tests.training.commands.train_runs import FILES, SEVERAL, trained
from tests.training.planted_examples import planted_examples, write_examples


@pytest.fixture(scope="module", autouse=True)
def torch_threads() -> Iterator[None]:
    """The commands change torch's threads for the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Path:
    """A model and two data sets, one of them gzipped; tests don't write to it."""
    folder = tmp_path_factory.mktemp("secret folder")
    shutil.copytree(model_folder, folder / "tiny")
    for name, source in zip(FILES, ("novels", "seas"), strict=True):
        write_examples(folder / name, planted_examples([source]))
    return folder


@pytest.fixture(scope="session")
def several(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run over both data sets wrote that tried several designs."""
    return trained(data, *SEVERAL, output=tmp_path_factory.mktemp("several"))
