"""How much memory this process holds and has held, as Linux counts it.

A reset of the peak also resets what `training.record.peak_memory_mb` tells.
"""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


def give_back_free_memory() -> None:
    """Return freed memory to the system, so that its reuse counts as use."""
    gc.collect()
    trim = getattr(_c_library(), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)


def reset_peak() -> bool:
    """Make the system forget the process's peak so far (Linux); False where it can't."""
    try:
        _CLEAR.write_text(_RESET_PEAK, encoding="ascii")
    except OSError:
        return False
    return True


def resident() -> int:
    """Return the bytes the process holds in memory (Linux)."""
    return _status("VmRSS")


def resident_peak() -> int:
    """Return the most bytes the process has held since the last reset (Linux)."""
    return _status("VmHWM")


def _c_library() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows has no library without a name
        return None


def _status(field: str) -> int:
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise OSError(f"{_STATUS} has no {field}")
