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


@main.command(common=True)
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


@main.command("list", common=True)
@_input("--top-k", type=click.IntRange(min=1))
@click.option("--gap", type=int)
def list_command(top_k: int | None, gap: int | None) -> None:
    """Print two, of another common command."""
    click.echo(f"{top_k} {gap}")


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


def other(*arguments: str | Path, **variables: str) -> str:
    ran = run("more", "other", "--yes", *arguments, **variables)
    assert ran.exit_code == 0, ran.stderr
    return ran.stdout


def test_what_is_above_the_tables_is_for_common_commands_alone(config: Path) -> None:
    config.write_text("top_k = 1\ngap = 4\n[more.other]\nlimit = 2\n[list]\ntop_k = 3\n")
    assert other("--config", config) == "None 2\n"
    assert "'top_k': 1" in shown("--config", config)
    assert run("list", "--config", config).stdout == "3 4\n"


def test_plain_variables_are_for_common_commands_alone(config: Path) -> None:
    plain = {"AT2_RAG_TOP_K": "1", "AT2_RAG_LIMIT": "1"}
    assert other(**plain) == "None None\n"
    assert other(AT2_RAG_MORE_OTHER_TOP_K="2", AT2_RAG_MORE_OTHER_LIMIT="3", **plain) == "2 3\n"
    assert "'top_k': 1" in shown(**plain)
    assert "'top_k': 2" in shown(AT2_RAG_SHOW_TOP_K="2", **plain)
    assert "'top_k': 1" in shown(AT2_RAG_SHOW_TOP_K="", **plain)
    config.write_text("[show]\ntop_k = 5")
    assert "'top_k': 1" in shown("--config", config, **plain), "the environment over the file"
    result = run("more", "other", AT2_RAG_YES="1", AT2_RAG_MORE_OTHER_YES="1")
    assert result.exit_code == 1 and "Sure?" in result.stdout, "not answered by a variable"


