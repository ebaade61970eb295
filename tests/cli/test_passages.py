"""Reading passages: every format, and every way a file can be wrong."""

from __future__ import annotations

import gzip
import logging
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from at2_rag.cli.passages import MOST_BYTES, Columns, Format, parse_passages, read_passages
from at2_rag.errors import DataError
from at2_rag.text.chunks import Chunk

BOM = b"\xef\xbb\xbf"


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def failure(data: bytes, name: str = "<stdin>", format: Format | None = None) -> str:
    with pytest.raises(DataError) as caught:
        parse_passages(data, name, format=format)
    message = str(caught.value)
    assert message.startswith(name)
    assert "\n" not in message
    return message


# --- JSON Lines ------------------------------------------------------------------------------


def test_json_lines_hold_strings_and_objects_whose_other_keys_ride_along(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "a.jsonl",
        '"one"\n\n{"text": "two", "title": "T", "id": 7, "metadata": {"p": 1}, "url": "u"}\r\n'
        '  {"text": "", "title": null}  \n"\u2028 \u0085 \\ud800"',
    )
    assert read_passages(path) == [
        "one",
        {"text": "two", "title": "T", "id": 7, "metadata": {"p": 1}, "url": "u"},
        {"text": "", "title": None},
        "\u2028 \u0085 \ud800",
    ]


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ('{"text": "a"', ("line 2, column 13: not JSON",)),
        ("plain words", ("line 2, column 1: not JSON",)),
        ("42", ("line 2: chunk 1 is a int",)),
        ('{"body": "a"}', ("line 2: chunk 1", "without the key 'text'", "body")),
        ('{"text": "a", "title": ["b"]}', ("line 2: chunk 1", "title of type list")),
        ('{"text": "a", "score": NaN}', ("line 2: not usable JSON (NaN", "null")),
        ('{"text": "a", "n": ' + "9" * 5000 + "}", ("line 2: not usable JSON (",)),
        ("[" * 100_000, ("line 2: not usable JSON (",)),
    ],
)
def test_unusable_lines_are_named(line: str, parts: tuple[str, ...]) -> None:
    message = failure(f'"fine"\n{line}\n"fine too"'.encode(), "in.jsonl", "jsonl")
    for part in parts:
        assert part in message
    assert "--format" not in message


# --- JSON ------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", ["%s", '{"query": "q", "chunks": %s}'])
def test_json_is_a_list_or_an_object_with_chunks(tmp_path: Path, wrap: str) -> None:
    path = write(tmp_path, "a.JSON", wrap % '["one",\n {"text": "two", "id": "x"}]')
    assert read_passages(path) == ["one", {"text": "two", "id": "x"}]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('["a",\n "b"\n "c"]', "a.json, line 3, column 2: not JSON"),
        ('"a"\n"b"', "a.json, line 2, column 1: not JSON (Extra data); it was read as json"),
        ('{"text": "a"}', "a.json: holds no list of passages"),
        ('["a", 3]', "a.json: chunk 1 is a int"),
        ('["a", NaN]', "a.json, line 1: not usable JSON (NaN"),
        ("", "a.json, line 1, column 1: not JSON"),
    ],
)
def test_unusable_json_is_named_with_its_line(text: str, part: str) -> None:
    message = failure(text.encode(), "a.json")
    assert message.startswith(part)
    assert message.endswith("pass --format jsonl or text if it is that")


@pytest.mark.parametrize("number", ["1e400", "-1e999", "9" * 400 + ".5"])
def test_numbers_that_no_float_holds_are_refused(number: str) -> None:
    assert "line 1: not usable JSON ('" in failure(f'{{"text": "a", "n": {number}}}'.encode())


# --- CSV -------------------------------------------------------------------------------------


def csv(content: str, name: str = "a.csv", **columns: Any) -> list[Any]:
    return parse_passages(content.encode(), name, columns=Columns(**columns))


