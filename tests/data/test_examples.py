"""Reading labelled examples: what a file may hold, and an error for everything else."""

from __future__ import annotations

import dataclasses
import gzip
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from at2_rag.data.examples import (
    Example,
    gold_groups,
    linked_groups,
    read_examples,
    read_files,
    read_records,
)
from at2_rag.errors import DataError
from at2_rag.text.chunks import Chunk
from at2_rag.training.commands.record import file_records

ITEM: dict[str, Any] = {
    "id": "q1",
    "source": "novels",
    "question": "Who wrote Emma?",
    "answers": ["Jane Austen", "Austen"],
    "chunks": [
        {"title": "Emma", "text": "Emma is by Jane Austen.", "is_gold": True, "gold_sents": ["x"]},
        {"title": "", "text": "", "is_gold": False},
    ],
    "meta": {"answer": "secret"},
}
EXPECTED = Example(
    id="q1",
    source="novels",
    query="Who wrote Emma?",
    chunks=(Chunk("Emma is by Jane Austen.", "Emma"), Chunk("", "")),
    labels=(True, False),
    answers=("Jane Austen", "Austen"),
    gold_sentences=(("x",), ()),
)


def write(path: Path, *lines: object) -> Path:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text(text, encoding="utf-8")
    return path


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in ITEM.items() if name != key}


def with_chunk(**changes: object) -> dict[str, Any]:
    return {**ITEM, "chunks": [{"text": "a", "is_gold": True}, {"is_gold": False, **changes}]}


