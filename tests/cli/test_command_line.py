"""Plug-ins, errors of one line, logs, and command lines for records."""

from __future__ import annotations

import importlib
import logging
import re
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from at2_rag.cli.command_line import (
    PLUGINS,
    Command,
    CommandGroup,
    command_without_folders,
    verbose_option,
)
from at2_rag.cli.group import main as at2_rag
from at2_rag.errors import DataError
from at2_rag.files import without_folder

MODULES = {
    "plugin_good": """
import click

@click.command()
@click.argument("name")
def command(name):
    '''Greet NAME.'''
    click.echo(f"hello {name}")
""",
    "plugin_broken": "import a_package_that_is_nowhere",
    "plugin_no_command": "command = 5",
}


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put plug-ins of two packages on the import path, one of them called at2-rag."""
    for name, code in MODULES.items():
        (tmp_path / f"{name}.py").write_text(code)
    for package, entries in {
        "some-plugin": "greet = plugin_good:command\nlost = plugin_broken:command\n"
        "odd = plugin_no_command:command\nlog = plugin_good:command\n",
        "at2-rag": "eval = plugin_broken:command\n",
    }.items():
        metadata = tmp_path / f"{package.replace('-', '_')}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
        (metadata / "entry_points.txt").write_text(f"[{PLUGINS}]\n{entries}")
    monkeypatch.syspath_prepend(str(tmp_path))


@click.group(cls=CommandGroup)
@verbose_option
def main() -> None:
    """The group."""


@main.command()
@verbose_option
def log() -> None:
    """A command of the group, which wins over the plug-in's."""
    logging.getLogger("at2_rag.some").warning("beware")
    logging.getLogger("at2_rag.some").debug("details")
    click.echo("logged")


@main.command()
@verbose_option
@click.argument("kind")
def fail(kind: str) -> None:
    """Fail."""
    raise {
        "ours": DataError("a.jsonl, line 3:\n  no text"),
        "other": KeyError("x"),
        "click": click.UsageError("bad use"),
        "steer": DataError("\x1b[31mred\x9b2J\x7f"),
    }[kind]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_plugins_are_listed_and_run(plugins: None) -> None:
    shown = run("--help")
    assert shown.exit_code == 0
    names = [line.split()[0] for line in shown.output.split("Commands:\n")[1].splitlines()]
    assert names == ["eval", "fail", "greet", "log", "lost", "odd"]
    assert "Greet NAME." in shown.output
    assert run("greet", "you").output == "hello you\n"
    assert run("log").stdout == "logged\n"
    assert run("nothing").exit_code == 2


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("lost", ("a_package_that_is_nowhere", "reinstall or remove the package some-plugin")),
        ("odd", ("is a int, not a click command",)),
        (
            "eval",
            (
                "'eval' can't be loaded from plugin_broken:command (ModuleNotFoundError",
                'run: pip install "at2-rag[evals]"',
            ),
        ),
    ],
)
def test_a_plugin_that_cannot_be_loaded_says_what_to_install(
    plugins: None, name: str, parts: tuple[str, ...]
) -> None:
    for arguments in ((name,), (name, "--help"), (name, "more", "--odd")):
        ran = run(*arguments)
        assert (ran.exit_code, ran.stdout) == (1, "")
        assert len(ran.stderr.splitlines()) == 1
        for part in parts:
            assert part in ran.stderr
    assert run("-v", name).stderr.startswith("Traceback (most recent call last)")


def test_a_command_whose_packages_are_missing_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)

    @main.command("train")
    def train() -> None:
        importlib.import_module("scipy")

    ran = run("train")
    main.commands.pop("train")
    assert ran.exit_code == 1
    message = ran.stderr.splitlines()[-1]
    assert message.startswith("Error: ModuleNotFoundError: import of scipy halted")
    assert message.endswith('; run: pip install "at2-rag[train]"')


@pytest.mark.parametrize(
    ("kind", "code", "message"),
    [
        ("ours", 1, "Error: a.jsonl, line 3: no text"),
        ("other", 1, "Error: KeyError: 'x'; at2-rag -v shows the traceback"),
        ("click", 2, "Error: bad use"),
    ],
)
def test_errors_are_one_line_on_stderr(kind: str, code: int, message: str) -> None:
    ran = run("fail", kind)
    assert (ran.exit_code, ran.stdout, ran.stderr.splitlines()[-1]) == (code, "", message)
    assert code == 2 or ran.stderr == f"{message}\n"


