"""From examples to head weights: collect features, choose a design, fit it on everything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from at2_rag.data.examples import Example, gold_groups
from at2_rag.errors import InputError
from at2_rag.reading.features import PASSES, FeatureSpec, Reading
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.training.collection.features import collect, feature_settings, fits_window
from at2_rag.training.collection.store import TOO_LONG, check_collection
from at2_rag.training.fitting.fit import fit_listwise
from at2_rag.training.fitting.head_importance import head_importance
from at2_rag.training.fitting.learning_curve import LearningPoint, Part, learning_curve
from at2_rag.training.fitting.losses import ListwiseData
from at2_rag.training.fitting.validation import (
    RIDGES,
    Candidate,
    CandidateResult,
    assign_folds,
    cross_validate,
    feature_matrix,
    feature_specs,
    source_weights,
)

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Training:
    """What a training run gave.

    Attributes:
        weights: Fitted on all samples, in the chosen design.
        results: Every design tried, in the order tried, with its out-of-fold quality.
        chosen: The one with the highest macro nDCG@10 out of fold.
        samples: Samples fitted on, by source.
        left_out: Examples that gave no sample, by reason.
        curve: Out-of-fold nDCG@10 (`ndcg_at_10`) of the chosen design, fitted on growing parts.
        importance: [P, L, H], see `head_importance`.
    """

    weights: HeadWeights
    results: tuple[CandidateResult, ...]
    chosen: CandidateResult
    samples: Mapping[str, int]
    left_out: Mapping[str, int]
    curve: tuple[LearningPoint, ...]
    importance: npt.NDArray[np.float64]


def train(
    model: ScoringModel,
    examples: Sequence[Example],
    features_folder: str | Path,
    *,
    fingerprint: str,
    reading: Reading = "independent",
    specs: Sequence[FeatureSpec] | None = None,
    depths: Sequence[int] = (),
    folds: int = 5,
    seed: int = 0,
    workers: int = 1,
    progress: Progress = lambda stage, done, total: None,
) -> Training:
    """Fit head weights on evidence labels.

    First every feature set is cross-validated at the largest depth, each with every ridge; then
    the best of them at each of the other depths. The best of all is fitted on growing parts of the
    data, for the learning curve, and then on everything. Folds keep examples that share a gold
    passage together. Deterministic for given arguments and thread count.

    Args:
        model: The scoring model, cut to the deepest layer wanted.
        examples: Questions with labelled chunks; those without both kinds of label get
            distractors from others, or are left out, as those are that exceed the model's window.
        features_folder: Where collected features are kept; a killed run goes on from there.
        fingerprint: The model's.
        reading: The reading mode to fit for.
        specs: Feature sets to try; None for all of the reading's.
        depths: Depths to try, up to the model's; none for that alone.
        folds: Number of folds.
        seed: Of the added distractors and the folds.
        workers: Reading threads, see `collect`.
        progress: Called with the stage's name, the steps done and in all; the first call of a
            stage begins it.

    Raises:
        InputError: If a depth is out of range, a feature set is of another reading, or the data
            is too little: fewer gold groups than folds, or no sample that ranks enough chunks.
        DataError: If the folder holds features of another collection.
    """
    specs = list(specs) if specs is not None else feature_specs(reading)
    check_training(
        model,
        examples,
        features_folder,
        fingerprint=fingerprint,
        reading=reading,
        specs=specs,
        depths=depths,
        folds=folds,
        seed=seed,
    )
    collected = collect(
        model,
        examples,
        features_folder,
        reading=reading,
        fingerprint=fingerprint,
        seed=seed,
        workers=workers,
        progress=lambda done, total: progress("reading", done, total),
    )
    sources = [examples[index].source for index in collected.examples]
    group_of = gold_groups(examples)
    groups = [group_of[index] for index in collected.examples]
    check_gold_groups(set(groups), folds)
    fold_of = assign_folds(groups, folds, np.random.default_rng(seed))
    deepest = max(depths, default=model.depth)
    others = sorted(set(depths) - {deepest}, reverse=True)
    total = len(specs) * len(RIDGES) + len(others)
    results: list[CandidateResult] = []
    progress("cross-validation", 0, total)

    def best() -> CandidateResult:
        return max(results, key=lambda result: result.ndcg)

    def candidates() -> Iterator[Candidate]:
        for spec in specs:
            yield from (Candidate(spec, deepest, ridge) for ridge in RIDGES)
        design = best().candidate
        yield from (Candidate(design.spec, depth, design.ridge) for depth in others)

    for result in cross_validate(collected, sources, fold_of, candidates()):
        results.append(result)
        progress("cross-validation", len(results), total)
    chosen = best()
    design = chosen.candidate

    def judge(part: Part) -> dict[str, float | None]:
        [result] = cross_validate(collected, sources, fold_of, [design], part=part)
        return {"ndcg_at_10": result.ndcg}

    curve = learning_curve(
        groups,
        sources,
        fold_of,
        judge,
        seed=seed,
        progress=lambda done, total: progress("learning curve", done, total),
    )
    progress("fit", 0, 1)
    data = ListwiseData(
        feature_matrix(collected, design.spec, design.depth),
        collected.labels,
        collected.counts,
        source_weights(sources),
    )
    fit = fit_listwise(data, ridge=design.ridge)
    shape = (len(design.spec.passes), design.depth, model.heads)
    weights = HeadWeights(
        weight=fit.weight.reshape(shape).astype(np.float32),
        bias=fit.bias,
        spec=design.spec,
        fingerprint=fingerprint,
        template_hash=model.prompts.template_hash,
    )
    progress("fit", 1, 1)
    left_out = Counter(
        "without both gold and other chunks"
        if fits_window(model, examples[index].query, examples[index].chunks, reading=reading)
        else TOO_LONG
        for index in sorted(set(range(len(examples))) - set(collected.examples.tolist()))
    )
    return Training(
        weights,
        tuple(results),
        chosen,
        dict(sorted(Counter(sources).items())),
        dict(sorted(left_out.items())),
        curve,
        head_importance(data.features, weights.weight),
    )


def check_training(
    model: ScoringModel,
    examples: Sequence[Example],
    features_folder: str | Path,
    *,
    fingerprint: str,
    reading: Reading = "independent",
    specs: Sequence[FeatureSpec] | None = None,
    depths: Sequence[int] = (),
    folds: int = 5,
    seed: int = 0,
) -> None:
    """Refuse what `train` would, as far as can be told before anything is read.

    Raises:
        InputError: See `train`, which has the same arguments.
        DataError: If the folder holds features of another collection.
    """
    _check_designs(specs or (), depths, reading, model)
    check_gold_groups(labelled_groups(examples), folds)
    settings = feature_settings(
        model, examples, reading=reading, fingerprint=fingerprint, seed=seed
    )
    check_collection(features_folder, settings)


def labelled_groups(examples: Sequence[Example]) -> set[int]:
    """Return the groups, see `gold_groups`, of the examples that have gold."""
    groups = zip(gold_groups(examples), examples, strict=True)
    return {group for group, example in groups if any(example.labels)}


def check_gold_groups(groups: Set[int], folds: int) -> None:
    """Check that there is a group for every fold; where there is none at all, other errors say so.

    Raises:
        InputError: If there are fewer.
    """
    if 0 < len(groups) < folds:
        raise InputError(
            f"the data has {len(groups)} groups of examples that share gold passages, "
            f"cross-validation needs {folds}; pass more data or fewer folds"
        )


def _check_designs(
    specs: Sequence[FeatureSpec], depths: Sequence[int], reading: Reading, model: ScoringModel
) -> None:
    for depth in depths:
        if not 1 <= depth <= model.depth:
            raise InputError(f"depth is {depth}; pass 1 to {model.depth}, the depth collected")
    for spec in specs:
        if spec.reading != reading:
            raise InputError(
                f"the features {spec} are of reading {spec.reading!r}, to be fitted for is "
                f"{reading!r}; pass features of the passes {', '.join(PASSES[reading])}, or "
                f"reading={spec.reading!r}"
            )
