"""Collected arrays on disk, a file a shard, so that a killed collection goes on where it stopped.

A folder holds `collection.json` (the settings that decide the content; another setting is
another folder's business) and `shard-00000.safetensors` and so on. A shard is written under a
temporary name and renamed when whole, so that what is there is complete. It carries hashes of the
collection's settings and of its own content; shards of older versions carry none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from at2_rag.errors import DataError, StorageError
from at2_rag.files import remove_leftovers, write_whole

SETTINGS_FILE = "collection.json"

TOO_LONG = "longer than the model's window"
"""Why an example gives no sample, in all kinds of collections."""

_HASHES = "at2_rag"  # key of a shard's metadata; one only, whose place is always the same

LEFT_OUT = ("fewer than two chunks", TOO_LONG, "no answer")
"""Why an example gives no ablations."""


@dataclass(frozen=True, slots=True, eq=False)
class ShardArrays:
    """What a shard holds: arrays by name, those of its samples one after another."""

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def lengths(self) -> dict[str, int]:
        """Return how long arrays have to be by what others say."""
        raise NotImplementedError

    def is_of(self, planned: Sequence[int]) -> bool:
        """Tell whether it may come from reading these examples, given by index."""
        raise NotImplementedError

    def fits_together(self) -> bool:
        """Tell whether the arrays' lengths agree."""
        arrays = self.arrays()
        return all(len(arrays[name]) == length for name, length in self.lengths().items())


@dataclass(frozen=True, slots=True, eq=False)
class ShardFeatures(ShardArrays):
    """Features of the samples of one shard, or of several joined.

    Attributes:
        examples: [I] int64, index of each sample's example.
        counts: [I] int64, sources of each sample; they follow one another below.
        labels: [sum of counts] bool, gold or not.
        log_mass: [sum of counts, P, L, H] float16, per pass; see `FeatureSpec`.
        log_ratio: The same shape.
    """

    examples: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    labels: npt.NDArray[np.bool_]
    log_mass: npt.NDArray[np.float16]
    log_ratio: npt.NDArray[np.float16]

    def lengths(self) -> dict[str, int]:
        """Return how long arrays have to be by what others say."""
        chunks = int(self.counts.sum())
        return {
            "counts": len(self.examples),
            **dict.fromkeys(("labels", "log_mass", "log_ratio"), chunks),
        }

    def is_of(self, planned: Sequence[int]) -> bool:
        """Tell whether it holds exactly these examples."""
        held: list[int] = self.examples.tolist()
        return held == list(planned)


