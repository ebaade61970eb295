"""Options from the environment and from a file: which wins, and what is refused."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from at2_rag.cli.command_line import Command, Group, headed, verbose_option
from at2_rag.cli.group import main as at2_rag
from tests.docs.pages import blocks

_input, _output = headed("Input"), headed("Output")


@click.group(cls=Group)
def main() -> None:
    """The root."""


@main.command()
@click.argument("files", nargs=-1)
@_input("--top-k", type=click.IntRange(min=1))
@_input("--share", type=float, default=0.5)
@_output("--json", "as_json", is_flag=True)
@_input("--order", type=click.Choice(["score", "original"]), default="score")
@_input("--hop/--no-hop", default=None)
@_input("--depth", "depths", multiple=True, type=int)
@_input("--prices", nargs=2, type=float)
@_input("--folder", type=click.Path(path_type=Path))
@verbose_option
def show(**values: Any) -> None:
    """Print what is set."""
    values["as_json"] = values["as_json"] or None
    click.echo({name: values[name] for name in sorted(values) if values[name] not in (None, ())})


@main.group(cls=Group)
def more() -> None:
    """More."""


@more.command("other")
@click.option("--top-k", type=int)
@click.option("--limit", type=int)
@click.confirmation_option("--yes", prompt="Sure?")
def other_command(top_k: int | None, limit: int | None) -> None:
    """Print two."""
    click.echo(f"{top_k} {limit}")


def run(*arguments: str | Path, **variables: str) -> Result:
    words = [str(argument) for argument in arguments]
    return CliRunner().invoke(main, words, env={"AT2_RAG_CONFIG": "", **variables})


def shown(*arguments: str | Path, **variables: str) -> str:
    ran = run("show", *arguments, **variables)
    assert ran.exit_code == 0, ran.stderr
    return ran.stdout


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "my.toml"


def test_the_command_line_wins_over_the_environment_over_the_file(config: Path) -> None:
    config.write_text("top_k = 3\nshare = 0.25\n[show]\norder = 'original'\n")
    file, variable = ("--config", config), {"AT2_RAG_TOP_K": "4"}
    assert shown() == "{'order': 'score', 'share': 0.5}\n"
    assert shown(*file) == "{'order': 'original', 'share': 0.25, 'top_k': 3}\n"
    assert "'share': 0.25, 'top_k': 4" in shown(*file, **variable)
    assert "'top_k': 5" in shown(*file, "--top-k", "5", **variable)
    assert "'top_k': 3" in shown(*file, AT2_RAG_TOP_K="")
    assert "'top_k': 3" in shown(AT2_RAG_CONFIG=str(config))


def test_every_kind_of_option(config: Path) -> None:
    everything = {
        "files": ("['a', 'b']", None),
        "top-k": ("2", "2"),
        "json": ("true", "1"),
        "hop": ("false", "0"),
        "depth": ("[1, 2]", "1 2"),
        "prices": ("[1, 2.5]", "1 2.5"),
        "folder": ("'~/x'", str(config.parent / "home" / "x")),
    }
    config.write_text("".join(f"{key} = {value}\n" for key, (value, _) in everything.items()))
    variables = {
        f"AT2_RAG_{key.replace('-', '_').upper()}": value
        for key, (_, value) in everything.items()
        if value is not None
    }
    options = ["--top-k", "2", "--json", "--no-hop", "--depth", "1", "--depth", "2"]
    options += ["--prices", "1", "2.5", "--folder", str(config.parent / "home" / "x")]
    expected = shown("a", "b", *options)
    assert "'as_json': True, 'depths': (1, 2)" in expected and "'hop': False" in expected
    assert shown("--config", config) == shown("a", "b", **variables) == expected


def test_tables_of_groups_and_commands(config: Path) -> None:
    config.write_text("top_k = 1\nlimit = 1\n[more]\nlimit = 2\n[more.other]\ntop_k = 3\n")
    ran = run("more", "other", "--yes", "--config", config)
    assert ran.stdout == "3 2\n"
    assert "'top_k': 1" in shown("--config", config)
    asked = run("more", "other", AT2_RAG_YES="1")
    assert asked.exit_code == 1 and "Sure?" in asked.stdout, "not answered by a variable"


def test_the_users_own_file_is_read_and_none_of_the_current_folder(
    config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if sys.platform != "linux":
        pytest.skip("the folder is another one")
    monkeypatch.chdir(tmp_path)
    for name in ("at2-rag.toml", "at2_rag.toml", "config.toml", "~/.config/at2_rag/config.toml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("top_k = 9")
    assert "top_k" not in shown()
    user_file = tmp_path / "xdg" / "at2_rag" / "config.toml"
    user_file.parent.mkdir(parents=True)
    user_file.write_text("top_k = 7")
    assert "'top_k': 7" in shown()
    config.write_text("share = 0.125")
    assert shown("--config", config) == "{'order': 'score', 'share': 0.125}\n", "it alone"
    assert "top_k" not in shown("--config", os.devnull)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("top_k = 'three'", ": top_k is 'three'; pass an integer"),
        ("top_k = 1.0", ": top_k is 1.0; pass an integer"),
        ("top_k = true", ": top_k is True; pass an integer"),
        ("[show]\ntop_k = [1]", ": show.top_k is [1]; pass an integer"),
        ("share = '1'", ": share is '1'; pass a number"),
        ("json = 'yes'", ": json is 'yes'; pass true or false"),
        ("order = 1", ": order is 1; pass a text in quotes"),
        ("depth = [1, 'a']", ": depth is [1, 'a']; pass a list, each an integer"),
        ("top_k = 0", "'--top-k': 0 is not in the range x>=1. (from top_k in FILE)"),
        ("order = 'best'", "(from order in FILE)"),
        (
            "top = 1",
            " has the key 'top', which is unknown; the known ones are depth, files, folder, hop, "
            "json, limit, order, prices, share, top_k, verbose",
        ),
        ("[show]\nlimit = 1", " has the key 'limit' in [show], which is unknown; the known ones"),
        ("[sow]\ntop_k = 1", " has the table [sow], which is unknown; the known ones are more, s"),
        ("[more.another]", ""),
        ("[show.top_k]", " has the table [show.top_k], which is unknown"),
        ("config = 'x'", " has the key 'config', which is unknown"),
        ("yes = true", " has the key 'yes', which is unknown"),
        ("top_k = ", " can't be read as TOML: "),
        ("top_k = '\udcff'", " can't be read as TOML: "),
    ],
)
def test_what_a_file_may_not_say(config: Path, text: str, part: str) -> None:
    config.write_bytes(text.encode(errors="surrogateescape"))
    ran = run("show", "--config", config)
    assert ran.exit_code == (2 if part else 0)
    assert not part or ran.stdout == ""
    assert part.replace("FILE", str(config)) in ran.stderr
    assert "Traceback" not in ran.stderr


def test_an_error_names_the_variable() -> None:
    assert (
        "is not a valid integer range. (from AT2_RAG_TOP_K)"
        in run("show", AT2_RAG_TOP_K="x").stderr
    )
    ran = CliRunner().invoke(at2_rag, ["prune", "-q", "x"], env={"AT2_RAG_TOP_P": "7"})
    assert "--top-p is 7.0; pass a number above 0" in ran.stderr
    assert ran.stderr.endswith(" (from AT2_RAG_TOP_P)\n")
    missing = run("show", AT2_RAG_CONFIG="/nowhere.toml").stderr
    assert "File '/nowhere.toml' does not exist. (from AT2_RAG_CONFIG)" in missing


@pytest.mark.parametrize(
    ("page", "names", "expected"),
    [
        ("command-line.md", ["prune", "-q", "x"], {"max_tokens": 500, "order": "original"}),
        ("command-line.md", ["eval", "ranking", __file__], {"pad_to": (20, 50)}),
        ("evals.md", ["eval", "qa"], {"top_k": (1, 3), "generators": ("default",)}),
    ],
)
def test_the_files_in_the_docs_are_taken(
    config: Path, page: str, names: list[str], expected: dict[str, Any]
) -> None:
    toml = next(block.code for block in blocks(f"docs/{page}") if block.language == "toml")
    config.write_text(re.sub(r"files = .*", "files = []", toml))  # they would have to exist
    context = click.Context(at2_rag, info_name="at2-rag")
    words = [*names, "--config", str(config)]
    while isinstance(context.command, click.Group):
        name = words.pop(0)
        command = context.command.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            context = click.Context(command, info_name=name, parent=context)
        else:
            context = command.make_context(name, words, parent=context)
    assert {name: context.params[name] for name in expected} == expected


@click.command(cls=Command, exclusive=([("as_json",), ("text",)], [("speed", "price"), ("text",)]))
@click.option("--json", "as_json", is_flag=True)
@click.option("--text", is_flag=True)
@click.option("--speed", type=int)
@click.option("--price", type=float)
def exclusive(**values: Any) -> None:
    """Print what is set."""
    names = (name for name, value in values.items() if value is not None and value is not False)
    click.echo(sorted(names))


@pytest.mark.parametrize(
    ("file", "variables", "options", "set_names"),
    [
        ("json = true", {}, "--text", ["text"]),
        ("json = true", {"TEXT": "1"}, "", ["text"]),
        ("json = true", {"JSON": "0"}, "", []),
        ("json = true\nprice = 0.0", {}, "--text", ["text"]),
        ("text = true", {}, "--price 0", ["price"]),
        ("text = true\nspeed = 1", {}, "--price 1", ["price", "speed"]),
        ("json = true\nprice = 1", {}, "", ["as_json", "price"]),
        ("", {"TEXT": "1", "SPEED": "1"}, "", "--speed (from AT2_RAG_SPEED) and --text (from"),
        ("json = true\ntext = true", {}, "", "--json (from json in FILE) and --text (from text in"),
        ("", {}, "--json --text", "--json and --text exclude each other; pass one of them."),
    ],
)
def test_the_stronger_of_two_that_exclude_each_other_counts(
    config: Path, file: str, variables: dict[str, str], options: str, set_names: list[str] | str
) -> None:
    config.write_text(file)
    env = {f"AT2_RAG_{name}": value for name, value in variables.items()}
    ran = CliRunner().invoke(exclusive, ["--config", str(config), *options.split()], env=env)
    if isinstance(set_names, str):
        assert ran.exit_code == 2
        assert set_names.replace("FILE", str(config)) in ran.stderr
    else:
        assert (ran.stdout, ran.stderr) == (f"{set_names}\n", "")


def commands(group: click.Command, name: str = "at2-rag") -> Iterator[tuple[str, click.Command]]:
    if isinstance(group, click.Group):
        context = click.Context(group)
        for each in group.list_commands(context):
            command = group.get_command(context, each)
            assert command is not None
            yield from commands(command, f"{name} {each}")
    else:
        yield name, group


def test_every_option_of_every_command_has_one_variable() -> None:
    names = set()
    for name, command in commands(at2_rag):
        for option in command.params:
            flag = max(option.opts, key=len)
            if not isinstance(option, click.Option) or flag in ("--yes", "--all"):
                assert option.envvar is None
                continue
            assert option.envvar == "AT2_RAG" + flag[1:].replace("-", "_").upper(), (name, flag)
            names.add(option.envvar)
    assert {"AT2_RAG_MAX_TOKENS", "AT2_RAG_CONFIG", "AT2_RAG_VERBOSE", "AT2_RAG_HTML"} < names
    assert "AT2_RAG_CACHE" not in names, "the folder of models and states"


def test_help_has_the_options_under_headings() -> None:
    ran = run("show", "--help")
    assert ran.exit_code == 0
    lines = [line for line in ran.stdout.splitlines() if line and line[0] != " "]
    assert [line for line in lines[1:]] == ["Input:", "Output:", "Other options:"]
    assert ran.stdout.index("Input:") < ran.stdout.index("--order") < ran.stdout.index("Output:")
    assert ran.stdout.index("Output:") < ran.stdout.index("--json") < ran.stdout.index("Other")
    for line in run("more", "other", "--help").stdout.splitlines():
        assert line != "Other options:"


@pytest.mark.parametrize(
    ("words", "completions"),
    [
        ("at2-rag pru", ["plain,prune"]),
        ("at2-rag prune --max-t", ["plain,--max-tokens"]),
        ("at2-rag eval qa --pruner at2_ad", ["plain,at2_adaptive"]),
    ],
)
def test_shells_complete_words(words: str, completions: list[str], tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("=")
    variables = {
        "_AT2_RAG_COMPLETE": "bash_complete",
        "AT2_RAG_CONFIG": str(broken),
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    command = [sys.executable, "-m", "at2_rag"]
    ran = subprocess.run(
        command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=100
    )
    assert (ran.stdout.splitlines()[:1], ran.stderr) == (completions, "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_get_a_script(shell: str) -> None:
    command = [sys.executable, "-m", "at2_rag"]
    env = {**os.environ, "_AT2_RAG_COMPLETE": f"{shell}_source"}
    ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0 and f"_AT2_RAG_COMPLETE={shell}_complete" in ran.stdout
    if shutil.which(shell):
        check = subprocess.run([shell, "-n"], input=ran.stdout, text=True, timeout=100)
        assert check.returncode == 0
