"""What results come from: versions, commit, and hashes of files."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import at2_rag

PACKAGES = (
    "PyStemmer",
    "bm25s",
    "ir-measures",
    "langchain-classic",
    "langchain-community",
    "llama-index-core",
    "llmlingua",
    "numpy",
    "pytrec-eval-terrier",
    "scikit-learn",
    "scipy",
    "sentence-transformers",
    "tokenizers",
    "torch",
    "transformers",
)
_PACKAGE = Path(at2_rag.__file__).resolve().parent


def package_versions() -> dict[str, str]:
    """Return the versions of Python, at2_rag and the packages that decide figures."""
    versions = {"python": platform.python_version(), "at2-rag": at2_rag.__version__}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def git_state() -> dict[str, str | bool] | None:
    """Return the commit that at2_rag runs from and whether files differ; None outside git."""
    # An installed copy may lie inside someone else's repository: only a tracked file counts.
    if _git(_PACKAGE, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    sha = _git(_PACKAGE, "rev-parse", "HEAD")
    changes = _git(_PACKAGE, "status", "--porcelain", "--untracked-files=no")
    return None if sha is None else {"sha": sha, "modified": bool(changes)}


@cache
def code_version(folder: Path = _PACKAGE) -> str:
    """Return at2_rag's version and the commit that last changed its code: "0.1.0+4e85c52...".

    ".dirty-" and a hash follow where files differ from that commit. Outside a git checkout it is
    the version alone.
    """
    commit = _git(folder, "log", "-1", "--format=%H", "--", ".") if git_state() else None
    if not commit:
        return at2_rag.__version__
    changes = [_git(folder, "diff", commit, "--", ".") or ""]
    for name in (_git(folder, "ls-files", "--others", "--exclude-standard") or "").splitlines():
        changes += [name, (folder / name).read_bytes().hex()]
    if not any(changes):
        return f"{at2_rag.__version__}+{commit}"
    digest = hashlib.sha256("\n".join(changes).encode()).hexdigest()
    return f"{at2_rag.__version__}+{commit}.dirty-{digest[:16]}"


def files_sha256(folder: Path, patterns: Iterable[str]) -> str:
    """Return a SHA-256 over names and contents of the files in a folder that match a pattern.

    Raises:
        FileNotFoundError: If there are none.
    """
    files = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    if not files:
        raise FileNotFoundError(f"{folder} holds none of the files expected")
    digest = hashlib.sha256()
    for path in files:
        content = file_record(path)["sha256"]
        digest.update(f"{path.relative_to(folder).as_posix()}\n{content}\n".encode())
    return digest.hexdigest()


def file_record(path: Path) -> dict[str, str]:
    """Return a file's name, without its folder, and its SHA-256."""
    with path.open("rb") as stream:
        return {"name": path.name, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        command = ["git", "-C", str(folder), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
