"""What stages take, against arrays of known size."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from at2_rag_evals.qa import stage_peaks
from at2_rag_evals.qa.stage_peaks import StagePeaks

LARGE, SMALL = 120_000_000, 40_000_000
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset its record")


@pytest.fixture(autouse=True)
def few_objects() -> Iterator[None]:
    """Collections of garbage pass over what all tests' modules hold."""
    gc.freeze()
    yield
    gc.unfreeze()


def hold(size: int) -> None:
    np.ones(size, dtype=np.uint8)


def test_a_stages_peak_is_what_it_held_at_most_and_the_highest_of_all_runs(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    kept = np.ones(LARGE, dtype=np.uint8)  # held before: not the stage's
    peaks = StagePeaks(path)
    with peaks.measure("small"):
        hold(SMALL)
    with pytest.raises(KeyboardInterrupt), peaks.measure("large") as note:
        hold(LARGE)
        note()
        hold(SMALL)
        raise KeyboardInterrupt  # a killed run
    with peaks.measure("large"):
        pass  # a run that finds everything stored
    del kept
    small, large = peaks.of("small"), peaks.of("large")
    assert small is not None and large is not None
    assert small == pytest.approx(SMALL, abs=15_000_000)
    assert large == pytest.approx(LARGE, abs=15_000_000)
    assert peaks.of("never run") is None
    whole = peaks.of_process_mb()  # what the stages' resets make the system forget
    assert whole is not None and whole >= 2 * LARGE / 1e6
    again = StagePeaks(path)
    assert (again.of("small"), again.of("large")) == (small, large)


def test_elsewhere_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_peaks, "reset_peak", lambda: False)
    peaks = StagePeaks()
    with peaks.measure("stage") as note:
        note()
    assert peaks.of("stage") is None
