"""Loading commands on use, plug-ins, and errors of one line."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import click
import pytest
from click.testing import CliRunner, Result

from at2_rag.cli.command_line import (
    LazyCommand,
    LazyGroup,
    command_without_places,
    verbose_option,
    without_place,
)
from at2_rag.errors import DataError

MODULES = {
    "lazy_good": """
        import click

        @click.command()
        @click.argument("name")
        def command(name):
            '''Greet NAME.'''
            click.echo(f"hello {name}")
        """,
    "lazy_broken": "import a_package_that_is_nowhere",
    "lazy_failing": "raise RuntimeError('two\\nlines')",
    "lazy_no_command": "command = 5",
}


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the import path with modules to load, and the metadata of a plug-in package."""
    for name, code in MODULES.items():
        (tmp_path / f"{name}.py").write_text(dedent(code))
    metadata = tmp_path / "some_plugin-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: some-plugin\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[test.commands]\ngreet = lazy_good:command\nlost = lazy_broken:command\n"
        "own = lazy_failing:command\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in MODULES:
        sys.modules.pop(name, None)


def group(**lazy: LazyCommand) -> LazyGroup:
    @click.group(cls=LazyGroup, lazy=lazy, plugins="test.commands")
    @verbose_option
    def main() -> None:
        """The group."""

    @main.command()
    @verbose_option
    def own() -> None:
        """A command of its own, which wins over the plug-in's."""
        logging.getLogger("at2_rag.some").warning("beware")
        logging.getLogger("at2_rag.some").debug("details")
        click.echo("own")

    @main.command()
    @verbose_option
    @click.argument("kind")
    def fail(kind: str) -> None:
        """Fail."""
        raise {
            "ours": DataError("a.jsonl, line 3:\n  no text"),
            "other": KeyError("x"),
            "click": click.UsageError("bad use"),
        }[kind]

    return main


def run(main: LazyGroup, *arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


# --- loading ---------------------------------------------------------------------------------


def test_the_list_of_commands_imports_none_of_them(modules: Path) -> None:
    main = group(
        good=LazyCommand("Greet someone.", "lazy_good:command"),
        broken=LazyCommand("Can't be imported.", "lazy_broken:command"),
    )
    shown = run(main, "--help")
    assert shown.exit_code == 0
    assert [line.split()[0] for line in shown.output.split("Commands:\n")[1].splitlines()] == [
        "broken",
        "fail",
        "good",
        "greet",
        "lost",
        "own",
    ]
    assert "Greet someone." in shown.output
    assert "Plug-in: lazy_good:command" in shown.output
    assert not set(MODULES) & set(sys.modules)


def test_a_lazy_command_runs_and_shows_its_own_help(modules: Path) -> None:
    main = group(good=LazyCommand("Greet someone.", "lazy_good:command"))
    assert run(main, "good", "you").output == "hello you\n"
    assert "Greet NAME." in run(main, "good", "--help").output
    assert run(main, "good").exit_code == 2


def test_a_plugin_command_runs(modules: Path) -> None:
    assert run(group(), "greet", "you").output == "hello you\n"


def test_a_lazy_command_without_target_is_found_among_the_plugins(modules: Path) -> None:
    main = group(greet=LazyCommand("Our line on it."))
    assert run(main, "greet", "you").output == "hello you\n"
    assert "Our line on it." in run(main, "--help").output


def test_own_commands_win_over_plugins(modules: Path) -> None:
    assert run(group(), "own").stdout == "own\n"


@pytest.mark.parametrize(
    ("name", "known", "parts"),
    [
        (
            "bad",
            LazyCommand("", "lazy_broken:command", "evals"),
            (
                "'bad' can't be loaded from lazy_broken:command (ModuleNotFoundError",
                "a_package_that_is_nowhere",
                'run: pip install "at2-rag[evals]"',
            ),
        ),
        (
            "bad",
            LazyCommand("", "lazy_failing:command"),
            ("(RuntimeError: two lines)", "reinstall at2-rag"),
        ),
        (
            "bad",
            LazyCommand("", "lazy_good:missing"),
            ("(AttributeError", "missing", "reinstall at2-rag"),
        ),
        ("bad", LazyCommand("", "lazy_no_command:command"), ("is a int, not a click command",)),
        (
            "absent",
            LazyCommand("", extra="evals"),
            ("'absent' is not installed", 'pip install "at2-rag[evals]"'),
        ),
        (
            "lost",
            LazyCommand("", extra="evals"),
            ("a_package_that_is_nowhere", 'pip install "at2-rag[evals]"'),
        ),
        (
            "lost",
            None,
            ("a_package_that_is_nowhere", "it comes from the package some-plugin: reinstall"),
        ),
    ],
)
def test_commands_that_cannot_be_loaded_say_what_to_install(
    modules: Path, name: str, known: LazyCommand | None, parts: tuple[str, ...]
) -> None:
    main = group(**({} if known is None else {name: known}))
    for arguments in ((name,), (name, "--help")):
        ran = run(main, *arguments)
        assert ran.exit_code == 1
        assert ran.stdout == ""
        assert len(ran.stderr.splitlines()) == 1
        for part in parts:
            assert part in ran.stderr
    assert run(main, "--help").exit_code == 0


def test_verbose_shows_why_a_command_cannot_be_loaded(modules: Path) -> None:
    ran = run(group(), "-v", "lost")
    assert ran.stderr.startswith("Traceback (most recent call last)")
    assert ran.stderr.splitlines()[-1].startswith("Error: the command 'lost' can't be loaded")


def test_unknown_commands_are_a_usage_error(modules: Path) -> None:
    ran = run(group(), "nothing")
    assert ran.exit_code == 2
    assert "No such command 'nothing'" in ran.stderr


# --- errors and logs -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "code", "message"),
    [
        ("ours", 1, "Error: a.jsonl, line 3: no text\n"),
        ("other", 1, "Error: KeyError: 'x'; at2-rag -v shows the traceback\n"),
    ],
)
def test_errors_are_one_line_on_stderr(kind: str, code: int, message: str) -> None:
    ran = run(group(), "fail", kind)
    assert (ran.exit_code, ran.stdout, ran.stderr) == (code, "", message)


