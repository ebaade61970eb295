"""What leaving out each chunk costs the right answer: the truth that calibration is fitted to.

A *drop* is how much less likely the reference answer is, in nats a token of it, when the whole
model reads the prompt again without the chunk. Collected shard by shard.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from at2_rag.errors import InputError, PromptTooLongError
from at2_rag.training.ablation import ablate_by_removal, drops, leave_one_out
from at2_rag.training.answer_model import AnswerModel
from at2_rag.training.collection import content_hash
from at2_rag.training.examples import Example
from at2_rag.training.store import ShardArrays, ShardStore, join_shards

FORMAT = 1

SHARD_EXAMPLES = 20
"""Examples of a shard."""


@dataclass(frozen=True, slots=True, eq=False)
class ShardDrops(ShardArrays):
    """Drops of the examples of one shard, or of several joined.

    Attributes:
        examples: [I] int64, index of each example; those that can't be read are missing.
        counts: [I] int64, chunks of each; their drops follow one another below.
        drops: [sum of counts] float32, nats a token of the answer.
    """

    examples: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    drops: npt.NDArray[np.float32]

    def lengths(self) -> dict[str, int]:
        """Return how long arrays have to be by what others say."""
        return {"counts": len(self.examples), "drops": int(self.counts.sum())}

    def is_of(self, planned: Sequence[int]) -> bool:
        """Tell whether it may come from reading these examples, given by index."""
        return set(self.examples.tolist()) <= set(planned)

    def by_example(self) -> dict[int, npt.NDArray[np.float32]]:
        """Return each example's drops, by its index."""
        ends = np.cumsum(self.counts)
        return {
            example: self.drops[end - count : end]
            for example, end, count in zip(self.examples.tolist(), ends, self.counts, strict=True)
        }


def collect_drops(
    model: AnswerModel,
    examples: Sequence[Example],
    folder: str | Path,
    *,
    fingerprint: str,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ShardDrops:
    """Return the drops of each example's chunks, reading only what `folder` doesn't hold.

    The answer is the first reference answer. Examples without one or without chunks are left out,
    and those whose prompt and answer exceed the model's window.

    Args:
        model: The model that answers.
        examples: What to read.
        folder: Where shards are kept.
        fingerprint: The model's.
        workers: Threads that each read examples of their own, with one torch thread each.
        progress: Called with the number of examples done and in all.

    Raises:
        DataError: If the folder holds a collection with other settings.
        InputError: If no example can be read.
        ScoringError: If the model's numbers overflowed.
        StorageError: If a shard can't be written.
    """
    settings = drop_settings(model, examples, fingerprint=fingerprint)
    store = ShardStore(folder, ShardDrops, settings=settings)
    places = range(len(examples))
    shards = [places[start : start + SHARD_EXAMPLES] for start in places[::SHARD_EXAMPLES]]
    found = [store.read(index, shard) for index, shard in enumerate(shards)]
    done = sum(len(shard) for shard, own in zip(shards, found, strict=True) if own is not None)
    progress(done, len(examples))
    collected = []
    with ThreadPoolExecutor(workers) as executor:
        for index, (shard, arrays) in enumerate(zip(shards, found, strict=True)):
            if arrays is None:
                read: dict[int, npt.NDArray[np.float32]] = {}
                one_by_one = executor.map(lambda place: _drops(model, examples[place]), shard)
                for place, own in zip(shard, one_by_one, strict=True):
                    if own is not None:
                        read[place] = own
                    done += 1
                    progress(done, len(examples))
                arrays = _to_shard(read)
                store.write(index, arrays)
            collected.append(arrays)
    joined = join_shards(collected) if collected else _to_shard({})
    if not len(joined.examples):
        raise InputError(
            f"none of the {len(examples)} examples has chunks and a reference answer that fit the "
            f"model's window of {model.prompts.max_tokens} tokens; pass others"
        )
    return joined


def drop_settings(
    model: AnswerModel, examples: Sequence[Example], *, fingerprint: str
) -> dict[str, object]:
    """Return all that decides collected drops, JSON-ready; see `collect_drops`."""
    return {
        "format": FORMAT,
        "signal": "removal drops",
        "dtype": str(model.scoring_model.dtype).removeprefix("torch."),
        "fingerprint": fingerprint,
        "template": model.prompts.template_hash,
        "examples": content_hash(examples),
    }


def _drops(model: AnswerModel, example: Example) -> npt.NDArray[np.float32] | None:
    answer = example.reference_answer
    if not answer or not example.chunks:
        return None
    masks = leave_one_out(len(example.chunks))
    try:
        read = ablate_by_removal(model, example.query, example.chunks, answer, masks)
    except PromptTooLongError:
        return None
    return drops(read).astype(np.float32)


def _to_shard(read: dict[int, npt.NDArray[np.float32]]) -> ShardDrops:
    return ShardDrops(
        examples=np.array(list(read), dtype=np.int64),
        counts=np.array([len(own) for own in read.values()], dtype=np.int64),
        drops=np.concatenate([np.zeros(0, dtype=np.float32), *read.values()]),
    )