def test_columns_are_text_title_id_score_and_metadata() -> None:
    text = (
        'id,title,text,url,retrieval_score\r\n7,Emma,"A novel, of ""1815""",u,0.5\r\n\r\n'
        ',,"two\nlines\r\n",,\r\n , ,,\r\n'
    )
    expected = [
        Chunk('A novel, of "1815"', "Emma", "7", {"url": "u"}, 0.5),
        Chunk("two\nlines\r\n", metadata={"url": ""}),
    ]
    assert csv(text) == expected
    assert csv(BOM.decode() + text.removesuffix(" , ,,\r\n")) == expected
    assert parse_passages(gzip.compress(text.encode()), "A.CSV.GZ") == expected
    assert parse_passages(text.encode(), "<stdin>", format="csv") == expected
    tabs = text.replace(",", "\t").replace("novel\t", "novel,")
    assert csv(tabs, "a.tsv") == parse_passages(tabs.encode(), "a", format="tsv") == expected
    assert csv(text.replace(",", ";").replace("novel;", "novel,")) == expected, "as Excel may"


def test_columns_of_other_names() -> None:
    text = "body,text,heading\nOne.,1,First\n"
    expected = [Chunk("One.", "First", metadata={"text": "1"})]
    assert csv(text, text="body", title="heading") == expected
    assert csv(" text , n\nOne., 2\n") == [Chunk("One.", metadata={"n": "2"})]
    assert csv('text, "title"\n  a b , "  Two, or more"\n') == [Chunk("a b ", "  Two, or more")]
    assert csv("title\nOne.\n", text="title") == [Chunk("One.")]
    assert csv("text\n") == []
    long = "word " * 100_000  # more than the csv module's own limit
    assert csv(f"text\n{long}\n") == [Chunk(long)]


def test_blank_columns_without_a_name_are_left_out_at_the_end() -> None:
    expected = [Chunk("a", "b"), Chunk("c")]
    assert csv("text,title,, \na,b,,\nc,, ,\n") == expected
    assert csv("text,title,\na,b,\nc,,\n") == expected
    assert csv("text,,\n") == []
    assert csv(",text,\n0,a,\n") == [Chunk("a", metadata={"": "0"})], "an index, as of pandas"
    assert csv("text,,\na,7,\n") == [Chunk("a", metadata={"": "7"})]


@pytest.mark.parametrize(
    ("score", "number"),
    [("0", 0.0), ("-1.5", -1.5), (" +.5 ", 0.5), ("2.", 2.0), ("1E-3", 0.001), ("1e308", 1e308)],
)
def test_scores_are_decimal_numbers(score: str, number: float) -> None:
    assert csv(f"text,retrieval_score\na,{score}\n") == [Chunk("a", retrieval_score=number)]


@pytest.mark.parametrize(
    "score",
    ["x", "nan", "inf", "-Infinity", "1e999", "-1e309", "1_0", "\uff11\uff12", "0x1", "1 2", "."],
)
def test_scores_that_no_json_holds_are_refused(score: str) -> None:
    with pytest.raises(DataError) as caught:
        csv(f"text,retrieval_score\na,1\nb,{score}\n")
    assert f"a.csv, line 3: the retrieval_score is {score!r}; pass a number" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "columns", "part"),
    [
        (
            "body,n\na,1",
            {},
            "a.csv: has no column 'text' (its columns: 'body', 'n'); name one with ",
        ),
        ("", {}, "a.csv: has no column 'text' (its columns: none, the file is empty)"),
        ("text\na", {"title": "head"}, "no column 'head' (its columns: 'text'); name one with --t"),
        (
            "text\na",
            {"text": "title"},
            "no column 'title' (its columns: 'text'); name one with --t",
        ),
        ("text,\na,", {"text": ""}, "no column '' (its columns: 'text', ''); name one with --te"),
        ("body,n\na", {}, "a.csv: has no column 'text'"),
        ("text,,\na,1,2", {}, "a.csv: has more than one column ''; rename one"),
        ("text,,\na,", {}, "a.csv, line 2: has 2 fields for the 3 columns 'text', '', ''; put"),
        ("text,n,n\na,1,2", {}, "a.csv: has more than one column 'n'; rename one"),
        ('text,n\n"a\nb",1\n\nc', {}, "a.csv, line 5: has 1 fields for the 2 columns 'text', 'n'"),
        (
            "text,n\na, b,1",
            {},
            "a.csv, line 2: has 3 fields for the 2 columns 'text', 'n'; put quo",
        ),
        ('text\na\n"b\n\n', {}, "a.csv, line 3: not CSV (unexpected end of data)"),
        ('text,n\n"a"b,1', {}, "a.csv, line 2: not CSV (',' expected after '\"'); write a quote"),
        ("text,retrieval_score\na,x", {}, "line 2: the retrieval_score is 'x'; pass a number"),
    ],
)
def test_unusable_csv_is_named_with_its_line(text: str, columns: dict[str, str], part: str) -> None:
    with pytest.raises(DataError) as caught:
        csv(text, **columns)
    assert part in str(caught.value)