def test_the_users_file_is_read_and_none_of_the_current_folder(
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
        ("order = 1", ": order is 1; pass a quoted string"),
        ("depth = [1, 'a']", ": depth is [1, 'a']; pass a list of integers"),
        ("prices = [1, 'a']", ": prices is [1, 'a']; pass a list of numbers"),
        ("files = [1]", ": files is [1]; pass a list of quoted strings"),
        (
            "folder = '~nobody-of-that-name/x'",
            ": folder is '~nobody-of-that-name/x', and there is no such home folder; write the",
        ),
        ("[show]\nfolder = '~nobody-of-that-name/x'", ": show.folder is '~nobody-of-that-name/x'"),
        ("top_k = 0", "'--top-k': 0 is not in the range x>=1. (from top_k in FILE)"),
        ("[show]\ntop-k = 0", "'--top-k': 0 is not in the range x>=1. (from show.top-k in FILE)"),
        ("order = 'best'", "(from order in FILE)"),
        (
            "top = 1",
            " has the key 'top', which is unknown (did you mean 'top_k'?); above the tables are "
            "options of exclusive, list, show, which their --help lists",
        ),
        ("x_y_z = 1", " has the key 'x_y_z', which is unknown; above the tables are options of ex"),
        (
            "[show]\ntop = 1",
            " in [show], which is unknown (did you mean 'top_k'?); `main show --help`",
        ),
        ("limit = 1", " has the key 'limit', where it sets nothing; put it into the table of its "),
        ("limit = 1", " command: [more.other]"),
        (
            "[show]\nlimit = 1",
            " has the key 'limit' in [show], which is unknown; `main show --help",
        ),
        ("gap = 1", ""),
        (
            "top-k = 1\ntop_k = 2",
            " has the keys 'top-k' and 'top_k', which are one option; keep one",
        ),
        ("[show]\ntop-k = 1\ntop_k = 1", " has the keys 'top-k' and 'top_k' in [show], which"),
        ("top-k = 1\n[show]\ntop_k = 1", ""),
        (
            "[sow]",
            " has the table [sow], which is unknown (did you mean 'show'?); `main --help` lists",
        ),
        ("[x_y_z]", " has the table [x_y_z], which is unknown; `main --help` lists the commands"),
        ("[more.another]", ""),
        ("[show.top_k]", " has the table [show.top_k], which is unknown; `main show` has none"),
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


def test_the_table_of_a_group_holds_tables_alone(config: Path) -> None:
    config.write_text("[more]\nlimit = 2\n")
    refused = run("more", "other", "--yes", "--config", config)
    assert f"{config} has the key 'limit' in [more], where it sets nothing; " in refused.stderr
    assert refused.stderr.endswith("put it into the table of its command: [more.other]\n")
    config.write_text("[more]\nlimt = 2\n")
    refused = run("more", "other", "--yes", "--config", config)
    assert "'limt' in [more], which is unknown; [more] holds tables alone" in refused.stderr
    config.write_text("[more.oter]\nlimit = 2\n")
    refused = run("more", "other", "--yes", "--config", config)
    assert (
        "[more.oter], which is unknown (did you mean 'other'?); `main more --he" in refused.stderr
    )


def test_an_error_names_the_variable() -> None:
    assert (
        "is not a valid integer range. (from AT2_RAG_TOP_K)"
        in run("show", AT2_RAG_TOP_K="x").stderr
    )
    ran = CliRunner().invoke(at2_rag, ["prune", "-q", "x"], env={"AT2_RAG_TOP_P": "7"})
    assert "--top-p is 7.0; pass a number above 0" in ran.stderr
    assert ran.stderr.endswith(" (from AT2_RAG_TOP_P)\n")
    mine = CliRunner().invoke(at2_rag, ["prune", "-q", "x"], env={"AT2_RAG_PRUNE_TOP_P": "7"})
    assert mine.stderr.endswith(" (from AT2_RAG_PRUNE_TOP_P)\n")
    missing = run("show", AT2_RAG_CONFIG="/nowhere.toml").stderr
    assert "File '/nowhere.toml' does not exist. (from AT2_RAG_CONFIG)" in missing


@pytest.mark.parametrize(
    ("page", "names", "expected"),
    [
        ("command-line.md", ["prune", "-q", "x"], {"max_tokens": 500, "order": "original"}),
        ("command-line.md", ["eval", "ranking", __file__], {"pad_to": (20, 50), "model": None}),
        ("command-line.md", ["eval", "qa", "--output", "x"], {"max_tokens": (), "top_k": ()}),
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


_EXCLUSIVE = ([("as_json",), ("text",)], [("speed", "price"), ("text",)])


@main.command(common=True, exclusive=_EXCLUSIVE)
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
        ("", {}, "--json --text", "--json and --text can't be used together; pass one."),
        ("json = true\n[exclusive]\ntext = true", {}, "", ["text"]),
        ("json = true\nprice = 1\n[exclusive]\ntext = true", {}, "", ["text"]),
        (
            "json = true\n[exclusive]\ntext = true\nspeed = 2",
            {},
            "",
            "--speed (from exclusive.speed",
        ),
        ("[exclusive]\ntext = true", {"JSON": "1"}, "", ["as_json"]),
        ("", {"JSON": "1", "EXCLUSIVE_TEXT": "1"}, "", ["text"]),
        (
            "[exclusive]\njson = true\ntext = true",
            {},
            "",
            "--json (from exclusive.json in FILE) and",
        ),
    ],
)
def test_the_stronger_of_two_that_exclude_each_other_counts(
    config: Path, file: str, variables: dict[str, str], options: str, set_names: list[str] | str
) -> None:
    config.write_text(file)
    env = {f"AT2_RAG_{name}": value for name, value in variables.items()}
    ran = run("exclusive", "--config", config, *options.split(), **env)
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


def shared_names(group: click.Command) -> dict[str, dict[str, set[str]]]:
    """Return what can be set for several commands at once -> type and arity -> commands."""
    shared: dict[str, dict[str, set[str]]] = {}
    for name, command in commands(group):
        for option in command.params if getattr(command, "common", False) else ():
            if isinstance(option, click.Option) or option.nargs != 1:
                kind = option.type.to_info_dict() | {"choices": getattr(option.type, "choices", 0)}
                arity = (option.nargs, getattr(option, "multiple", False), option.secondary_opts)
                kinds = shared.setdefault(max(option.opts, key=len), {})
                kinds.setdefault(f"{kind} {arity}", set()).add(name.removeprefix("at2-rag "))
    return shared


def test_a_shared_name_is_of_one_type_and_arity_in_all_commands_that_share_it() -> None:
    shared = shared_names(at2_rag)
    on_ray = {"ray serve", "ray index"}
    folders = {"prune", "index", "mcp", "serve", "cache info", "cache clear"} | on_ray
    assert list(shared["--chunk-cache"].values()) == [folders]
    assert list(shared["--model"].values()) == [{"prune", "index", "mcp", "serve"} | on_ray]
    assert list(shared["--top-k"].values()) == [{"prune", "serve", "ray serve"}]
    assert {name for name, kinds in shared.items() if len(kinds) > 1} == set()


@pytest.mark.parametrize(
    "option", [{"type": float}, {"multiple": True}, {"nargs": 2}, {"type": click.IntRange(min=1)}]
)
def test_the_rule_for_shared_names_can_fail(option: dict[str, Any]) -> None:
    parameters = [click.Option(["--n"], type=int), click.Option(["--n"], **{"type": int} | option)]
    several = [
        Command(name, params=[parameter], common=True)
        for name, parameter in zip("ab", parameters, strict=True)
    ]
    assert len(shared_names(click.Group(commands=several))["--n"]) == 2


def test_every_variable_sets_one_option() -> None:
    options: dict[str, set[str]] = {}
    for name, command in commands(at2_rag):
        for option in command.params:
            flag = max(option.opts, key=len)
            if not isinstance(option, click.Option) or flag in ("--yes", "--all", "--config"):
                continue
            key = flag[1:].replace("-", "_").upper()
            plain, path = f"AT2_RAG{key}", re.sub("[ -]", "_", name).upper()
            options.setdefault(f"{path}{key}", set()).add(f"{name} {flag}")
            if command.common:  # type: ignore[attr-defined]
                options.setdefault(plain, set()).add(f"common {flag}")
    assert {"AT2_RAG_MAX_TOKENS", "AT2_RAG_EVAL_QA_TOP_K", "AT2_RAG_TRAIN_LIMIT"} < set(options)
    assert "AT2_RAG_TRAIN" not in options and "AT2_RAG_LIMIT" not in options
    assert "AT2_RAG_CACHE" not in options, "the folder of models and states"
    assert "AT2_RAG_CONFIG" not in options
    assert {name: several for name, several in options.items() if len(several) > 1} == {}


@pytest.mark.parametrize(
    ("command", "plain"),
    [
        ("eval trimming FILE", {"MULTI_HOP": "1", "MIN_PROBABILITY": "2"}),
        ("eval qa --output x", {"TOP_K": "0", "MAX_TOKENS": "x", "MAX_MISSED": "7", "ORDER": "z"}),
        ("calibrate FILE --output x", {"PRIOR": "order", "MULTI_HOP": "x"}),
        ("train FILE --output x", {"READING": "x", "FOLDS": "1", "LIMIT": "0"}),
    ],
)
def test_what_is_set_for_prune_alters_no_other_command(command: str, plain: dict[str, str]) -> None:
    """Values that the others would refuse, or take for something else."""
    words = command.replace("FILE", __file__).split()
    names = words[: 2 if words[0] == "eval" else 1]
    judged = dict(commands(at2_rag))[f"at2-rag {' '.join(names)}"]
    context = click.Context(at2_rag)
    for name in names[:-1]:
        context = click.Context(click.Group(name), info_name=name, parent=context)

    def parameters() -> dict[str, Any]:
        return judged.make_context(names[-1], words[len(names) :], parent=context).params

    with pytest.MonkeyPatch.context() as patch:
        bare = parameters()
        for key, value in plain.items():
            patch.setenv(f"AT2_RAG_{key}", value)
        assert parameters() == bare
        for key, value in plain.items():
            variable = "_".join(["AT2_RAG", *names, key]).upper()
            patch.setenv(variable, value)
            with pytest.raises(click.BadParameter, match=f"from {variable}"):
                parameters()
            patch.delenv(variable)


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
