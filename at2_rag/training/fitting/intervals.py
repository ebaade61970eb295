"""Bootstrap intervals of the figures of a calibration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import bootstrap

Floats = npt.NDArray[np.float64]


def percentile_interval(
    samples: Sequence[Floats], statistic: Callable[..., Any]
) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of a statistic of paired samples.

    Args:
        samples: [N] each, at least one value; where all are alike the interval is a point.
        statistic: Of the samples, along `axis`.
    """
    if all(np.ptp(values) == 0 for values in samples):
        value = float(statistic(*samples, axis=-1))
        return value, value
    interval = bootstrap(
        samples, statistic, paired=True, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return float(interval.low), float(interval.high)