def test_columns_that_a_file_has_not_are_refused(tmp_path: Path) -> None:
    columns = Columns("body", required=True)
    for path, kind in (
        (write(tmp_path, "a.jsonl", '"one"'), "jsonl"),
        (write(tmp_path, "a", "body,n\none,1"), "text"),
        (tmp_path, "text"),
    ):
        with pytest.raises(DataError, match=f"{path}: is read as {kind}, which has no columns"):
            read_passages(path, columns=columns)
    assert read_passages(tmp_path / "a.jsonl", columns=Columns("body")) == ["one"]
    assert read_passages(tmp_path / "a", format="csv", columns=columns) == [
        Chunk("one", metadata={"n": "1"})
    ]


# --- text ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "passages"),
    [
        ("", []),
        ("one\n\ntwo", ["one", "two"]),
        ("\n\n  one  \n\ttwo \n \t \n\n\nthree\n\n", ["  one  \n\ttwo ", "three"]),
        ("one\r\ntwo\r\n\r\nthree\r\n", ["one\r\ntwo", "three"]),
        ("a\u2028b\x0cc", ["a\u2028b\x0cc"]),
        ("שלום\n\n😀\n\n\0", ["שלום", "😀", "\0"]),
        ('["not", "JSON"]', ['["not", "JSON"]']),
    ],
)
def test_paragraphs_are_kept_as_they_are(tmp_path: Path, text: str, passages: list[str]) -> None:
    assert read_passages(write(tmp_path, "a.txt", text)) == passages


def test_a_long_log_is_several_passages() -> None:
    lines = [f"12:00:{number:02} INFO request {number} took 3 ms" for number in range(60)]
    passages = parse_passages("\n".join(lines).encode(), "<stdin>")
    assert len(passages) == 3
    assert "\n".join(map(str, passages)).split("\n") == lines


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    assert read_passages(write(tmp_path, "a.txt", BOM + b"one")) == ["one"]
    assert read_passages(write(tmp_path, "a.jsonl", BOM + b'"one"')) == ["one"]
    assert read_passages(write(tmp_path, "a.json", BOM + b'["one"]')) == ["one"]


@pytest.mark.parametrize("start", [b"", BOM])
def test_bytes_that_are_not_utf8_are_located(start: bytes) -> None:
    message = failure(start + b'"abc"\n"d\xe9f"', "a.json")
    assert f"a.json, line 2: not UTF-8, byte 0xe9 at offset {8 + len(start)};" in message


# --- gzip ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "passages"),
    [
        ("a.jsonl.gz", '{"text": "a"}\n"b"', [{"text": "a"}, "b"]),
        ("a.txt.gz", '["a"]\n\nb', ['["a"]', "b"]),
        ("a.jsonl", '"a"', ["a"]),
        ("<stdin>", '"a"', ["a"]),
        ("a.gz", "a\n\nb", ["a", "b"]),
    ],
)
def test_gzipped_files_are_read_as_what_they_hold(
    tmp_path: Path, name: str, text: str, passages: list[Any]
) -> None:
    data = gzip.compress(text.encode())
    assert parse_passages(data, name) == passages
    assert read_passages(write(tmp_path, name.strip("<>"), data)) == passages


WHOLE = gzip.compress(b'"a passage"\n' * 50, mtime=0)
DAMAGED = {
    "cut at the end": WHOLE[:-1],
    "bytes overwritten": WHOLE[:20] + b"\xff" * 9 + WHOLE[29:],
    "another checksum": WHOLE[:-8] + b"\0" * 8,
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_damaged_gzip_files_are_named(data: bytes) -> None:
    assert "a damaged gzip file (" in failure(data, "a.jsonl.gz")


def test_lines_are_counted_in_the_unpacked_file() -> None:
    assert "line 2: not UTF-8, byte 0xff at offset 2" in failure(gzip.compress(b"a\n\xff"), "a.gz")


# --- folders ---------------------------------------------------------------------------------


def test_a_folder_gives_one_chunk_a_file_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, "b.txt", "second\n\nstill second\n")
    write(tmp_path, "a.md", BOM + "erste Ä".encode())
    write(tmp_path, "c.json", '["not parsed"]')
    write(tmp_path, "d", gzip.compress("Ä".encode()))
    write(tmp_path, ".hidden", b"\xff")
    (tmp_path / "more").mkdir()
    with caplog.at_level(logging.WARNING):
        passages = read_passages(tmp_path)
    assert passages == [
        Chunk("erste Ä", id="a.md"),
        Chunk("second\n\nstill second\n", id="b.txt"),
        Chunk('["not parsed"]', id="c.json"),
        Chunk("Ä", id="d"),
    ]
    assert "1 of its 5 entries are not files" in caplog.text


