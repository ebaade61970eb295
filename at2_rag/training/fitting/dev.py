"""What fitted weights are worth on dev examples, which had no part in the fit.

Each is ranked with its chunks as they were retrieved; nothing is added. The order that they came in
is what the ranking is compared with.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from at2_rag.data.bootstrap import macro_sample, resample_means
from at2_rag.data.clusters import item_clusters
from at2_rag.data.examples import Example, passage_keys
from at2_rag.errors import InputError
from at2_rag.reading.features import Reading
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.training.collection.collection import TOO_LONG
from at2_rag.training.collection.features import Features, fits_window
from at2_rag.training.fitting.cross_validation import (
    FEWEST_CHUNKS,
    macro_mean,
    mean_by_source,
    ndcg_at_10,
)

_logger = logging.getLogger(__name__)

DEV_FOLDER = "dev"  # of collected dev examples, in that of what is trained on


@dataclass(frozen=True, slots=True)
class DevFigures:
    """Quality on dev examples, by source and as the macro mean over sources."""

    examples: Mapping[str, int]  # examples judged, by source
    ndcg: float  # nDCG@10
    ndcg_by_source: Mapping[str, float]
    gold_first: float  # share of examples with a gold chunk first
    gold_first_by_source: Mapping[str, float]
    ndcg_as_retrieved: float  # of the chunks in the order they came in
    gold_first_as_retrieved: float
    gain: tuple[float, float] | None  # 95 % interval of nDCG minus that; None of few clusters


def choose_dev(
    model: ScoringModel, examples: Sequence[Example], *, reading: Reading
) -> tuple[list[Example], dict[str, int]]:
    """Return the examples whose ranking can be judged, and how many others there are, by reason."""
    reasons = [_reason_to_leave_out(model, example, reading) for example in examples]
    kept = [example for example, why in zip(examples, reasons, strict=True) if why is None]
    left_out = Counter(reason for reason in reasons if reason is not None)
    if not kept:
        counts = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise InputError(
            f"none of the {len(examples)} dev examples can be judged ({counts}); pass examples "
            f"with {FEWEST_CHUNKS} chunks or more, gold and not gold"
        )
    return kept, dict(left_out)


def _reason_to_leave_out(model: ScoringModel, example: Example, reading: Reading) -> str | None:
    if len(example.chunks) < FEWEST_CHUNKS:
        return f"fewer than {FEWEST_CHUNKS} chunks"
    if not any(example.labels):
        return "without gold"
    if all(example.labels):
        return "without a distractor"
    fits = fits_window(model, example.query, example.chunks, reading=reading)
    return None if fits else TOO_LONG


def count_shared(examples: Sequence[Example], trained: Sequence[Example]) -> int:
    """Return how many examples share a gold passage or the question with those trained on.

    Passages and questions are compared without differences in case and white space. A warning is
    logged where there are any: figures on such examples flatter.
    """

    def plain(text: str) -> str:
        return " ".join(text.casefold().split())

    passages = passage_keys(chunk for example in trained for chunk in example.gold)
    questions = {plain(example.query) for example in trained}
    shared = sum(
        plain(example.query) in questions or not passages.isdisjoint(passage_keys(example.gold))
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


def judge_on_dev(
    weights: HeadWeights, examples: Sequence[Example], features: Features
) -> DevFigures:
    """Rank the chunks of the dev examples read with the weights; ties keep the chunks' order."""
    judged = [examples[index] for index in features.examples]
    labels = np.concatenate([example.labels for example in judged])
    sources = np.array([example.source for example in judged])
    scores = weights.score(features.matrix(weights.spec, weights.layers))
    by_sample = zip(features.by_sample(scores), features.by_sample(labels), strict=True)
    first = np.array([gold[np.argmax(of_chunks)] for of_chunks, gold in by_sample])
    quality = ndcg_at_10(scores, labels, features.counts)
    as_retrieved = ndcg_at_10(np.zeros_like(scores), labels, features.counts)
    came_first = np.array([example.labels[0] for example in judged])
    ndcg, gold_first = mean_by_source(quality, sources), mean_by_source(first, sources)
    return DevFigures(
        dict(sorted(Counter(sources.tolist()).items())),
        macro_mean(ndcg),
        ndcg,
        macro_mean(gold_first),
        gold_first,
        macro_mean(mean_by_source(as_retrieved, sources)),
        macro_mean(mean_by_source(came_first, sources)),
        _interval(quality - as_retrieved, judged),
    )


def _interval(
    gains: npt.NDArray[np.float64], examples: Sequence[Example]
) -> tuple[float, float] | None:
    """Return the 95 % interval of the macro mean of gains, one for each example, as evals do it."""
    rng = np.random.default_rng(0)
    sources = np.array([example.source for example in examples])
    clusters = np.array(item_clusters(examples))
    samples = []
    for name in np.unique(sources):
        rows = sources == name
        samples.append(resample_means(gains[rows, None], clusters[rows].tolist(), rng=rng))
    return macro_sample(samples).estimate(0).interval
