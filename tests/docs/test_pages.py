"""Every code block of the README and the docs does what the page says."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import at2_rag
from at2_rag import PruneOptions
from at2_rag.cli.group import main
from at2_rag.model.cache import cache_dir
from at2_rag.model.hub import DEFAULT_MODEL, resolve_model
from tests.docs.pages import PAGES, ROOT, Block, blocks, quick_commands, same_output

PROGRAMS = {"at2-rag", "python", "pip", "git", "cd"}
NEEDS = {"docs/dspy.md": "dspy"}
"""What the code of a page needs that is too heavy (litellm, 200 MB) for developing at2_rag."""


@pytest.fixture
def reader_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A reader's folder, in which the files are that the pages name; the current one."""
    passages = [
        {"title": "Europa", "text": "Europa is covered by ice, with an ocean beneath."},
        {"title": "Io", "text": "Io has active volcanoes: Jupiter's tides heat its interior."},
        {"title": "Vesuvius", "text": "Vesuvius is a volcano that buried Pompeii in 79."},
        {"title": "Ganymede", "text": "Ganymede, a moon of Jupiter, is larger than Mercury."},
    ]
    lines = "".join(json.dumps(passage) + "\n" for passage in passages)
    (tmp_path / "passages.jsonl").write_text(lines)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "corpus").mkdir()
    for passage in passages:
        (tmp_path / "corpus" / f"{passage['title']}.txt").write_text(passage["text"])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of at2-rag with what is in the user's, but without chunk states."""
    resolve_model(DEFAULT_MODEL)  # fetched into the user's cache, if it isn't there
    folder = tmp_path / "at2-rag-cache"
    folder.mkdir()
    for path in cache_dir().iterdir():
        if path.name != "chunk_states":
            (folder / path.name).symlink_to(path)
    monkeypatch.setenv("AT2_RAG_CACHE", str(folder))


@pytest.fixture
def model_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loads the default model once for all pages."""
    monkeypatch.setattr(at2_rag.LoadedModel, "from_pretrained", staticmethod(_LOAD_ONCE))


_LOAD_ONCE = cache(at2_rag.LoadedModel.from_pretrained)


def _python(page: str) -> Iterator[tuple[Block, dict[str, Any]]]:
    """Yield the Python blocks; those of a page of the docs go on where the one before ended."""
    namespace: dict[str, Any] = {}
    for block in blocks(page):
        if block.language == "python":
            yield block, ({} if page == "README.md" else namespace)


@pytest.mark.default_model
@pytest.mark.parametrize("page", [page for page in PAGES if any(_python(page))])
@pytest.mark.usefixtures("reader_folder", "empty_cache", "model_once")
def test_python_blocks_print_what_follows_them(page: str) -> None:
    if page in NEEDS:
        pytest.importorskip(NEEDS[page])
    for block, namespace in _python(page):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block.code, page, "exec", dont_inherit=True), namespace)
        assert same_output(block.output or "", printed.getvalue()), (
            f"{page}:\n{block.code}\nprinted\n{printed.getvalue()}"
        )


@pytest.mark.default_model
@pytest.mark.parametrize("page", [page for page in PAGES if quick_commands(page)])
@pytest.mark.usefixtures("reader_folder", "empty_cache", "model_once")
def test_quick_commands_print_what_follows_them(page: str) -> None:
    for block, (_, *arguments) in quick_commands(page):
        result = CliRunner().invoke(main, arguments, env={"COLUMNS": "80"})
        assert result.exit_code == 0, f"{page}: {arguments}\n{result.output}"
        if block.output is not None:
            assert same_output(block.output, result.stdout), f"{page}\n{result.stdout}"


@pytest.mark.parametrize("page", PAGES)
def test_console_blocks_hold_commands_that_exist(page: str) -> None:
    for block in blocks(page):
        if block.language == "console":
            assert block.commands, f"{page}: a console block without a command:\n{block.code}"
        for program, *_ in block.commands:
            assert program in PROGRAMS or os.access(ROOT / program, os.X_OK), program


@pytest.mark.parametrize("page", PAGES)
def test_data_blocks_parse_and_no_block_escapes(page: str) -> None:
    for block in blocks(page):
        match block.language:
            case "json":
                json.loads(block.code)
            case "toml":
                tomllib.loads(block.code)
            case language:
                assert language in ("python", "console", "text"), f"{page}: {block}"


@pytest.mark.default_model
@pytest.mark.usefixtures("empty_cache", "model_once")
def test_the_demo_prints_what_the_readme_says() -> None:
    (demo,) = (block for block in blocks("README.md") if ["scripts/demo"] in block.commands)
    assert demo.output is not None
    script = (ROOT / "scripts" / "demo").read_text().replace("\\\n", " ")
    [command] = re.findall(r'exec "\$bin/at2-rag" (.*) "\$@"', script)
    arguments = shlex.split(command.replace("$root", str(ROOT)))
    result = CliRunner().invoke(main, arguments, env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    assert same_output(demo.output, result.stdout), result.stdout


@pytest.mark.parametrize("page", ["README.md", "docs/how-much-to-keep.md"])
def test_options_in_tables_are_options(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    calls = re.findall(r"^\|(?: [^|`]+ \|)? `(\w+=[^`]+)` \|", text, re.MULTILINE)
    assert calls
    for call in calls:
        PruneOptions(**eval(f"dict({call})"))


def test_the_readme_stays_short() -> None:
    text = (ROOT / "README.md").read_bytes()
    assert len(text) < 9_000
    assert text.count(b"\n") < 200


def test_local_links_lead_somewhere() -> None:
    for page in ("README.md", "evals/README.md", "examples/README.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"


def test_every_public_name_is_in_the_reference() -> None:
    reference = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^::: at2_rag\.(\w+)$", reference, re.MULTILINE))
    assert documented == set(at2_rag.__all__) - {"__version__"}


def test_every_option_is_on_the_page_about_options() -> None:
    pages = ("how-much-to-keep.md", "multi-hop.md", "sentences.md")
    text = "".join((ROOT / "docs" / page).read_text(encoding="utf-8") for page in pages)
    for option in fields(PruneOptions):
        assert f"`{option.name}" in text, option.name
