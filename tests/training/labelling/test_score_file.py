"""Files of scores: which chunk each is of, and what is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from at2_rag.data.examples import Example
from at2_rag.errors import DataError
from at2_rag.text.chunks import Chunk
from at2_rag.training.labelling.score_file import read_scores


def example(name: str, *ids: str | None, source: str = "novels") -> Example:
    chunks = tuple(Chunk(f"text {index}", id=value) for index, value in enumerate(ids))
    return Example(name, source, "who?", chunks, (False,) * len(chunks))


EXAMPLES = [example("q1", "a", "b", None), example("q2", "7", "0"), example("q2", "7", source="x")]


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row(score: object = 1.0, **names: object) -> dict[str, object]:
    return {"id": "q1", **({"index": 0} if not names else {}), **names, "score": score}


def test_scores_are_of_chunks_by_index_or_id(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [
        row(-3, index=2),
        row(0.5, chunk_id="b", more="x"),
        row(7, id="q2", source="novels", chunk_id="0"),
        row(8, id="q2", source="x", chunk_id=7),
        row(9, id="q9", index=99),
    ]
    expected = [[None, 0.5, -3.0], [None, 7.0], [8.0]]
    assert read_scores(write(tmp_path / "a.jsonl", *rows), EXAMPLES) == expected
    assert "1 scores are of examples that aren't in FILES" in caplog.text
    lines = [
        "\ufeffid,index,score,chunk_id,source,more",
        "q1,2,-3,,,",
        'q1,,"0.5",b,,"two\nlines"',
        "q2,,7,0,novels,",
        "q2,,8e0,7,x,",
    ]
    packed = tmp_path / "a.csv.gz"
    packed.write_bytes(gzip.compress("\r\n".join(lines).encode()))
    assert read_scores(packed, EXAMPLES) == expected


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row(float("nan")), "line 2: 'score' is nan; expected a finite number"),
        (row("high"), "'score' is 'high'"),
        (row(True), "'score' is True"),
        (row(10**400), "'score' is 1000"),
        (row(None), "'score' is None"),
        (row(id=3, index=0), "'id' is 3; expected an example's id"),
        (row(id="q2", index=0), "2 examples have the id 'q2'; add their 'source'"),
        (row(index=3), "'index' is 3; expected a whole number from 0 to 2"),
        (row(index=True), "'index' is True"),
        (row(index=-1), "'index' is -1"),
        (row(index=0.0), "'index' is 0.0"),
        (row(chunk_id="c"), "0 chunks of 'q1' have the id 'c'"),
        (row(index=0, chunk_id="a"), "expected either 'index' or 'chunk_id'"),
        ({"id": "q1", "score": 1}, "expected either 'index' or 'chunk_id'"),
        (row(index=1), "line 2: chunk 1 of 'q1' has a score already"),
        ([1], "line 2: [1]; expected an object"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, bad: object, message: str) -> None:
    path = write(tmp_path / "a.jsonl", row(index=1), bad)
    with pytest.raises(DataError) as caught:
        read_scores(path, EXAMPLES)
    assert str(caught.value).startswith(f"{path}, line 2: ") and message in str(caught.value)


def test_files_that_are_no_scores_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of its 2 scores is of one of the 3 examples"):
        read_scores(write(tmp_path / "a.jsonl", *[row(id="q9", index=0)] * 2), EXAMPLES)
    with pytest.raises(DataError, match=r"; line 6: .*; and 4 more$"):
        read_scores(write(tmp_path / "b.jsonl", row(), *[row("x")] * 9), EXAMPLES)
    torn = tmp_path / "c.jsonl"
    torn.write_text('{"id": "q1", "index": 0, "score": 1}\n{"id"')
    with pytest.raises(DataError, match=r"c\.jsonl: not JSON after line 1"):
        read_scores(torn, EXAMPLES)
    table = tmp_path / "d.csv"
    table.write_text("id,index,score\nq1,0,1,5\nq1,1\n")
    with pytest.raises(
        DataError, match=r"line 2: .* a field for each column; line 3: 'score' is N"
    ):
        read_scores(table, EXAMPLES)
    table.write_text('id,index,score\n"q1,0,1\n')
    with pytest.raises(DataError, match=r"d\.csv: not CSV after line"):
        read_scores(table, EXAMPLES)
    table.write_bytes(b"id,index,score\nq\xff,0,1\n")
    with pytest.raises(DataError, match=r"d\.csv: not UTF-8 after line"):
        read_scores(table, EXAMPLES)
    with pytest.raises(DataError, match=r"e\.csv: can't be read after line 0"):
        read_scores(tmp_path / "e.csv", EXAMPLES)
