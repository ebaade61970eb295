"""Memory isn't measured exactly but in its own test: a garbage collection a cell takes too long."""

from __future__ import annotations

import pytest

from at2_rag_evals.qa import stage_peaks


@pytest.fixture(autouse=True)
def quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.module.__name__ != "tests.evals.qa.test_stage_peaks":
        monkeypatch.setattr(stage_peaks, "give_back_free_memory", lambda: None)
