"""What kind of machine a benchmark ran on: its class, never its name."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any


def machine_class() -> dict[str, Any]:
    """Return cores, kind of processor, memory and system, as JSON-ready values."""
    return {
        "cores": os.cpu_count(),
        "cpu": cpu_class(_cpu_name()),
        "architecture": platform.machine(),
        "ram_gb": _ram_gb(),
        "system": platform.system(),
    }


def cpu_class(name: str) -> str:
    """Return a processor's family: its full name without marks, model number and clock."""
    plain = re.sub(r"\((?:R|TM)\)|\bCPU\b|\bProcessor\b|@.*", " ", name)
    return " ".join(word for word in plain.split() if not word[0].isdigit())


def busy_share() -> float | None:
    """Return how busy all cores were in the last minute, 1 for fully; None where unknown."""
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except (AttributeError, OSError):
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _ram_gb() -> int | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30)
    except (AttributeError, ValueError, OSError):
        return None
