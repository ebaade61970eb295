"""Cross-validation: which features, depth and ridge rank gold chunks best out of fold."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from at2_rag.errors import InputError
from at2_rag.reading.features import PASSES, FeatureSpec, Pass, Quantity, Reading
from at2_rag.training.collection.store import ShardAblations, ShardFeatures
from at2_rag.training.fitting.fit import fit_listwise
from at2_rag.training.fitting.losses import Floats, ListwiseData

RIDGES = (3e-3, 1e-2, 3e-2)
_PASS_CHOICES: Mapping[Reading, tuple[tuple[Pass, ...], ...]] = {
    "independent": (("together",), ("apart",), ("together", "apart")),
    "joint": (("joint",),),
}
FEWEST_CHUNKS = 4
"""Chunks of a sample whose ranking is judged, at least; guessing does too well with fewer."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A readout's design.

    Attributes:
        spec: Its features.
        depth: Layers in use.
        ridge: Penalty, see `fit_listwise`.
    """

    spec: FeatureSpec
    depth: int
    ridge: float


@dataclass(frozen=True, slots=True)
class CandidateResult:
    """Out-of-fold quality of a candidate.

    Attributes:
        candidate: The design.
        ndcg: Macro mean over sources of the mean nDCG@10.
        by_source: Mean nDCG@10 of each source.
    """

    candidate: Candidate
    ndcg: float
    by_source: Mapping[str, float]

    def figures(self) -> dict[str, Any]:
        """Return the figures as JSON-ready values, rounded."""
        return {"ndcg_at_10": round(self.ndcg, 4), "by_source": rounded(self.by_source)}


def rounded(values: Mapping[str, float]) -> dict[str, float]:
    """Return the values rounded to four decimals."""
    return {name: round(value, 4) for name, value in values.items()}


def feature_specs(reading: Reading) -> list[FeatureSpec]:
    """Return every combination of quantity and passes of a reading."""
    return [
        FeatureSpec(quantity, passes)
        for quantity in get_args(Quantity)
        for passes in _PASS_CHOICES[reading]
    ]


def feature_matrix(
    collected: ShardFeatures | ShardAblations, spec: FeatureSpec, depth: int
) -> Floats:
    """Return the features [N, F] of collected sources, as `FeatureSpec.extract` orders them."""
    stored = collected.log_ratio if spec.quantity == "log_ratio" else collected.log_mass
    places = [PASSES[spec.reading].index(name) for name in spec.passes]
    values = stored[:, places, :depth].astype(np.float32)
    return (np.exp(values) if spec.quantity == "mass" else values).reshape(len(values), -1)


def source_weights(sources: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return sample weights under which every source counts the same."""
    names, inverse, counts = np.unique(sources, return_inverse=True, return_counts=True)
    return 1.0 / (len(names) * counts[inverse])


def assign_folds(
    groups: Sequence[int], folds: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Return each sample's fold; samples of one group share it, folds are about equally large."""
    numbers, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = rng.permutation(len(numbers))
    order = order[np.argsort(-sizes[order], kind="stable")]
    fold_of, load = np.zeros(len(numbers), dtype=np.int64), np.zeros(folds, dtype=np.int64)
    for group in order:
        fold_of[group] = np.argmin(load)
        load[fold_of[group]] += sizes[group]
    return fold_of[inverse]


def out_of_fold_scores(
    data: ListwiseData,
    folds: npt.NDArray[np.int64],
    *,
    ridge: float,
    part: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.float64]:
    """Return the score [N] of every source by weights fitted without its sample's fold.

    Args:
        data: The samples.
        folds: [I] int64, each sample's fold.
        ridge: Penalty, see `fit_listwise`.
        part: [I] bool, samples that may be fitted on; None for all.
    """
    scores = np.zeros(len(data.features))
    for fold in np.unique(folds):
        held = folds == fold
        fit = fit_listwise(data.take(~held if part is None else ~held & part), ridge=ridge)
        rows = np.repeat(held, data.counts)
        scores[rows] = data.features[rows] @ fit.weight + fit.bias
    return scores


def ndcg_at_10(
    scores: npt.NDArray[np.float64], labels: npt.NDArray[np.bool_], counts: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return each sample's nDCG@10 with binary gains (Järvelin and Kekäläinen, 2002)."""
    discounts = 1 / np.log2(np.arange(2, 12))
    values = []
    ends = np.cumsum(counts)
    for start, end in zip(ends - counts, ends, strict=True):
        gold = labels[start:end]
        ranked = gold[np.argsort(-scores[start:end], kind="stable")][:10]
        best = discounts[: min(10, int(gold.sum()))].sum()
        values.append(float(ranked @ discounts[: len(ranked)]) / best)
    return np.array(values)


def cross_validate(
    collected: ShardFeatures,
    sources: Sequence[str],
    folds: npt.NDArray[np.int64],
    candidates: Iterable[Candidate],
    *,
    part: npt.NDArray[np.bool_] | None = None,
) -> Iterator[CandidateResult]:
    """Yield the out-of-fold quality of each candidate.

    Samples of fewer than four chunks are fitted on but not judged. A source that has no others
    doesn't count in the result, and a warning is logged that names it.

    Args:
        collected: Features of all samples.
        sources: Each sample's data set; every one counts the same in fit and result.
        folds: Each sample's fold.
        candidates: What to try; each is taken after the result of the one before was yielded.
        part: [I] bool, samples that may be fitted on, for a learning curve; None for all. All
            are judged, and the warning isn't repeated.

    Raises:
        InputError: If no sample can be judged.
    """
    names = np.array(sources)
    judged = _judged(collected.counts)
    if part is None:
        _warn_of_unjudged(judged, names)
    matrix, built = np.zeros((0, 0), dtype=np.float32), None
    for candidate in candidates:
        if built != (candidate.spec, candidate.depth):
            built = (candidate.spec, candidate.depth)
            matrix = feature_matrix(collected, *built)
        data = ListwiseData(matrix, collected.labels, collected.counts, source_weights(sources))
        scores = out_of_fold_scores(data, folds, ridge=candidate.ridge, part=part)
        quality = ndcg_at_10(scores, collected.labels, collected.counts)
        by_source = {
            str(name): float(quality[judged & (names == name)].mean())
            for name in np.unique(names[judged])
        }
        yield CandidateResult(candidate, float(np.mean(list(by_source.values()))), by_source)


def _judged(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    judged = counts >= FEWEST_CHUNKS
    if not judged.any():
        raise InputError(
            f"none of the {len(counts)} samples has {FEWEST_CHUNKS} chunks or more (the largest "
            f"has {counts.max(initial=0)}), so cross-validation has no ranking to judge; pass "
            "examples with more chunks"
        )
    return judged


def _warn_of_unjudged(judged: npt.NDArray[np.bool_], sources: npt.NDArray[np.str_]) -> None:
    unjudged = Counter(sources.tolist())
    for name in set(sources[judged].tolist()):
        del unjudged[name]
    if unjudged:
        _logger.warning(
            "cross-validation leaves out %s: no sample has %d chunks or more, so nothing there is "
            "judged; its samples are fitted on all the same",
            ", ".join(f"{name!r} ({count} samples)" for name, count in sorted(unjudged.items())),
            FEWEST_CHUNKS,
        )
