"""What results say about the code they come from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import at2_rag
from at2_rag_evals import provenance


def test_the_version_of_code_is_its_last_commit_and_what_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    package.mkdir()
    monkeypatch.setattr(provenance, "_PACKAGE", package)

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def version() -> str:
        return provenance.code_version.__wrapped__(package)

    (package / "__init__.py").write_text("x = 1\n")
    assert version() == at2_rag.__version__
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    clean = f"{at2_rag.__version__}+{git('rev-parse', 'HEAD')}"
    assert version() == clean
    (tmp_path / "README.md").write_text("not code")
    git("add", ".")
    git("commit", "-qm", "second")
    assert version() == clean
    versions = {clean}
    for name in ("__init__.py", "new.py"):
        (package / name).write_text("x = 2\n")
        assert version().startswith(f"{clean}.dirty-")
        versions.add(version())
    assert len(versions) == 3


def test_versions_of_packages_are_named() -> None:
    versions = provenance.package_versions()
    assert {"python", "at2-rag", "numpy", "torch", "transformers"} <= versions.keys()
