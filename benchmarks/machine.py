"""What kind of machine a benchmark ran on: its class, never its name."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

_INSTRUCTIONS = {
    "amx_bf16": "AMX",
    "avx512_bf16": "AVX-512 with bfloat16",
    "avx512f": "AVX-512",
    "avx2": "AVX2",
}
_LIMIT = "ONEDNN_MAX_CPU_ISA"


def machine_class() -> dict[str, Any]:
    """Return cores, kind of processor, memory and system, as JSON-ready values."""
    return {
        "cores": os.cpu_count(),
        "cpu": cpu_class(_cpu_field("model name") or platform.processor()),
        "instructions": instruction_set(_cpu_field("flags").split(), os.environ),
        "architecture": platform.machine(),
        "ram_gb": _ram_gb(),
        "system": platform.system(),
    }


def cpu_class(name: str) -> str:
    """Return a processor's family: its full name without marks, model number and clock."""
    plain = re.sub(r"\((?:R|TM)\)|\bCPU\b|\bProcessor\b|@.*", " ", name)
    return " ".join(word for word in plain.split() if not word[0].isdigit())


def instruction_set(flags: Collection[str], environment: Mapping[str, str]) -> str:
    """Return the fastest instructions for matrix products that a processor has; "" if unknown.

    Args:
        flags: The processor's features, as Linux names them.
        environment: Where oneDNN, which computes them for torch, may have been held back.
    """
    known = next((name for flag, name in _INSTRUCTIONS.items() if flag in flags), "")
    limit = f"{_LIMIT}={environment[_LIMIT]}" if environment.get(_LIMIT) else ""
    return ", ".join(filter(None, (known, limit)))


def busy_share() -> float | None:
    """Return how busy all cores were in the last minute, 1 for fully; None where unknown."""
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except (AttributeError, OSError):
        return None


def _cpu_field(name: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def _ram_gb() -> int | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30)
    except (AttributeError, ValueError, OSError):
        return None
