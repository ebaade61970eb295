"""Features of answers: what ablated answers attend to, read as `AT2Attributor` reads them.

They go with collected ablations: the same samples, and the answers that were ablated, each read
once more after its joint prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from at2_rag.data.examples import Example
from at2_rag.errors import DataError, InputError, PromptTooLongError
from at2_rag.prompt.layout import AnswerLayout
from at2_rag.reading.joint import read_answer
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.training.collection.features import stacked_features
from at2_rag.training.collection.shards import Sample
from at2_rag.training.collection.store import ShardAblations, ShardArrays, ShardStore, join_shards

FORMAT = 1

ANSWERS_FOLDER = "answers"
"""Where they are kept, within the folder of the ablations."""

SHARD_SAMPLES = 25
"""Samples of a shard, the unit of resumption."""


@dataclass(frozen=True, slots=True, eq=False)
class ShardAnswerFeatures(ShardArrays):
    """Features of the answers of one shard of samples, or of several joined.

    Attributes:
        read: [I] bool, False for samples whose prompt and answer exceed the model's window.
        log_mass: [sum of chunks of samples read, 1, L, H] float16.
        log_ratio: The same shape.
    """

    read: npt.NDArray[np.bool_]
    log_mass: npt.NDArray[np.float16]
    log_ratio: npt.NDArray[np.float16]

    def lengths(self) -> dict[str, int]:
        """Return how long arrays have to be by what others say."""
        return {"log_ratio": len(self.log_mass)}

    def is_of(self, planned: Sequence[int]) -> bool:
        """Tell whether it tells of as many samples."""
        return len(self.read) == len(planned)


def answer_settings(model: ScoringModel, identity: str) -> dict[str, object]:
    """Return all that decides features of answers, JSON-ready; see `with_answer_features`."""
    return {"format": FORMAT, "depth": model.depth, "ablations": identity}


def with_answer_features(
    model: ScoringModel,
    examples: Sequence[Example],
    collected: ShardAblations,
    samples: Sequence[Sample],
    folder: str | Path,
    *,
    identity: str,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ShardAblations:
    """Return collected ablations with features of the answer in place of the question's.

    Samples whose prompt and answer exceed the model's window are left out; their number is added
    to those of that reason.

    Args:
        model: The scoring model, cut to the deepest layer wanted.
        examples: What was ablated.
        collected: The ablations.
        samples: Their samples, in the same order.
        folder: Where shards are kept; a killed run goes on from there.
        identity: Hash of all that decides the ablations.
        workers: Threads that each read answers of their own.
        progress: Called with the number of samples done and in all.

    Raises:
        DataError: If the folder holds what belongs to other ablations.
        InputError: If no sample fits the model's window.
        ScoringError: If the model's numbers overflowed.
        StorageError: If a shard can't be written.
    """
    store = ShardStore(folder, ShardAnswerFeatures, settings=answer_settings(model, identity))
    answers = collected.answers_of_samples()

    def layout_of(place: int) -> AnswerLayout | None:
        query = examples[samples[place].example].query
        try:
            return model.prompts.conversation(query, samples[place].chunks, answers[place])
        except PromptTooLongError:
            return None

    def attend(layout: AnswerLayout) -> npt.NDArray[np.float16]:
        whole = (0, len(layout.answer_ids))
        [attention] = read_answer(model, layout, [whole], layout.prompt.source_spans)
        arrays = stacked_features([{"joint": attention}], ("joint",))
        return np.stack([arrays["log_mass"], arrays["log_ratio"]])

    shards = []
    starts = range(0, len(samples), SHARD_SAMPLES)
    with ThreadPoolExecutor(workers) as executor:
        for number, start in enumerate(starts):
            places = range(start, min(start + SHARD_SAMPLES, len(samples)))
            shard = store.read(number, places)
            if shard is None:
                layouts = [layout_of(place) for place in places]
                fitting = [layout for layout in layouts if layout is not None]
                nothing = np.zeros((2, 0, 1, model.depth, model.heads), dtype=np.float16)
                read = np.concatenate([nothing, *executor.map(attend, fitting)], axis=1)
                fits = np.array([layout is not None for layout in layouts])
                shard = ShardAnswerFeatures(fits, read[0].copy(), read[1].copy())
                store.write(number, shard)
            progress(places.stop, len(samples))
            shards.append(shard)
    features = join_shards(shards)
    if not features.read.any():
        raise InputError(
            f"none of the {len(samples)} samples fits the model's window with its answer; pass "
            "examples with fewer or shorter chunks"
        )
    kept = collected.take(features.read)
    if len(features.log_mass) != kept.counts.sum():
        raise DataError(
            f"{folder} holds features of {len(features.log_mass)} chunks, the ablations are of "
            f"{kept.counts.sum()}; remove that folder, and a rerun makes it anew"
        )
    return replace(kept, log_mass=features.log_mass, log_ratio=features.log_ratio)
