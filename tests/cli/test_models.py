"""`at2-rag models` without a network and without the default model."""

from __future__ import annotations

import re
from pathlib import Path

from click.testing import CliRunner, Result

from at2_rag.cli.group import main


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["models", *arguments])


def test_list_and_path_without_a_cached_model() -> None:
    listed = run("list")
    assert listed.exit_code == 0
    assert re.search(r"smollm2-135m-instruct +\d+ MB +Apache-2\.0 +to fetch", listed.stdout)
    for arguments in ((), ("smollm2-135m-instruct",)):
        ran = run("path", *arguments)
        assert (ran.exit_code, ran.stdout) == (1, "")
        assert "run `at2-rag models pull smollm2-135m-instruct`" in ran.stderr
    unknown = run("path", "gpt-9")
    assert unknown.exit_code == 1
    assert "no built-in model 'gpt-9' (smollm2-135m-instruct)" in unknown.stderr


def test_pull_prints_the_folder(model_folder: Path) -> None:
    ran = run("pull", str(model_folder))
    assert (ran.exit_code, ran.stdout) == (0, f"{model_folder}\n")
    assert run("pull", str(model_folder), "--revision", "x").exit_code == 1
