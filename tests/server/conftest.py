"""A server over a tiny model with calibrated head weights, and a pruner over the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra server isn't installed")

from at2_rag import AT2Pruner
from tests.server.processes import ServerProcess, served, tiny_arguments
from tests.tiny_weights import calibrated_folder


@pytest.fixture(scope="session")
def weights_folder(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with calibrated head weights for the tiny model."""
    return calibrated_folder(model_folder, tmp_path_factory.mktemp("calibrated-weights"))


@pytest.fixture(scope="session")
def arguments(model_folder: Path, weights_folder: Path) -> list[str]:
    """Options of `at2-rag serve`."""
    return tiny_arguments(model_folder, weights_folder)


@pytest.fixture(scope="session")
def pruner(model_folder: Path, weights_folder: Path) -> AT2Pruner:
    """A pruner as the server has it."""
    return AT2Pruner.from_pretrained(model_folder, head_weights=weights_folder, dtype="float32")


@pytest.fixture(scope="session")
def server(arguments: list[str]) -> Iterator[ServerProcess]:
    """A server without keys, with a limit of twenty documents."""
    with served(
        *arguments, "--max-documents", "20", "--max-body-bytes", "100000", "--model-name", "rerank"
    ) as running:
        yield running


@pytest.fixture
def spans() -> Iterator[Any]:
    """An exporter of OpenTelemetry that keeps the spans of a test in memory."""
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    from opentelemetry import trace

    exporter = memory.InMemorySpanExporter()
    if not isinstance(trace.get_tracer_provider(), sdk.TracerProvider):  # it can be set once
        trace.set_tracer_provider(sdk.TracerProvider())
    provider: Any = trace.get_tracer_provider()
    provider.add_span_processor(export.SimpleSpanProcessor(exporter))
    yield exporter
    exporter.shutdown()