def test_reads_plain_and_gzipped_files_in_order(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.jsonl", ITEM, "", {**ITEM, "id": "q2"}, "")
    packed = tmp_path / "b.jsonl.gz"
    odd = {**ITEM, "id": "q3", "question": "\ud83d?", "extra": 1}
    packed.write_bytes(gzip.compress(b"\xef\xbb\xbf" + json.dumps(odd).encode()))
    examples = read_examples([str(packed), plain])
    assert [example.id for example in examples] == ["q3", "q1", "q2"]
    assert examples[1] == EXPECTED
    assert examples[0] == dataclasses.replace(EXPECTED, id="q3", query="\ud83d?")
    assert read_files([packed, plain]) == [examples[:1], examples[1:]]
    assert read_examples(plain) == read_examples(str(plain)) == examples[1:]


@pytest.mark.parametrize("key", ["id", "source"])
def test_names_with_half_a_character_are_refused_with_their_line(tmp_path: Path, key: str) -> None:
    path = write(tmp_path / "a.jsonl", ITEM, {**ITEM, key: "x\ud83d"}, {**ITEM, key: "x\U0001f600"})
    with pytest.raises(DataError, match=rf"a\.jsonl, line 2: '{key}' is 'x.ud83d', with half a"):
        read_examples(path)


def test_a_file_name_that_is_no_text_gives_a_source_that_is(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/set\xff.jsonl"))
    try:
        write(path, without("source"))
    except OSError:
        pytest.skip("file names have to be text here")
    assert read_examples(path)[0].source == "set\ufffd"
    assert file_records([path], [[]])[0]["name"] == "set\ufffd.jsonl"


def test_source_defaults_to_the_name_of_the_file(tmp_path: Path) -> None:
    packed = tmp_path / "my-set.jsonl.gz"
    packed.write_bytes(gzip.compress(json.dumps(without("source")).encode()))
    assert read_examples(packed)[0].source == "my-set"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1, 2]", "a JSON list; expected an object"),
        (without("id"), "the key 'id' is missing (its keys: answers, chunks"),
        ({**ITEM, "id": 7}, "'id' is 7; expected a string"),
        ({**ITEM, "question": " \n"}, "'question' is blank"),
        ({**ITEM, "answers": "Austen"}, "'answers' is 'Austen'; expected a list of strings"),
        ({**ITEM, "chunks": {}}, "'chunks' is {}; expected a list"),
        ({**ITEM, "chunks": []}, "'chunks' is empty"),
        ({**ITEM, "chunks": ["text"]}, "chunk 0 is a str; expected an object"),
        (with_chunk(), "chunk 1 is a mapping without the key 'text'"),
        (with_chunk(text=3), "chunk 1 has a text of type int"),
        (with_chunk(text="b", is_gold=1), "chunk 1: 'is_gold' is 1; expected true or false"),
        (
            with_chunk(text="b", is_gold=True, gold_sents="b"),
            "chunk 1: 'gold_sents' is 'b'; expected a list of strings",
        ),
        ({**ITEM, "chunks": [{"text": "b"}]}, "chunk 0: the key 'is_gold' is missing"),
        (
            with_chunk(text="b", teacher_score="0.5"),
            "chunk 1: 'teacher_score' is '0.5'; expected a finite number",
        ),
        (with_chunk(text="b", teacher_score=True), "'teacher_score' is True; expected a finite"),
        (with_chunk(text="b", teacher_score=math.nan), "'teacher_score' is nan; expected"),
        (with_chunk(text="b", teacher_score=-math.inf), "'teacher_score' is -inf; expected"),
        (with_chunk(text="b", teacher_score=10**400), "'teacher_score' is 1000"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: object, message: str) -> None:
    path = write(tmp_path / "bad.jsonl", ITEM, "", line)
    with pytest.raises(DataError) as caught:
        read_examples([path])
    assert str(caught.value).startswith(f"{path}, line 3: ")
    assert message in str(caught.value)


def test_scores_of_a_teacher_are_read_and_none_is_none(tmp_path: Path) -> None:
    lines = [with_chunk(text="b", teacher_score=score) for score in (-3, 0.25, None)]
    examples = read_examples(write(tmp_path / "a.jsonl", *lines, ITEM))
    assert [example.teacher_scores for example in examples] == [(None, -3), (None, 0.25), (), ()]
    assert all(isinstance(score, float) for score in examples[0].teacher_scores[1:])


def test_examples_with_an_unknown_label_are_left_out_or_have_no_gold_chunk(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unknown = with_chunk(text="b", is_gold=None)
    path = write(tmp_path / "a.jsonl", ITEM, unknown, ITEM)
    assert read_examples(path) == [EXPECTED, EXPECTED]
    assert "1 of 3 examples are left out, since they have a chunk without a label" in caplog.text
    labels = [example.labels for example in read_examples(path, labelled=False)]
    assert labels == [(True, False), (False, False), (True, False)]
    with pytest.raises(DataError, match=r"b\.jsonl: each of its 2 examples has a chunk without"):
        read_examples(write(tmp_path / "b.jsonl", unknown, unknown))


def test_records_keep_all_keys(tmp_path: Path) -> None:
    [[record]] = read_records([write(tmp_path / "a.jsonl", ITEM)], labelled=True)
    assert record.example == EXPECTED and record.item == ITEM


def test_bad_lines_are_counted_and_the_first_ones_named(tmp_path: Path) -> None:
    bad = {**ITEM, "answers": "x" * 10_000}
    path = write(tmp_path / "bad.jsonl", ITEM, *[bad] * 10)
    with pytest.raises(DataError) as caught:
        read_examples([write(tmp_path / "whole.jsonl", ITEM), path])
    message = str(caught.value)
    assert message.startswith(f"10 of 11 lines of {path} can't be used: line 2: 'answers' is 'xxx")
    assert message.endswith("; and 5 more; fix or remove them")
    assert len(message) < 1000 + len(str(tmp_path)), "quotes are short"


def test_bad_lines_of_all_files_are_one_error(tmp_path: Path) -> None:
    bad = {**ITEM, "answers": "x"}
    paths = [write(tmp_path / f"{count}.jsonl", ITEM, *[bad] * count) for count in (4, 3, 2)]
    with pytest.raises(DataError) as caught:
        read_examples(paths)
    four, three, two = (f"of {path} can't be used:" for path in paths)
    assert re.fullmatch(
        f"4 of 5 lines {four} line 2: .*; 3 of 4 lines {three} line 2: 'answers' is 'x'; expected "
        f"a list of strings; and 2 more; 2 of 3 lines {two} not listed here; fix or remove them",
        str(caught.value),
    )


def test_bytes_that_are_not_utf8_are_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(json.dumps(ITEM).encode() + b'\n{"id": "\xff"}\n')
    with pytest.raises(DataError, match=r"bad\.jsonl, line 2: not UTF-8"):
        read_examples(path)


def test_a_line_that_never_ends_is_read_up_to_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "bomb.jsonl.gz"
    line = json.dumps(ITEM).encode() + b"\n"
    path.write_bytes(gzip.compress(line) + gzip.compress(bytes(1 << 26)) * 32)
    with pytest.raises(DataError, match="can't be read after line 1: .* more than 67,108,864"):
        read_examples(path)


def test_a_file_that_unpacks_to_too_much_is_read_up_to_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = json.dumps(ITEM).encode() + b"\n"
    monkeypatch.setattr("at2_rag.files.MOST_DATA_BYTES", 1000 * len(line))
    path = tmp_path / "bomb.jsonl.gz"
    path.write_bytes(gzip.compress(line * 1000))
    assert len(read_examples(path)) == 1000
    path.write_bytes(gzip.compress(line * 100_000))
    with pytest.raises(DataError, match="can't be read after line 1000: .* unpacked, .*; split it"):
        read_examples(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    packed = gzip.compress(b"\n".join([json.dumps(ITEM).encode()] * 50))
    (tmp_path / "cut.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "plain.jsonl.gz").write_text(json.dumps(ITEM))
    for name in ("cut.jsonl.gz", "plain.jsonl.gz", "missing.jsonl"):
        with pytest.raises(DataError, match=f"{name}: can't be read after line"):
            read_examples(tmp_path / name)
    with pytest.raises(DataError, match=r"empty\.jsonl: holds no example"):
        read_examples(write(tmp_path / "empty.jsonl", "", ""))


def example(*gold: str) -> Example:
    chunks = (*map(Chunk, gold), Chunk("shared distractor"))
    labels = (*(True for _ in gold), False)
    return Example("id", "source", "query", chunks, labels)


def test_gold_groups_link_by_gold_passages_alone_and_carry_over() -> None:
    examples = [
        example("a"),
        example("b"),
        example("B ", "c\nd"),
        example(),
        example("C  D", "e"),
        example(""),
        example(" "),
    ]
    assert gold_groups(examples) == [0, 1, 1, 2, 1, 3, 4]


def test_linked_groups_are_the_connected_components() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        keys = [set(rng.integers(0, 40, size=rng.integers(0, 4)).tolist()) for _ in range(30)]
        reached = [{item} for item in range(30)]
        for _ in range(30):
            reached = [
                group | {b for a in group for b in range(30) if keys[a] & keys[b]}
                for group in reached
            ]
        components = sorted({tuple(sorted(group)) for group in reached})
        numbers = {item: n for n, group in enumerate(components) for item in group}
        assert linked_groups(keys) == [numbers[item] for item in range(30)]
    assert linked_groups([]) == [] and linked_groups([[], []]) == [0, 1]
