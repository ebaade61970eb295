"""Normal forms of texts."""

from __future__ import annotations

import unicodedata
from typing import Literal

import numpy as np
import pytest

from at2_rag.text.scripts import normalized


@pytest.mark.parametrize("form", ["NFC", "NFKC"])
def test_normal_forms_are_those_of_the_standard(form: Literal["NFC", "NFKC"]) -> None:
    rng = np.random.default_rng(0)
    pieces = ["e\u0301", "\u0327", "\u0301", "é", "ﬁ", "\u1112\u1161\u11ab", "ü ", "\n", "...", "①"]
    pieces += ["\u1100", "か\u3099", "ก\u0e34\u0e49", "\u09c7\u09be", "Å", "\ud800", "—" * 70]
    for _ in range(1000):
        text = "".join(rng.choice(pieces, size=rng.integers(30)))
        assert normalized(text, form) == unicodedata.normalize(form, text)


@pytest.mark.parametrize("form", ["NFC", "NFKC"])
def test_runs_of_accents_are_not_ordered_in_quadratic_time(form: Literal["NFC", "NFKC"]) -> None:
    text = "e" + "\u0301" * 200_000 + "\u0327" * 200_000
    assert len(normalized(text, form)) in (len(text), len(text) - 1)  # would take minutes
