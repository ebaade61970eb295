"""A question with documents, in which a character outside of the basic plane shifts offsets."""

from __future__ import annotations

QUERY = "Who wrote the letter from the island?"
_NAMES = ("Ada", "Bela", "Cleo", "Dora", "Emil")
DOCUMENTS = [f"{name} wrote a letter. It tells of storms. 🌊 {name} left." for name in _NAMES]
