"""Generators that depend on a seed and a name, not on what was drawn before."""

from __future__ import annotations

import hashlib
import json

import numpy as np


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """Return the generator of `seed` and `names`; other names give another."""
    digest = hashlib.sha256(json.dumps(names).encode("ascii")).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:16], "big")])
