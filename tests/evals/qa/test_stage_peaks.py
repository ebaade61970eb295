"""What stages take, against arrays of known size."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from at2_rag_evals.qa.stage_peaks import StagePeaks

LARGE, SMALL = 200_000_000, 40_000_000
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset its record")


def hold(size: int) -> None:
    np.ones(size, dtype=np.uint8)


def test_a_stages_peak_is_what_it_held_at_most_and_the_highest_of_all_runs(tmp_path: Path) -> None:
    path = tmp_path / "peaks.jsonl"
    kept = np.ones(LARGE, dtype=np.uint8)  # held before: not the stage's
    peaks = StagePeaks(path)
    with peaks.measure("small"):
        hold(SMALL)
    with peaks.measure("large"):
        hold(LARGE)
        hold(SMALL)
    with peaks.measure("large"):
        pass  # a run that finds everything stored
    del kept
    small, large = peaks.of("small"), peaks.of("large")
    assert small is not None and large is not None
    assert small == pytest.approx(SMALL, abs=15_000_000)
    assert large == pytest.approx(LARGE, abs=15_000_000)
    assert peaks.of("never run") is None
    again = StagePeaks(path)
    assert (again.of("small"), again.of("large")) == (small, large)
