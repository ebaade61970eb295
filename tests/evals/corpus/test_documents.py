"""Documents cut into chunks, and questions read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from at2_rag.errors import DataError
from at2_rag_evals.corpus.documents import read_corpus
from at2_rag_evals.corpus.questions import Question, read_questions

LONG = " ".join(f"word{number}" for number in range(100))


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    (folder / "guide").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / ".git" / "notes.txt").write_text("not this")
    (folder / "guide" / "install.md").write_text(f"# Install it\n\n{LONG}\n\n## Next\n\n{LONG}\n")
    (folder / "faq.rst").write_bytes(gzip.compress(f"Questions\n=========\n\n{LONG}".encode()))
    (folder / "faq.rst").rename(folder / "faq.rst.gz")
    (folder / "plain.txt").write_text("A line of text.")
    (folder / "cut.jsonl").write_text('{"id": "a", "text": "One."}\n"Two."\n{"text": " "}\n')
    (folder / "logo.png").write_bytes(b"\x89PNG\xff")
    return folder


def test_texts_are_cut_and_passages_stay(docs: Path, caplog: pytest.LogCaptureFixture) -> None:
    corpus = read_corpus(docs)
    assert [(chunk.id, chunk.title) for chunk in corpus.chunks] == [
        ("a", None),
        ("cut.jsonl#2", None),
        ("faq.rst.gz#1", "Questions"),
        ("guide/install.md#1", "Install it"),
        ("guide/install.md#2", "Install it"),
        ("plain.txt#1", "plain"),
    ]
    assert corpus.documents == (
        *("cut.jsonl", "cut.jsonl", "faq.rst.gz"),
        *("guide/install.md", "guide/install.md", "plain.txt"),
    )
    first, second = (chunk.text for chunk in corpus.chunks[3:5])
    text = (docs / "guide" / "install.md").read_text()
    assert f"{first}\n\n{second}\n" == text
    assert second.startswith("## Next")
    assert (corpus.name, dict(corpus.skipped)) == ("docs", {".png": 1})
    assert "1 files were not read" in caplog.text and ".png" in caplog.text


def test_a_link_out_of_the_folder_is_not_read(docs: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("a secret")
    (docs / "link.txt").symlink_to(tmp_path / "secret.txt")
    corpus = read_corpus(docs)
    assert "a secret" not in [chunk.text for chunk in corpus.chunks]
    assert corpus.skipped["symlink out of the folder"] == 1


def test_one_file_is_a_corpus(docs: Path) -> None:
    assert [chunk.text for chunk in read_corpus(docs / "cut.jsonl").chunks] == ["One.", "Two."]


def test_documents_that_cannot_be_used(docs: Path, tmp_path: Path) -> None:
    (docs / "more.jsonl").write_text('{"id": "a", "text": "Three."}')
    with pytest.raises(DataError, match="1 ids are those of several passages .'a', for one"):
        read_corpus(docs)
    (docs / "more.jsonl").write_text("{")
    with pytest.raises(DataError, match=r"more\.jsonl, line 1"):
        read_corpus(docs)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no text; pass a folder with \.md"):
        read_corpus(tmp_path / "empty")


def test_questions_are_read(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    lines = [
        {"question": "Where?", "answers": ["here"], "quotes": ["It is here."], "gold": ["a#1"]},
        {"id": 7, "source": "other", "question": "When?", "unanswerable": True, "note": "ignored"},
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    assert read_questions([path]) == [
        Question("1", "own", "Where?", ("here",), ("It is here.",), ("a#1",)),
        Question("7", "other", "When?", unanswerable=True),
    ]
    for line, message in (
        ('{"question": " "}', "'question' is ' '; expected a question that isn't blank"),
        ('{"text": "Where?"}', "the key 'question' is missing"),
        ('{"question": "Where?", "quotes": "here"}', "'quotes' is 'here'; expected a list"),
    ):
        path.write_text(line)
        with pytest.raises(DataError, match=f"own.jsonl, line 1: {message}"):
            read_questions([path])