@dataclass(frozen=True, slots=True, eq=False)
class ShardAblations(ShardArrays):
    """Features of the samples of one shard and what ablations did to their answers.

    Attributes:
        examples: [I] int64, index of each sample's example.
        left_out: [3] int64 (of joined shards one after another), examples that gave no sample, by
            reason; see `LEFT_OUT`.
        answer_bytes: [I] int64, length of each sample's answer.
        answers: [sum of lengths] uint8, the answers in UTF-8.
        counts: [I] int64, chunks S of each sample; they follow one another in the features.
        mask_counts: [I] int64, masks M of each sample; they follow one another below.
        masks: [sum of M * S] bool, each sample's masks [M, S] flattened: all kept, each left out
            in turn, all left out, then random ones.
        token_counts: [I] int64, tokens A of each sample's answer.
        token_logits: [sum of M * A] float32, each sample's logit-probabilities [M, A] of the
            answer's tokens, flattened.
        query_counts: [I] int64, tokens Q of each sample's question.
        query_logits: [sum of M * Q] float32, the same of the question's own tokens.
        log_mass: [sum of S, P, L, H] float16, per pass; see `FeatureSpec`.
        log_ratio: The same shape.
    """

    examples: npt.NDArray[np.int64]
    left_out: npt.NDArray[np.int64]
    answer_bytes: npt.NDArray[np.int64]
    answers: npt.NDArray[np.uint8]
    counts: npt.NDArray[np.int64]
    mask_counts: npt.NDArray[np.int64]
    masks: npt.NDArray[np.bool_]
    token_counts: npt.NDArray[np.int64]
    token_logits: npt.NDArray[np.float32]
    query_counts: npt.NDArray[np.int64]
    query_logits: npt.NDArray[np.float32]
    log_mass: npt.NDArray[np.float16]
    log_ratio: npt.NDArray[np.float16]

    def lengths(self) -> dict[str, int]:
        """Return how long arrays have to be by what others say."""
        samples = ("answer_bytes", "counts", "mask_counts", "token_counts", "query_counts")
        if any(len(self.arrays()[name]) != len(self.examples) for name in samples):
            return dict.fromkeys(samples, len(self.examples))
        return {
            "answers": int(self.answer_bytes.sum()),
            "masks": int(self.mask_counts @ self.counts),
            "token_logits": int(self.mask_counts @ self.token_counts),
            "query_logits": int(self.mask_counts @ self.query_counts),
            **dict.fromkeys(("log_mass", "log_ratio"), int(self.counts.sum())),
        }

    def is_of(self, planned: Sequence[int]) -> bool:
        """Tell whether it holds some of these examples and left the others out."""
        number = len(self.examples) + int(self.left_out.sum())
        return number == len(planned) and set(self.examples.tolist()) <= set(planned)

    def answers_of_samples(self) -> list[str]:
        """Return each sample's answer."""
        ends = np.cumsum(self.answer_bytes)
        return [
            self.answers[end - size : end].tobytes().decode()
            for end, size in zip(ends, self.answer_bytes, strict=True)
        ]

    def take(self, samples: npt.NDArray[np.bool_]) -> ShardAblations:
        """Return the samples where the mask [I] holds; the others count as longer than the window.

        What `left_out` says of examples that gave no sample is kept.
        """
        lost = np.array([0, np.count_nonzero(~samples), 0], dtype=np.int64)

        def rows(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
            return np.repeat(samples, counts)

        return ShardAblations(
            examples=self.examples[samples],
            left_out=np.concatenate([self.left_out, lost]),
            answer_bytes=self.answer_bytes[samples],
            answers=self.answers[rows(self.answer_bytes)],
            counts=self.counts[samples],
            mask_counts=self.mask_counts[samples],
            masks=self.masks[rows(self.counts * self.mask_counts)],
            token_counts=self.token_counts[samples],
            token_logits=self.token_logits[rows(self.token_counts * self.mask_counts)],
            query_counts=self.query_counts[samples],
            query_logits=self.query_logits[rows(self.query_counts * self.mask_counts)],
            log_mass=self.log_mass[rows(self.counts)],
            log_ratio=self.log_ratio[rows(self.counts)],
        )

    def masks_of_samples(self) -> list[npt.NDArray[np.bool_]]:
        """Return each sample's masks, [M, S] bool."""
        return _tables(self.masks, self.mask_counts, self.counts)

    def token_logits_of_samples(self) -> list[npt.NDArray[np.float32]]:
        """Return the logit-probabilities of each sample's answer tokens, [M, A]."""
        return _tables(self.token_logits, self.mask_counts, self.token_counts)

    def query_logits_of_samples(self) -> list[npt.NDArray[np.float32]]:
        """Return the logit-probabilities of each sample's question tokens, [M, Q]."""
        return _tables(self.query_logits, self.mask_counts, self.query_counts)


def _tables(
    flat: npt.NDArray[Any], rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]
) -> list[npt.NDArray[Any]]:
    ends = np.cumsum(rows * columns)
    return [
        flat[end - height * width : end].reshape(height, width)
        for end, height, width in zip(ends, rows, columns, strict=True)
    ]


Shard = TypeVar("Shard", bound=ShardArrays)


def join_shards(shards: Sequence[Shard]) -> Shard:
    """Return the samples of all shards, in order."""
    arrays = [shard.arrays() for shard in shards]
    return type(shards[0])(
        **{name: np.concatenate([own[name] for own in arrays]) for name in arrays[0]}
    )


