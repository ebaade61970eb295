"""The wheel, built offline: what is in it, and that it works by itself."""

from __future__ import annotations

import email
import email.message
import importlib
import re
import subprocess
import sys
import tomllib
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "at2_rag": "at2_rag",
    "langchain_at2_rag": "integrations/langchain_at2_rag",
    "llama_index_at2_rag": "integrations/llama_index_at2_rag",
    "haystack_integrations": "integrations/haystack_integrations",
    "mcp_at2_rag": "integrations/mcp_at2_rag",
    "at2_rag_evals": "evals/at2_rag_evals",
}
HAYSTACK = "haystack_integrations/components/rankers/at2_rag"
EXTRAS = {
    *("agents", "haystack", "langchain", "llama-index", "mcp", "ray", "server"),
    *("evals", "label", "train", "clients", "docs", "peers", "all", "dev"),
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    built = subprocess.run(
        [*command, str(ROOT)], capture_output=True, text=True, timeout=300, cwd=folder
    )
    assert built.returncode == 0, built.stdout + built.stderr
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.fixture(scope="module")
def metadata(wheel: Path, names: list[str]) -> email.message.Message:
    [name] = [name for name in names if name.endswith(".dist-info/METADATA")]
    with zipfile.ZipFile(wheel) as archive:
        return email.message_from_string(archive.read(name).decode())


def test_every_file_of_the_packages_is_in_it_and_nothing_else(names: list[str]) -> None:
    expected = {
        f"{package}/{path.relative_to(ROOT / folder).as_posix()}"
        for package, folder in PACKAGES.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if ".dist-info/" not in name} == expected
    typed = {name.removesuffix("/py.typed") for name in names if name.endswith("/py.typed")}
    assert typed == {*PACKAGES, HAYSTACK} - {"haystack_integrations"}
    assert "at2_rag/weights/best/head_weights.safetensors" in names
    assert "at2_rag_evals/qa/shipped_set/items.jsonl" in names


def test_extras(metadata: email.message.Message) -> None:
    assert set(metadata.get_all("Provides-Extra", [])) == EXTRAS
    required: dict[str, set[str]] = {}
    for line in metadata.get_all("Requires-Dist", []):
        match = re.match(r"([\w-]+)[^;]*(?:; extra == '([\w-]+)')?$", line)
        assert match, line
        required.setdefault(match[2] or "", set()).add(match[1])
    assert {"click", "safetensors", "torch", "transformers"} <= required[""]
    assert len(required[""]) <= 12
    assert required["langchain"] == {"langchain-core", "pydantic"}
    assert required["agents"] == {"langchain", "langchain-core", "pydantic"}
    assert required["mcp"] == {"mcp", "pydantic"}
    assert {"fastapi", "uvicorn", "prometheus-client", "opentelemetry-api"} <= required["server"]
    assert required["haystack"] == {"haystack-ai", "pydantic"}
    assert required["llama-index"] == {"llama-index-core", "pydantic"}
    users = [
        required[extra] for extra in EXTRAS - {"ray", "clients", "docs", "peers", "all", "dev"}
    ]
    assert required["all"] == set().union(*users)
    assert required["all"] | required["peers"] <= required["dev"]


def test_commands(wheel: Path, names: list[str]) -> None:
    [name] = [name for name in names if name.endswith(".dist-info/entry_points.txt")]
    parser = ConfigParser()
    with zipfile.ZipFile(wheel) as archive:
        parser.read_string(archive.read(name).decode())
    assert {section: dict(parser[section]) for section in parser.sections()} == {
        "console_scripts": {"at2-rag": "at2_rag.cli.group:main"},
        "at2_rag.commands": {
            "eval": "at2_rag_evals.cli:eval_group",
            "mcp": "mcp_at2_rag.cli:mcp_command",
            "ray": "at2_rag.ray.commands:ray_group",
        },
    }


def test_llamahub_lists_what_there_is() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listing = settings["tool"]["llamahub"]
    package = importlib.import_module(listing["import_path"])
    assert list(listing["class_authors"]) == package.__all__
    examples = [path.read_text(encoding="utf-8") for path in (ROOT / "examples").glob("*.py")]
    assert listing["contains_example"] is any(listing["import_path"] in text for text in examples)


def test_it_works_outside_of_the_source_tree(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    code = """
import importlib.metadata, importlib.util, sys
sys.path.insert(0, sys.argv[1])
import at2_rag, at2_rag.cli.group, at2_rag.readout.head_weights
assert at2_rag.__file__.startswith(sys.argv[1]), at2_rag.__file__
haystack = "haystack_integrations.components.rankers.at2_rag"
for name in (haystack, "langchain_at2_rag", "llama_index_at2_rag", "mcp_at2_rag"):
    assert importlib.util.find_spec(name).origin.startswith(sys.argv[1]), name
for name in at2_rag.readout.head_weights.shipped_names():
    at2_rag.HeadWeights.shipped(name)
assert importlib.metadata.version("at2-rag") == at2_rag.__version__
at2_rag.cli.group.main(["eval", "--help"])
"""
    installed = str(tmp_path / "installed")
    ran = subprocess.run(
        [sys.executable, "-c", code, installed],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
        env={"PYTHONPATH": installed, "PATH": ""},
    )
    assert ran.returncode == 0, ran.stderr
    assert "ranking" in ran.stdout
