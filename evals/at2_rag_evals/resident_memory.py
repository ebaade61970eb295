"""How much memory this process holds and has held, as Linux counts it."""

from __future__ import annotations

import ctypes
import gc
import re
from pathlib import Path

import psutil

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


def give_back_free_memory() -> None:
    """Return freed memory to the system, so that its reuse counts as use."""
    gc.collect()
    if psutil.LINUX:
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
        if trim is not None:
            trim(0)


def reset_peak() -> bool:
    """Make the system forget the process's peak so far; False where it can't, as off Linux."""
    try:
        _CLEAR.write_text(_RESET_PEAK, encoding="ascii")
    except OSError:
        return False
    return True


def resident() -> int:
    """Return the bytes the process holds in memory."""
    return int(psutil.Process().memory_info().rss)


def resident_peak() -> int:
    """Return the most bytes the process has held since the last reset."""
    match = re.search(r"^VmHWM:\s+(\d+) kB$", _STATUS.read_text(encoding="ascii"), re.MULTILINE)
    if match is None:
        raise OSError(f"{_STATUS} has no VmHWM")
    return int(match[1]) * 1024
