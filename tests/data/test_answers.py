"""How reference answers are looked for in texts."""

from __future__ import annotations

from at2_rag.data.answers import contains_answer, findable_answers, normalise


def test_normalisation_is_squads() -> None:
    assert normalise("  The U.S.\tNavy, an  old one! ") == "us navy old one"
    assert findable_answers(["Yes", " NO!", "the", "", "A Yes man"]) == {"yes man"}
    assert contains_answer("new york city", ["york"])
    assert contains_answer("new york city", ["new york city"])
    assert not contains_answer("new yorkers", ["york", "new york"])
    assert not contains_answer("anything", [])