def test_symlinks_out_of_a_folder_are_not_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, "secret.txt", "secret")
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder, "a.txt", "a")
    (folder / "b.txt").symlink_to("a.txt")
    (folder / "c.txt").symlink_to("../secret.txt")
    (folder / "d.txt").symlink_to("/dev/zero")
    (folder / "e.txt").symlink_to("e.txt")
    (tmp_path / "link").symlink_to("folder")
    for way in (folder, tmp_path / "link"):
        caplog.clear()
        assert read_passages(way) == [Chunk("a", id="a.txt"), Chunk("a", id="b.txt")]
        assert "2 of its 5 entries are not files" in caplog.text
        assert "1 symlinks lead out of the folder and were not read (c.txt)" in caplog.text


ZEROS = gzip.compress(bytes(1 << 26)) * 32
"""Two gibibytes of zeros in two megabytes: members of a gzip file follow each other."""


@pytest.mark.skipif(sys.platform != "linux", reason="has no /dev/zero that never ends")
def test_what_never_ends_is_read_up_to_a_limit(tmp_path: Path) -> None:
    bomb = write(tmp_path, "bomb.txt.gz", ZEROS)
    limit = re.escape(f"more than {MOST_BYTES:,} bytes, the most that is read; split it")
    for path in (bomb, Path("/dev/zero")):
        with pytest.raises(DataError, match=f"{path}: holds {limit}"):
            read_passages(path)
    with bomb.open("wb") as file:
        file.truncate(MOST_BYTES * 3 // 4)  # a sparse file
    write(tmp_path, "more.txt", b"").open("ab").truncate(MOST_BYTES * 3 // 4)
    with pytest.raises(DataError, match=f"{tmp_path}: its files hold {limit}"):
        read_passages(tmp_path)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing\.txt: can't be read: No such file"):
        read_passages(tmp_path / "missing.txt")
    with pytest.raises(DataError, match="is a folder, whose files are read as text, not jsonl"):
        read_passages(tmp_path, format="jsonl")
    bad = write(tmp_path, "b.bin", b"one\n\x80")
    with pytest.raises(DataError, match=re.escape(f"{bad}, line 2: not UTF-8, byte 0x80")):
        read_passages(tmp_path)


# --- detection -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "passages"),
    [
        ("", []),
        ("One.\n\nTwo.", ["One.", "Two."]),
        ('{"text": "a"}', [{"text": "a"}]),
        ('"a"\n"b"', ["a", "b"]),
        ('["a", "b"]', ["a", "b"]),
        ('[\n  "a",\n  {"text": "b"}\n]', ["a", {"text": "b"}]),
        ("[]", []),
        ('{"chunks": ["a"]}', ["a"]),
        ('"Hello," she said.\n\nHe nodded.', ['"Hello," she said.', "He nodded."]),
        ("[1] Smith 1999\n\n[2] Jones 2001", ["[1] Smith 1999", "[2] Jones 2001"]),
        ("[[Emma]] is a novel.", ["[[Emma]] is a novel."]),
    ],
)
def test_content_tells_the_format(text: str, passages: list[Any]) -> None:
    assert parse_passages(text.encode(), "passages.dat") == passages


@pytest.mark.parametrize(
    ("text", "read_as"),
    [
        ('[{"text": "a"}, {"te', "json"),
        ('{"title": "no text"}', "jsonl"),
        ('{"text": "a"}\nplain', "jsonl"),
    ],
)
def test_damaged_json_is_not_taken_for_text(text: str, read_as: str) -> None:
    message = failure(text.encode())
    assert f"; it was read as {read_as}, pass --format " in message
    assert "text if it is that" in message


def test_a_given_format_overrides_ending_and_content(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", '"one"\n"two"')
    assert read_passages(path) == ['"one"\n"two"']
    assert read_passages(path, format="jsonl") == ["one", "two"]
    assert parse_passages(b'["a"]', "<stdin>", format="text") == ['["a"]']
