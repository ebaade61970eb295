"""Content words: what is left of a text without its function words."""

import pytest

from at2_rag.text.function_words import content_spans


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("Who wrote the novel Emma?", ["wrote", "novel", "Emma"]),
        ("WHAT is Jane Austen's birthplace", ["Jane", "Austen's", "birthplace"]),
        ("What’s O’Brien’s rank", ["O’Brien’s", "rank"]),
        ("who is it?", []),
        ("C++ or R?", ["C", "R"]),
        ("snake_case, 3.14", ["snake_case", "3", "14"]),
        ("Wann wurde die Brücke gebaut?", ["Wann", "wurde", "die", "Brücke", "gebaut"]),
        ("谁写了《爱玛》？", ["谁写了", "爱玛"]),
        ("من كتب إيما؟", ["من", "كتب", "إيما"]),
        ("", []),
    ],
)
def test_content_words(text: str, content: list[str]) -> None:
    assert [text[start:end] for start, end in content_spans(text)] == content