def test_messages_do_not_steer_the_terminal(tmp_path: Path) -> None:
    """Whatever a file's name, a file or a library puts into them."""
    path = tmp_path / "\x1b[31m\u202e.jsonl"
    path.write_text('{"text": 5}')
    (tmp_path / "\x1b]0;link").symlink_to("nowhere")
    (tmp_path / "\x1b]0;out").symlink_to(__file__)
    (tmp_path / "\x1b]0;bytes").write_bytes(b"\xff")
    prune = ("prune", "-q", "x", "--top-k", "1")
    for group, arguments in (
        (at2_rag, ("-v", *prune, str(path))),
        (at2_rag, (*prune, str(tmp_path))),
        (at2_rag, (*prune, f"{path}\x9b")),
        (main, ("fail", "steer")),
    ):
        ran = CliRunner().invoke(group, arguments)
        assert ran.exit_code in (1, 2)
        assert "\ufffd" in ran.stderr or "\\x1b" in ran.stderr, "as click writes a path"
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", ran.stderr)


@pytest.mark.parametrize("arguments", [("-v", "fail"), ("fail", "--verbose")])
def test_verbose_shows_the_traceback_before_the_line(arguments: tuple[str, ...]) -> None:
    ran = run(*arguments, "ours")
    assert ran.exit_code == 1
    assert ran.stderr.startswith("Traceback (most recent call last)")
    assert ran.stderr.endswith("Error: a.jsonl, line 3: no text\n")


def test_logs_go_to_stderr_and_details_need_verbose() -> None:
    logger = logging.getLogger("at2_rag")
    before = (logger.level, list(logger.handlers))
    assert run("log").stderr == "WARNING: beware\n"
    for arguments in (("-v", "log"), ("log", "-v")):
        assert run(*arguments).stderr == "WARNING: beware\nDEBUG: details\n"
    assert (logger.level, list(logger.handlers)) == before


@click.command(name="fit", cls=Command)
@click.argument("data", nargs=-1, type=click.Path())
@click.option("--model", "-m")
@click.option("--depth", multiple=True, type=int)
@click.option("--states/--no-states", default=True)
@click.option("--force", is_flag=True)
@click.option("--seed", default=0)
@verbose_option
@click.pass_context
def fit(context: click.Context, /, **_: object) -> None:
    """Show the command line."""
    click.echo(command_without_folders(context), nl=False)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["-v", "{}/a.jsonl", "-m", "org/name"], "a.jsonl --model org/name"),
        (["{}/a b.jsonl", "{}/c.jsonl"], "'a b.jsonl' c.jsonl"),
        (["--depth", "2", "--depth", "3", "--force"], "--depth 2 --depth 3 --force"),
        (["--no-states"], "--no-states"),
        (["--model", "{}"], "--model PLACE"),
        (["--model", "a\0b"], "--model 'a\0b'"),
        (["--config", "{}/c.toml"], "--model org/name --depth 4 --no-states --seed 7"),
        (["--config", "{}/c.toml", "--states"], "--model org/name --depth 4 --states --seed 7"),
    ],
)
def test_the_recorded_command_line_has_no_places(
    arguments: list[str], shown: str, tmp_path: Path
) -> None:
    tmp_path.joinpath("c.toml").write_text(
        "model = 'org/name'\ndepth = 4\nstates = false\nforce = false\nseed = 7\n"
    )
    ran = CliRunner().invoke(fit, [part.format(tmp_path) for part in arguments])
    assert ran.exit_code == 0, ran.output
    assert ran.output == f"at2-rag fit {shown.replace('PLACE', tmp_path.name)}"


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "1e999"])
@pytest.mark.parametrize(
    "words",
    [
        "prune -q x --price",
        "prune -q x --tokens-per-second",
        "index FILE --max-gb",
        "eval trimming FILE --share",
        "eval qa --output x --timeout",
    ],
)
def test_numbers_are_finite(words: str, number: str) -> None:
    ran = CliRunner().invoke(at2_rag, [*words.replace("FILE", __file__).split(), number])
    assert ran.exit_code == 2 and f"Invalid value for '{words.split()[-1]}': " in ran.stderr
    assert "is not a finite number" in ran.stderr or "is not in the range" in ran.stderr


def test_texts_that_are_no_files_stay_as_they_are(tmp_path: Path) -> None:
    for text in ("~nobody-of-that-name/x", "x" * 5000, "a\0b", "nowhere/x"):
        assert without_folder(text) == text
    assert without_folder(str(tmp_path)) == tmp_path.name
