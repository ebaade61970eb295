"""Published forms, from fixtures written after their descriptions, odd cases included."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from at2_rag.data.examples import Example
from at2_rag.errors import DataError, InputError
from at2_rag.text.chunks import Chunk
from at2_rag_evals.qa.readers.registry import READERS, Dataset, parse_dataset
from tests.evals.qa.command import report

FIXTURES = Path(__file__).parent / "fixtures"
PATHS = {
    "squad": FIXTURES / "squad.json",
    "hotpotqa": FIXTURES / "hotpotqa.json",
    "musique": FIXTURES / "musique.jsonl",
    "nq_multi_document": FIXTURES / "nq_multi_document.jsonl",
    "rgb": FIXTURES / "rgb.json",
    "beir": FIXTURES / "beir",
}


def read(name: str) -> list[Example]:
    return parse_dataset(f"{name}={PATHS[name]}").read()


def texts(example: Example) -> list[str]:
    return [chunk.text for chunk in example.chunks]


def test_squad() -> None:
    one, two, three = read("squad")
    # The mill's paragraph holds the answer, the last one is the question's own again.
    assert texts(one) == ["The bridge was opened in 1932.", "The market is held on Fridays."]
    assert (one.id, one.labels, one.answers) == ("q1", (True, False), ("1932", "in 1932"))
    assert one.chunks[0].title == "Old town (river)" and not one.unanswerable
    assert two.unanswerable and two.answers == () and not any(two.labels)
    assert texts(two) == [
        "The bridge was opened in 1932.",
        "In 1932 the mill burnt down, too.",
        "The market is held on Fridays.",
    ]
    assert three.answers == ("Lögdö",) and three.chunks == (
        Chunk("Ångström was born in Lögdö.", None),
    )


def test_squad_draws_nine_others_in_order_and_the_same_each_time(tmp_path: Path) -> None:
    questions = [{"id": f"q{n}", "question": "?", "answers": []} for n in range(30)]
    paragraphs: list[dict[str, Any]] = [{"context": f"paragraph {n:02}"} for n in range(25)]
    paragraphs[12]["qas"] = questions
    path = tmp_path / "squad.json.gz"
    data = {"data": [{"title": "T", "paragraphs": paragraphs}]}
    path.write_bytes(gzip.compress(json.dumps(data).encode()))
    examples = list(READERS["squad"](path))
    for example in examples:
        assert len(example.chunks) == 10 and texts(example) == sorted(texts(example))
        assert [chunk.text for chunk in example.gold] == ["paragraph 12"]
    assert examples == list(READERS["squad"](path))
    assert len({tuple(texts(example)) for example in examples}) == 30


@pytest.mark.parametrize("name", ["squad", "musique"])
def test_a_file_that_unpacks_to_too_much_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("at2_rag.files.MOST_DATA_BYTES", 1 << 20)
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(b" " * (1 << 24)))
    with pytest.raises(DataError, match=r"bomb\.gz: can't be read .*more than 1,048,576 bytes"):
        list(READERS[name](path))


def test_hotpotqa() -> None:
    one, two = read("hotpotqa")
    assert texts(one) == [
        "The old town lies on the River. It has a mill.",
        "The river is short. It reaches the North Sea.",
        "",
    ]
    assert (one.id, one.labels, one.answers) == ("h1", (True, True, False), ("North Sea",))
    assert one.gold_sentences == (
        ("The old town lies on the River.",),
        ("It reaches the North Sea.",),
        (),
    )
    assert two.answers == () and two.labels == (False,)


def test_musique() -> None:
    one, two, three = read("musique")
    assert (one.id, one.labels) == ("2hop__1_2", (True, True, False))
    assert one.answers == ("Steventon", "Steventon, Hampshire")
    assert (two.id, two.unanswerable, two.answers) == ("2hop__1_2:unanswerable", True, ())
    assert not any(two.labels) and three.answers == ()
    assert one.chunks[0] == Chunk("Emma is by Jane Austen.", "Emma")


def test_nq_multi_document() -> None:
    one, two = read("nq_multi_document")
    assert (one.id, one.labels, one.answers) == ("0", (True, False), ("Jane Austen", "Austen"))
    assert one.chunks[1].title is None
    assert (two.id, two.labels) == ("1", (False, True))
    assert "secret" not in repr(one)


def test_rgb() -> None:
    one, two, three, four = read("rgb")
    assert sorted(texts(one)) == ["n1", "n2", "n3", "n4", "n5", "n6", "n7", "p1", "p2", "p3"]
    assert {chunk.text for chunk in one.gold} == {"p1", "p2", "p3"}
    assert one.answers == ("January 2 2022", "Jan 2, 2022") and not one.long_form
    assert (two.id, two.answers, two.gold) == ("1", ("Ann",), ())
    assert three.long_form and three.answers == ("Ann and Bob",)
    assert {chunk.text for chunk in three.gold} == {"w1", "d1"}
    assert texts(four) == ["It is Rome."]


def test_beir() -> None:
    one, two, four = read("beir")
    assert texts(one) == ["Emma is by Jane Austen.", "A city."]
    assert (one.labels, one.answers, one.source) == ((True, False), ("Jane Austen",), "beir")
    assert (two.labels, two.answers) == ((False,), ())
    assert (four.id, four.chunks) == ("4", ())


def test_beir_without_a_run_or_with_unclear_judgements_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "beir"
    shutil.copytree(PATHS["beir"], folder)
    (folder / "qrels" / "test.tsv").rename(folder / "qrels" / "dev.tsv")
    with pytest.raises(DataError, match=r"holds dev.tsv, train.tsv; expected test.tsv"):
        list(READERS["beir"](folder))
    (folder / "qrels" / "dev.tsv").rename(folder / "qrels" / "test.tsv")
    (folder / "run.trec").rename(folder / "kept")
    with pytest.raises(DataError, match=r"holds no run; put .* into run.trec or run.txt"):
        list(READERS["beir"](folder))
    (folder / "run.tsv").write_text("1\td2\tfirst\n")
    with pytest.raises(DataError, match=r"run\.tsv, line 1: 'first' is no number"):
        list(READERS["beir"](folder))
    (folder / "run.tsv").write_text("1\td2\t3\n")
    assert texts(next(READERS["beir"](folder))) == ["A city."]


@pytest.mark.parametrize("name", [name for name in PATHS if name != "beir"])
@pytest.mark.parametrize("content", [b"[1]", b'{"data": 1}', b"\xff", b"{"])
def test_files_of_another_form_are_refused_by_name(
    tmp_path: Path, name: str, content: bytes
) -> None:
    path = tmp_path / "other.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"other\.json"):
        Dataset(name, path).read()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("squad", "names no data set; pass NAME=PATH with one of squad, hotpotqa"),
        ("squad=missing.json", "there is no file 'missing.json'"),
        ("beir=missing", "there is no folder 'missing'"),
    ],
)
def test_data_sets_that_are_not_there_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_dataset(text)


def test_the_command_reads_data_sets(tmp_path: Path, scoring_folder: Path) -> None:
    datasets = [part for name, path in PATHS.items() for part in ("--dataset", f"{name}={path}")]
    options = ("--generator", scoring_folder, "--answer-tokens", 1, "--pruner", "none")
    printed = report(*datasets, *options, "--output", tmp_path / "out")
    assert "--dataset squad=squad.json" in printed["command"]
    assert str(FIXTURES) not in json.dumps(printed)
    assert set(printed["items"]["left_out"]) == {"hotpotqa", "musique", "beir"}
    assert printed["items"]["judged"] == 3 + 1 + 2 + 2 + 4 + 1
