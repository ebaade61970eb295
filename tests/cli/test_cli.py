"""The `at2-rag` command from arguments to output, with a tiny real model."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from at2_rag import AT2Pruner, PruneResult, __version__
from at2_rag.cli.group import main
from at2_rag.cli.options import prune_options, taken_options
from at2_rag.options import PruneOptions
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import calibrated_weights

QUERY = "Who wrote Emma?"
PASSAGES: list[dict[str, Any]] = [
    {"text": "The river flows through the old town to the sea.", "id": "r1", "rank": 1},
    {"text": "Jane Austen wrote Emma in 1815.", "title": "Emma (novel)", "metadata": {"page": 3}},
    {"text": "The bridge was opened in 1932\nand spans the harbour."},
    {"text": "Jane Austen wrote Emma in 1815.", "title": "Copy"},
    {"text": "Water boils at a hundred degrees."},
]
TEXTS = [passage["text"] for passage in PASSAGES]


@pytest.fixture(scope="module")
def pruner(model_folder: Path) -> AT2Pruner:
    return AT2Pruner.from_pretrained(model_folder, head_weights="uniform", dtype="float32")


@pytest.fixture
def passages(tmp_path: Path) -> Path:
    path = tmp_path / "passages.jsonl"
    path.write_text("".join(json.dumps(passage) + "\n" for passage in PASSAGES))
    return path


def run(*arguments: str | Path, input: str | bytes | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=input)


def prune(*arguments: str | Path, input: str | bytes | None = None) -> Result:
    return run("prune", "--query", QUERY, *arguments, input=input)


def prune_json(*arguments: str | Path, input: str | bytes | None = None) -> dict[str, Any]:
    ran = prune("--json", *arguments, input=input)
    assert ran.exit_code == 0, ran.stderr
    shown: dict[str, Any] = json.loads(ran.stdout)
    return shown


def without_times(result: PruneResult | dict[str, Any]) -> dict[str, Any]:
    fields = json.loads(result.to_json()) if isinstance(result, PruneResult) else result
    return {key: value for key, value in fields.items() if key != "timings"}


# --- the group -------------------------------------------------------------------------------


def test_version() -> None:
    assert run("--version").output == f"at2-rag, version {__version__}\n"


def test_help_lists_every_command() -> None:
    ran = run("-h")
    assert ran.exit_code == 0
    names = {line.split()[0] for line in ran.output.split("Commands:\n")[1].splitlines()}
    assert names == {
        *("cache", "calibrate", "eval", "index", "label", "mcp", "models", "prune", "ray"),
        *("serve", "train"),
    }


def test_without_ray_its_commands_name_the_extra(
    passages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it weren't installed
    monkeypatch.delitem(sys.modules, "at2_rag.ray.cluster", raising=False)
    for arguments in (["serve"], ["index", str(passages)], ["eval", str(passages)]):
        ran = run("ray", *arguments)
        assert ran.exit_code == 1 and 'run: pip install "at2-rag[ray]"' in ran.stderr


def test_every_option_of_a_pruning_is_one_of_the_command() -> None:
    @dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
    class MoreOptions(PruneOptions):
        brand_new: float | None = dataclasses.field(
            default=0.25, metadata={**PruneOptions.__dataclass_fields__["top_p"].metadata}
        )

    @click.command()
    @prune_options(MoreOptions)
    def command(**values: Any) -> None:
        click.echo(repr(taken_options(MoreOptions, values)))

    shown = CliRunner().invoke(command, ["--brand-new", "0.75"]).output
    assert shown == f"{MoreOptions(brand_new=0.75)!r}\n"
    assert "0.25]" in CliRunner().invoke(command, ["--help"]).output
    refused = CliRunner().invoke(command, ["--brand-new", "2"])
    assert refused.exit_code == 2 and "--brand-new is 2.0; pass a number" in refused.stderr


# --- prune: what goes in ---------------------------------------------------------------------


def test_json_output_is_the_pruners_own_result(
    passages: Path, loading: list[str], pruner: AT2Pruner
) -> None:
    for options, limits in (
        (["--min-score", "0"], {"min_score": 0.0}),
        (["--top-k", "3", "--order", "original"], {"top_k": 3, "order": "original"}),
        (["--unit=sentence", "--top-p=.4"], {"unit": "sentence", "top_p": 0.4}),
    ):
        shown = prune_json(passages, *loading, *options)
        assert without_times(shown) == without_times(pruner.prune(QUERY, PASSAGES, **limits))
        assert shown["timings"]["total"] > 0


def test_calibrated_weights_need_no_limit_and_others_do(
    passages: Path, model_folder: Path, loading: list[str], tmp_path: Path
) -> None:
    weights = calibrated_weights(tiny_model(), tiny_tokenizer(), cosine_weight=3.0)
    weights.save(tmp_path / "weights")
    pruner = AT2Pruner.from_pretrained(model_folder, head_weights=weights, dtype="float32")
    calibrated = ["--model", str(model_folder), "--dtype", "float32"]
    calibrated += ["--head-weights", str(tmp_path / "weights")]
    cases: list[tuple[list[str], dict[str, Any]]] = [
        ([], {}),
        (["--top-k=4", "--keep-duplicates"], {"top_k": 4, "max_overlap": None}),
        (["--max-missed=0.2", "--no-multi-hop"], {"max_missed": 0.2, "multi_hop": False}),
        (["--top-k=3", "--prior=order"], {"top_k": 3, "prior": "order"}),
        (["--if-unanswerable=keep_none"], {"if_unanswerable": "keep_none"}),
    ]
    for options, limits in cases:
        shown = prune_json(passages, *calibrated, *options)
        assert without_times(shown) == without_times(pruner.prune(QUERY, PASSAGES, **limits))
        assert shown["answerable"] is not None
    ran = prune(passages, *loading)
    assert ran.exit_code == 1 and "no limit was given" in ran.stderr


def test_every_kind_of_input_gives_the_same_scores(
    tmp_path: Path, loading: list[str], pruner: AT2Pruner
) -> None:
    expected = [chunk.score for chunk in pruner.score(QUERY, TEXTS)]
    lines = "".join(json.dumps(text) + "\n" for text in TEXTS)
    folder = tmp_path / "folder"
    folder.mkdir()
    for number, text in enumerate(TEXTS):
        (folder / f"{number}.txt").write_text(text)
    (tmp_path / "packed").write_bytes(gzip.compress(lines.encode()))
    sources: list[tuple[list[str | Path], str | None]] = [
        ([folder], None),
        ([tmp_path / "packed"], None),
        (["-"], lines),
        ([], json.dumps({"chunks": TEXTS})),
        (["--format", "text"], "\n\n".join(TEXTS)),
    ]
    for arguments, input in sources:
        shown = prune_json(*loading, "--top-k", "2", *arguments, input=input)
        chunks = sorted((*shown["kept"], *shown["dropped"]), key=lambda chunk: chunk["index"])
        assert [chunk["text"] for chunk in chunks] == TEXTS
        assert [chunk["score"] for chunk in chunks] == pytest.approx(expected, abs=1e-6)


# --- prune: what comes out -------------------------------------------------------------------


def test_the_table_shows_the_result(passages: Path, loading: list[str], pruner: AT2Pruner) -> None:
    result = pruner.prune(QUERY, PASSAGES, top_k=2)
    ran = prune(passages, *loading, "--top-k", "2")
    assert ran.exit_code == 0
    lines = ran.stdout.splitlines()
    assert all(len(line) <= 80 for line in lines)
    rows = [line for line in lines[2:] if re.match(r" +\d+ +-?\d", line)]
    assert [row.split()[2] for row in rows] == ["yes", "yes", "no", "no", "no"]
    for row, chunk in zip(rows, (*result.kept, *result.dropped), strict=True):
        assert row.split()[1] == f"{chunk.score:.3f}"
    assert lines[-1].startswith(
        f"Kept 2 of 5 chunks, {result.tokens_after} of {result.tokens_before} tokens, in "
    )


def test_the_context_alone(passages: Path, loading: list[str], pruner: AT2Pruner) -> None:
    result = pruner.prune(QUERY, PASSAGES, top_k=2)
    ran = prune(passages, *loading, "--top-k", "2", "--context")
    assert (ran.stdout, ran.stderr) == (result.context + "\n", "")
    shown = prune_json(passages, *loading, "--top-k", "2", "--separator", "\n---\n")
    assert shown["context"] == "\n---\n".join(chunk.rendered for chunk in result.kept)
    assert shown["separator"] == "\n---\n"


def test_the_passages_in_a_terminal_and_as_a_page(
    passages: Path, loading: list[str], pruner: AT2Pruner, tmp_path: Path
) -> None:
    result, page = pruner.prune(QUERY, PASSAGES, top_k=2), tmp_path / "page.html"
    ran = prune(passages, *loading, "--top-k", "2", "--show", "--html", page)
    assert ran.exit_code == 0, ran.stderr
    positions = [ran.stdout.index(chunk.text.split("\n")[0]) for chunk in result.kept]
    assert positions == sorted(positions)
    assert ran.stdout.count("dropped ") == len(result.dropped) == 3
    untimed = re.compile(r"in \d+\.\d+ s")
    assert untimed.sub("", page.read_text("utf-8")) == untimed.sub("", result.to_html())


def test_the_context_of_nothing_and_of_odd_text(loading: list[str]) -> None:
    shown = prune_json(*loading, "--top-k", "1", input="")
    assert (shown["kept"], shown["dropped"]) == ([], [])
    ran = prune(*loading, "--max-tokens", "1", "--context", input="A long passage.")
    assert (ran.exit_code, ran.stdout) == (0, "")
    assert ran.stderr.startswith("WARNING: Nothing was kept: ") and ran.stderr.count("\n") == 1
    odd = json.dumps("lone \ud800 [bold]x[/bold] 👩‍👩‍👧")
    ran = prune(*loading, "--top-k", "1", "--context", "--format", "jsonl", input=odd)
    assert ran.stdout == "lone \ufffd [bold]x[/bold] 👩‍👩‍👧\n"


STEERING = "\x1b]0;mine\x07\x1b[31mred\x9b2J\rover \u202eback\u202c\x7f\x00"


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
def test_a_chunk_does_not_steer_the_terminal(
    loading: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passage = {"text": f"Emma\tof 1815,\nby Austen {STEERING} ☃", "title": STEERING}
    path = tmp_path / "steering.jsonl"
    path.write_text(json.dumps(passage))
    command = ["prune", "-q", QUERY, "--top-k", "1", *loading, str(path)]
    piped = run(*command, "--context").stdout
    assert STEERING in piped, "to the letter"
    for options in (["--context"], []):
        controller, terminal = os.openpty()
        with os.fdopen(terminal, "w", encoding="utf-8") as stdout:
            monkeypatch.setattr("sys.stdout", stdout)
            main([*command, *options], standalone_mode=False)
            monkeypatch.undo()
            written = os.read(controller, 1 << 16).decode().replace("\r\n", "\n")
        os.close(controller)
        without_styles = re.sub(r"\x1b\[[0-9;]*m", "", written) if not options else written
        assert "Emma" in written and "\ufffd" in written
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", without_styles)
        if options:
            assert "Emma\tof 1815,\nby Austen" in written and "☃" in written


def test_stdout_holds_json_alone_and_stderr_no_progress_when_piped(
    passages: Path, loading: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["prune", "--query", QUERY, "--top-k", "2", "--json", *loading, str(passages)]
    main(command, standalone_mode=False)
    written = capfd.readouterr()
    assert len(json.loads(written.out)["kept"]) == 2
    assert "Loading weights" not in written.err and "Scoring" not in written.err


def kept_lines(*arguments: str | Path, input: str | None = None) -> list[Any]:
    ran = prune("--kept", *arguments, input=input)
    assert ran.exit_code == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


def test_the_kept_chunks_alone_as_they_came(
    passages: Path, loading: list[str], pruner: AT2Pruner, tmp_path: Path
) -> None:
    result = pruner.prune(QUERY, PASSAGES, top_k=2)
    lines = kept_lines(passages, *loading, "--top-k", "2")
    assert lines == list(result.chunks) and all(line in PASSAGES for line in lines)
    assert [list(line) for line in lines] == [list(chunk) for chunk in result.chunks], "in order"
    again = "".join(json.dumps(line) + "\n" for line in lines)
    assert kept_lines(*loading, "--top-k", "2", input=again) == lines

    text = "The ☃ \x9b stands.\n\nJane Austen wrote Emma."
    assert kept_lines(*loading, "--top-k", "9", "--format", "text", "--order=original", input=text)
    raw = prune("--kept", *loading, "--top-k", "9", "--format", "text", input=text).stdout
    assert raw.isascii() and set(map(json.loads, raw.splitlines())) == set(text.split("\n\n"))

    table = tmp_path / "a.csv"
    table.write_text("id,text,page,retrieval_score\n7,Jane Austen wrote Emma.,3,0\n,The sea.,,\n")
    assert kept_lines(table, *loading, "--top-k", "2", "--order", "original") == [
        {"text": "Jane Austen wrote Emma.", "id": "7", "metadata": {"page": "3"}}
        | {"retrieval_score": 0.0},
        {"text": "The sea.", "metadata": {"page": ""}},
    ]


def test_nothing_is_printed_of_a_file_with_a_score_that_json_has_not(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text("text,retrieval_score\nThe sea.,1\nThe sky.,nan\n")
    ran = prune("--kept", "--top-k", "2", table)
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert f"{table}, line 3: the retrieval_score is 'nan'; pass a number" in ran.stderr


def test_the_command_line_wins_over_the_contrary_in_a_file(
    passages: Path, loading: list[str], pruner: AT2Pruner, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        "top_k = 2\n[prune]\njson = true\nprice = 3\n"
        "keep_duplicates = true\nno_chunk_cache = true\n"
    )
    refused = prune(passages, *loading, "--config", config)
    assert refused.exit_code == 2 and f"--json (from prune.json in {config})" in refused.stderr
    options = ("--kept", "--max-overlap", "1", "--chunk-cache", tmp_path / "states")
    lines = kept_lines(passages, *loading, "--config", config, *options)
    assert lines == list(pruner.prune(QUERY, PASSAGES, top_k=2).chunks)
    assert list((tmp_path / "states").glob("*.state"))
    config.write_text("top_k = 5\nkeep_duplicates = true\n")
    twice = json.dumps([TEXTS[0], TEXTS[0]])
    for overlap, count in (([], 2), (["--max-overlap", "1"], 1)):
        assert len(kept_lines(*loading, "--config", config, *overlap, input=twice)) == count


def test_of_trimmed_chunks_the_kept_text_alone_is_another(
    loading: list[str], pruner: AT2Pruner
) -> None:
    long = (
        "Jane Austen wrote Emma in the year 1815, at home. The bridge was opened in 1932 and spans "
        "the harbour. Water boils at a hundred degrees at the level of the sea."
    )
    chunks: list[Any] = [
        {"url": "u", "text": long, "tags": [1]},
        long + " The end is near, we say.",
    ]
    options: dict[str, Any] = {"unit": "sentence", "top_k": 2, "max_overlap": None}
    result = pruner.prune(QUERY, chunks, **options)
    assert any(scored.spans for scored in result.kept)
    lines = "".join(json.dumps(chunk) + "\n" for chunk in chunks)
    flags = ["--unit", "sentence", "--top-k", "2", "--keep-duplicates"]
    for line, scored in zip(kept_lines(*loading, *flags, input=lines), result.kept, strict=True):
        text = line if isinstance(line, str) else line["text"]
        assert text == scored.kept_text
        assert isinstance(line, str) or line == {"url": "u", "text": text, "tags": [1]}


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
@pytest.mark.parametrize("command", ["prune", "index", "train"])
def test_a_terminal_shows_at_once_what_takes_long(
    command: str, passages: Path, loading: list[str], tmp_path: Path
) -> None:
    (tmp_path / "cache" / "chunk_states").mkdir(parents=True)
    (tmp_path / "torch.py").write_text("raise ImportError('not now')")  # in torch's stead
    path = os.pathsep.join([str(tmp_path), *sys.path])
    options = {
        "prune": ["-q", QUERY, "--top-k", "1", *loading],
        "index": loading,
        "train": ["--output", str(tmp_path / "out")],
    }[command]
    controller, terminal = os.openpty()
    ran = subprocess.run(
        [sys.executable, "-m", "at2_rag", command, str(passages), *options],
        env={**os.environ, "PYTHONPATH": path, "TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        stderr=terminal,
        timeout=100,
    )
    os.close(terminal)
    written = os.read(controller, 1 << 16).decode()
    os.close(controller)
    assert ran.returncode == 1
    assert written.startswith("Loading ") and "not now" in written


def test_a_library_writes_nothing_beside_the_result(passages: Path, loading: list[str]) -> None:
    for command, result in (
        (["prune", "-q", QUERY, "--top-k", "2", "--kept"], '{"text":'),
        (["index"], "5 chunks: 5 states made now"),
    ):
        ran = subprocess.run(
            [sys.executable, "-m", "at2_rag", *command, str(passages), *loading],
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert ran.stdout.startswith(result)
        assert re.fullmatch(r"(chunks: 5/5, \d+ s elapsed\n)?", ran.stderr)


# --- prune: what is wrong --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["prune", "--top-k", "1"], "Missing option '-q' / '--query'"),
        (["prune", "-q", " ", "--top-k", "1"], "--query is blank"),
        (["prune", "-q", "x", "--top-k", "1", "--prior", "rank"], "'rank' is not one of"),
        (["prune", "-q", "x", "--top-k", "0"], "--top-k is 0; pass an integer of at least 1"),
        (["prune", "-q", "x", "--top-k", "1", "--protect", "("], "is no regular expression"),
        (["prune", "-q", "x", "--top-k", "1", "--json", "--context"], "--json and --context"),
        (["prune", "-q", "x", "--show", "--context"], "--context and --show"),
        (
            ["prune", "-q", "x", "--kept", "--price", "1"],
            "--price and --kept can't be used together",
        ),
        (["index", ".", "--max-gb", "1e9"], "is 1000000000.0; pass a number below 1e+09"),
        (["index", ".", "--max-gb", "nan"], "'--max-gb': 'nan' is not a finite number"),
    ],
)
def test_usage_errors(arguments: list[str], part: str) -> None:
    ran = run(*arguments, input="A passage.")
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert part in ran.stderr.splitlines()[-1]
    assert ran.stderr.splitlines()[-1].startswith("Error: ")


def test_an_unusable_file_is_one_line_naming_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('"a"\n{"text": 1}')
    ran = prune("--top-k", "1", path)
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert ran.stderr.startswith(f"Error: {path}, line 2: chunk 1 has a text of type int")
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--model", "{tmp}"], "{tmp}"),
        (["--model", "{model}", "--revision", "main"], "revision is 'main'"),
        (["--model", "{model}", "--head-weights", "{tmp}"], "{tmp}"),
        (["--model", "{model}", "--head-weights", "blanced"], "joint, or"),
        (["--token-counter", "gpt-0"], "'gpt-0'"),
        (["--model", "{model}", "--head-weights", "uniform", "--device", "toaster"], "toaster"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(
    tmp_path: Path, model_folder: Path, options: list[str], part: str
) -> None:
    names = {"tmp": str(tmp_path), "model": str(model_folder)}
    ran = prune("--top-k", "1", *(o.format(**names) for o in options), input="A passage.")
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert ran.stderr.startswith("Error: ")
    assert len(ran.stderr.splitlines()) == 1
    assert part.format(**names) in ran.stderr


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
def test_a_terminal_as_standard_input_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    controller, terminal = os.openpty()
    with os.fdopen(terminal) as stdin, pytest.raises(SystemExit, match="2"):
        monkeypatch.setattr("sys.stdin", stdin)
        main(["prune", "-q", "x", "--top-k", "1"])
    os.close(controller)
    assert "standard input is a terminal" in capsys.readouterr().err