class ShardStore(Generic[Shard]):
    """The folder of one collection.

    Args:
        folder: Created if missing.
        kind: What a shard holds.
        settings: JSON-ready values that decide the content.

    Raises:
        DataError: If the folder holds a collection with other settings, or its settings can't be
            read.
        StorageError: If the folder can't be written.
    """

    def __init__(
        self, folder: str | Path, kind: type[Shard], *, settings: Mapping[str, Any]
    ) -> None:
        self.folder = Path(folder)
        self._kind = kind
        path = self.folder / SETTINGS_FILE
        self._settings = _settings_hash(settings)
        if check_collection(folder, settings):
            remove_leftovers(self.folder)
            return
        text = json.dumps(settings, indent=2, sort_keys=True)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(path, text.encode())
        except OSError as error:
            raise self._unwritten(path, error) from error

    def read(self, index: int, planned: Sequence[int] | None = None) -> Shard | None:
        """Return a shard, or None if it is missing or damaged (and so has to be made again).

        Args:
            index: Its number.
            planned: The examples that were to be read into it; None not to check.

        Raises:
            DataError: If it is of another collection.
            StorageError: If it can't be read.
        """
        path = self._path(index)
        try:
            if not path.exists():
                return None
            data = path.read_bytes()
        except OSError as error:
            raise StorageError(
                f"{path} can't be read ({error.strerror or error}); remove it or use another folder"
            ) from error
        shard = self._parse(data, path)
        if shard is not None and planned is not None and not shard.is_of(planned):
            raise DataError(
                f"{path} holds other examples than the {len(planned)} that belong there; "
                "remove it, and a rerun makes it anew"
            )
        return shard

    def _parse(self, data: bytes, path: Path) -> Shard | None:
        """Return what the bytes of a shard hold, None if they are damaged."""
        try:
            arrays = load(data)
            shard = self._kind(**arrays)
            consistent, hashes = shard.fits_together(), _read_hashes(data)
        except (SafetensorError, TypeError, ValueError):
            return None
        if hashes and hashes.get("settings") != self._settings:
            raise DataError(
                f"{path} is of another collection than {SETTINGS_FILE} beside it says; remove it, "
                "and a rerun makes it anew"
            )
        unchanged = not hashes or hashes.get("content") == _content_hash(arrays)
        return shard if consistent and unchanged else None

    def write(self, index: int, shard: Shard) -> None:
        """Write a shard; it is there whole or not at all.

        Raises:
            StorageError: If it can't be written; shards that are there stay.
        """
        path, arrays = self._path(index), shard.arrays()
        hashes = {"settings": self._settings, "content": _content_hash(arrays)}
        try:
            write_whole(path, save(arrays, {_HASHES: json.dumps(hashes, sort_keys=True)}))
            path.with_suffix(".part").unlink(missing_ok=True)  # which older versions left
        except (OSError, SafetensorError) as error:
            raise self._unwritten(path, error) from error

    def _unwritten(self, path: Path, error: Exception) -> StorageError:
        kept = len(list(self.folder.glob("shard-*.safetensors")))
        return StorageError(
            f"{path} can't be written ({error}); the {kept} shards written before are kept and a "
            "rerun goes on from there: make room on that disk, or move the folder to another one"
        )

    def _path(self, index: int) -> Path:
        return self.folder / f"shard-{index:05d}.safetensors"


def check_collection(folder: str | Path, settings: Mapping[str, Any]) -> bool:
    """Check that a folder holds nothing, or a collection with these settings; changes nothing.

    Args:
        folder: Of the collection; may not be there yet.
        settings: JSON-ready values that decide the content.

    Returns:
        Whether there is a collection.

    Raises:
        DataError: If it holds a collection with other settings, or its settings can't be read.
    """
    path = Path(folder) / SETTINGS_FILE
    try:
        if not path.exists():
            shards = len(list(Path(folder).glob("shard-*.safetensors")))
            if shards:
                raise DataError(
                    f"{folder} holds {shards} shards but no {SETTINGS_FILE}, so that nothing says "
                    "what they are of; put that file back, remove the shards, or use another folder"
                )
            return False
    except OSError:  # no folder, as an attempt to write there is going to say
        return False
    found, wanted = _read_settings(path), json.loads(json.dumps(settings))
    differing = sorted(k for k in {*found, *wanted} if found.get(k) != wanted.get(k))
    if differing:
        changes = ", ".join(
            f"{k}: {found.get(k)!r} there, {wanted.get(k)!r} now" for k in differing
        )
        raise DataError(
            f"{folder} holds what was collected with other settings ({changes}); "
            "use another folder, or remove this one"
        )
    return True


def reading_depth(wanted: int, folders: Iterable[str | Path], *, layers: int) -> int:
    """Return how many layers to read so that what was collected deeper can be gone on with.

    Args:
        wanted: Layers wanted.
        folders: Of collections; those that aren't there, or can't be read, are none.
        layers: The model's layers.
    """
    depths = [wanted]
    for folder in folders:
        with suppress(OSError, DataError):  # `check_collection` tells what is wrong
            depth = _read_settings(Path(folder) / SETTINGS_FILE).get("depth")
            if isinstance(depth, int) and depth <= layers:
                depths.append(depth)
    return max(depths)


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(
            f"{path} holds no settings ({error}); remove its folder, or use another"
        ) from error
    if not isinstance(found, dict):
        raise DataError(f"{path} holds no settings; remove its folder, or use another")
    return found


def _settings_hash(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _content_hash(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def _read_hashes(data: bytes) -> dict[str, Any]:
    """Return what a shard says of itself; nothing for those of older versions."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    found = json.loads(header.get("__metadata__", {}).get(_HASHES, "{}"))
    return found if isinstance(found, dict) else {}