def test_clicks_own_errors_stay_as_they_are() -> None:
    ran = run(group(), "fail", "click")
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert ran.stderr.startswith("Usage: main fail")
    assert ran.stderr.endswith("Error: bad use\n")


@pytest.mark.parametrize("arguments", [("-v", "fail"), ("fail", "-v"), ("fail", "--verbose")])
def test_verbose_shows_the_traceback_before_the_line(arguments: tuple[str, ...]) -> None:
    ran = run(group(), *arguments, "ours")
    assert ran.exit_code == 1
    assert ran.stderr.startswith("Traceback (most recent call last)")
    assert ran.stderr.endswith("Error: a.jsonl, line 3: no text\n")


def test_logs_go_to_stderr_and_details_need_verbose() -> None:
    logger = logging.getLogger("at2_rag")
    before = (logger.level, list(logger.handlers))
    quiet = run(group(), "own")
    assert (quiet.stdout, quiet.stderr) == ("own\n", "WARNING: beware\n")
    for arguments in (("-v", "own"), ("own", "-v")):
        verbose = run(group(), *arguments)
        assert (verbose.stdout, verbose.stderr) == (
            "own\n",
            "WARNING: beware\nDEBUG: details\n",
        )
    assert (logger.level, list(logger.handlers)) == before


@click.command(name="fit")
@click.argument("data", nargs=-1, type=click.Path())
@click.option("--model", "-m")
@click.option("--depth", multiple=True, type=int)
@click.option("--cache/--no-cache", default=True)
@click.option("--force", is_flag=True)
@click.option("--plain", "style", flag_value="plain")
@click.option("--rich", "style", flag_value="rich")
@click.option("--seed", default=0)
@verbose_option
@click.pass_context
def fit(context: click.Context, /, **_: object) -> None:
    """Show the command line."""
    click.echo(command_without_places(context), nl=False)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["-v", "{}/a.jsonl", "-m", "org/name"], "a.jsonl --model org/name"),
        (["{}/a b.jsonl", "{}/c.jsonl"], "'a b.jsonl' c.jsonl"),
        (["--depth", "2", "--depth", "3", "--force"], "--depth 2 --depth 3 --force"),
        (["--no-cache"], "--no-cache"),
        (["--cache"], "--cache"),
        (["--rich"], "--rich"),
        (["--model", "{}"], "--model PLACE"),
        (["~nobody-of-that-name/a.jsonl"], "'~nobody-of-that-name/a.jsonl'"),
        (["--model", "~nobody-of-that-name/x"], "--model '~nobody-of-that-name/x'"),
        (["--model", "x" * 5000], "--model " + "x" * 5000),
        (["--model", "a\0b"], "--model 'a\0b'"),
    ],
)
def test_the_command_line_is_told_without_places(
    arguments: list[str], shown: str, tmp_path: Path
) -> None:
    ran = CliRunner().invoke(fit, [part.format(tmp_path) for part in arguments])
    assert ran.exit_code == 0, ran.output
    assert ran.output == f"at2-rag fit {shown.replace('PLACE', tmp_path.name)}"


def test_texts_that_can_be_no_place_stay_as_they_are(tmp_path: Path) -> None:
    for text in ("~nobody-of-that-name/x", "x" * 5000, "a\0b", "nowhere/x"):
        assert without_place(text) == text
    assert without_place(str(tmp_path)) == tmp_path.name
