"""What fitted weights are worth on examples that had no part in the fit.

Each dev example is ranked with its own chunks, as it would be retrieved; nothing is added.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from at2_rag.data.examples import Example, passage_keys
from at2_rag.errors import InputError
from at2_rag.reading.features import Reading
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.training.collection.features import collect, feature_settings, fits_window
from at2_rag.training.collection.store import TOO_LONG, ShardFeatures, check_collection
from at2_rag.training.fitting.validation import FEWEST_CHUNKS, feature_matrix, ndcg_at_10

_logger = logging.getLogger(__name__)

DEV_FOLDER = "dev"
"""Folder of collected dev examples, in that of what is trained on."""

_SEED = 0  # decides nothing: no chunk is added


@dataclass(frozen=True, slots=True)
class DevFigures:
    """Quality on dev examples.

    Attributes:
        ndcg: Macro mean over sources of the mean nDCG@10.
        ndcg_by_source: Mean nDCG@10 of each source.
        gold_first: Macro mean over sources of the share of examples with a gold chunk first.
        gold_first_by_source: That share of each source.
    """

    ndcg: float
    ndcg_by_source: Mapping[str, float]
    gold_first: float
    gold_first_by_source: Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class DevSet:
    """Dev examples that can be judged, with their features.

    Attributes:
        collected: Features of each example's own chunks.
        sources: Each example's data set.
        left_out: Examples that can't be judged, by reason.
        shared: How many share a gold passage or the question with the examples trained on; may be
            None, where that isn't known.
    """

    collected: ShardFeatures
    sources: tuple[str, ...]
    left_out: Mapping[str, int]
    shared: int | None = None

    @property
    def counts(self) -> dict[str, int]:
        """Examples judged, by source."""
        return dict(sorted(Counter(self.sources).items()))

    def judge(self, weights: HeadWeights) -> DevFigures:
        """Rank every example's chunks with the weights; ties keep the chunks' order.

        Args:
            weights: Of the reading collected, with at most the depth collected.
        """
        collected, names = self.collected, np.array(self.sources)
        scores = weights.score(feature_matrix(collected, weights.spec, weights.layers))
        ndcg = ndcg_at_10(scores, collected.labels, collected.counts)
        ends = np.cumsum(collected.counts)
        first = np.array(
            [
                collected.labels[start + np.argmax(scores[start:end])]
                for start, end in zip(ends - collected.counts, ends, strict=True)
            ]
        )
        by_source = [
            {name: float(values[names == name].mean()) for name in self.counts}
            for values in (ndcg, first)
        ]
        macro = [float(np.mean(list(values.values()))) for values in by_source]
        return DevFigures(macro[0], by_source[0], macro[1], by_source[1])


def choose_dev(
    model: ScoringModel, examples: Sequence[Example], *, reading: Reading
) -> tuple[list[Example], dict[str, int]]:
    """Return the examples whose ranking can be judged, and how many others there are, by reason.

    Args:
        model: The scoring model.
        examples: Labelled examples.
        reading: How the chunks are to be read.

    Raises:
        InputError: If none is left.
    """
    kept: list[Example] = []
    left_out: Counter[str] = Counter()
    for example in examples:
        reason = _reason_to_leave_out(model, example, reading)
        if reason is None:
            kept.append(example)
        else:
            left_out[reason] += 1
    if not kept:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise InputError(
            f"none of the {len(examples)} dev examples can be judged ({reasons}); pass examples "
            f"with {FEWEST_CHUNKS} chunks or more, gold and not gold"
        )
    return kept, dict(left_out)


def count_shared(examples: Sequence[Example], trained: Sequence[Example]) -> int:
    """Return how many examples share a gold passage or the question with those trained on.

    Passages and questions are compared without differences in case and white space. A warning is
    logged where there are any: figures on such examples flatter.
    """
    passages = passage_keys(chunk for example in trained for chunk in example.gold)
    questions = {_plain(example.query) for example in trained}
    shared = sum(
        _plain(example.query) in questions or not passages.isdisjoint(passage_keys(example.gold))
        for example in examples
    )
    if shared:
        _logger.warning(
            "%d of %d dev examples share a gold passage or their question with the examples "
            "trained on, so that the figures on dev flatter; take them out of one of both",
            shared,
            len(examples),
        )
    return shared


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def check_dev(
    model: ScoringModel,
    examples: Sequence[Example],
    folder: str | Path,
    *,
    reading: Reading,
    fingerprint: str,
) -> None:
    """Check that the folder holds nothing else than `collect_dev` wants there.

    Raises:
        DataError: If it does.
    """
    settings = feature_settings(
        model, examples, reading=reading, fingerprint=fingerprint, seed=_SEED, padded=False
    )
    check_collection(folder, settings)


def collect_dev(
    model: ScoringModel,
    examples: Sequence[Example],
    folder: str | Path,
    *,
    left_out: Mapping[str, int],
    reading: Reading,
    fingerprint: str,
    shared: int | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> DevSet:
    """Read what `choose_dev` returned; see `collect` and `DevSet` for arguments and errors."""
    collected = collect(
        model,
        examples,
        folder,
        reading=reading,
        fingerprint=fingerprint,
        seed=_SEED,
        padded=False,
        workers=workers,
        progress=progress,
    )
    sources = tuple(examples[index].source for index in collected.examples)
    return DevSet(collected, sources, left_out, shared)


def _reason_to_leave_out(model: ScoringModel, example: Example, reading: Reading) -> str | None:
    if len(example.chunks) < FEWEST_CHUNKS:
        return f"fewer than {FEWEST_CHUNKS} chunks"
    if not any(example.labels):
        return "without gold"
    if all(example.labels):
        return "without a distractor"
    fits = fits_window(model, example.query, example.chunks, reading=reading)
    return None if fits else TOO_LONG
