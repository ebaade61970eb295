"""How much room a collection takes, known before it is made."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from at2_rag.errors import StorageError

_NUMBERS = 2 * 2  # bytes of two quantities in float16
_ANSWER_CHARACTERS = 4  # of a token of an answer, in bytes
_SHARD_BYTES = 600  # header of a file of features; that of ablations is twice as long


def feature_bytes(counts: Sequence[Sequence[int]], *, features: int) -> int:
    """Return about how many bytes shards of `ShardFeatures` take.

    Args:
        counts: For each shard the number of chunks of each sample.
        features: Numbers of one quantity for a chunk, P * L * H.
    """
    samples = sum(map(len, counts))
    chunks = sum(map(sum, counts))
    return len(counts) * _SHARD_BYTES + samples * 16 + chunks * (features * _NUMBERS + 1)


def ablation_bytes(
    counts: Sequence[Sequence[int]],
    *,
    features: int,
    masks: int,
    answer_tokens: int,
    query_tokens: float,
) -> int:
    """Return about how many bytes shards of `ShardAblations` take.

    Args:
        counts: As in `feature_bytes`.
        features: As in `feature_bytes`.
        masks: Random masks of a sample.
        answer_tokens: Tokens of an answer.
        query_tokens: Tokens of a question, on average.
    """
    tokens = round(4 * (answer_tokens + query_tokens))  # bytes of a mask's logit-probabilities
    size = 2 * len(counts) * _SHARD_BYTES
    for chunks in (chunks for shard in counts for chunks in shard):
        rows = 2 + chunks + min(masks, 2**chunks - 2)
        size += 48 + answer_tokens * _ANSWER_CHARACTERS
        size += chunks * features * _NUMBERS + rows * (chunks + tokens)
    return size


def missing_bytes(folder: str | Path, needed: int) -> int:
    """Return how many of a collection's bytes its folder doesn't hold yet.

    Args:
        folder: Of the collection; may not be there yet.
        needed: Bytes of the whole collection.
    """
    shards = Path(folder).glob("shard-*.safetensors")
    return max(0, needed - sum(path.stat().st_size for path in shards))


def check_room(folder: str | Path, missing: int) -> None:
    """Check that a folder's disk has room.

    Args:
        folder: May not be there yet.
        missing: Bytes that are going to be written.

    Raises:
        StorageError: If the disk has less free.
    """
    place = Path(folder).resolve()
    existing = next(path for path in (place, *place.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if missing > free:
        raise StorageError(
            f"collecting takes about {megabytes(missing)} more in {folder}, and "
            f"{megabytes(free)} are free on that disk; make room, choose a folder on another "
            "disk, or use fewer examples or layers"
        )


def megabytes(size: int) -> str:
    """Return a size in bytes as people say it: "0.4 MB", "812 MB", "12,345 MB"."""
    value = size / 1e6
    return f"{value:,.1f} MB" if value < 10 else f"{value:,.0f} MB"
