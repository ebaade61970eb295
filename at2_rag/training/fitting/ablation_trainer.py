"""From questions and chunks alone to head weights: what ablating chunks does to answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from at2_rag.data.examples import Example
from at2_rag.errors import InputError
from at2_rag.reading.features import PASSES, FeatureSpec, Reading
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.readout.head_weights import HeadWeights, TargetRule
from at2_rag.training.answering.answer_model import AnswerModel
from at2_rag.training.collection.ablations import (
    AblationPlan,
    ablation_settings,
    count_left_out,
)
from at2_rag.training.collection.answer_features import (
    ANSWERS_FOLDER,
    answer_settings,
)
from at2_rag.training.collection.gathered_ablations import (
    Progress,
    Signal,
    ablations_identity,
    gather_ablations,
)
from at2_rag.training.collection.store import check_collection
from at2_rag.training.fitting.ablation_validation import (
    AblationCandidate,
    AblationResult,
    Objective,
    cross_validate_ablations,
)
from at2_rag.training.fitting.head_importance import head_importance
from at2_rag.training.fitting.learning_curve import LearningPoint, Part, learning_curve
from at2_rag.training.fitting.trainer import check_gold_groups, labelled_groups
from at2_rag.training.fitting.validation import (
    RIDGES,
    feature_matrix,
    feature_specs,
)

OBJECTIVES: Mapping[Signal, tuple[Objective, ...]] = {
    "ablation": ("contributions", "drops", "pearson"),
    "both": ("mixed", "evidence", "contributions"),
}
"""What each signal can be fitted to, see `AblationCandidate`."""


@dataclass(frozen=True, slots=True, eq=False)
class AblationTraining:
    """What training on ablations gave.

    Attributes:
        weights: Fitted on all samples, in the chosen design.
        results: Every design tried, in the order tried, with its out-of-fold figures.
        chosen: The one with the highest macro nDCG@10 out of fold.
        samples: Samples fitted on, by source.
        left_out: Examples that gave no sample, by reason.
        curve: Out-of-fold nDCG@10 (`ndcg_at_10`) and `faithfulness` of the chosen design, fitted
            on growing parts.
        importance: [P, L, H], see `head_importance`.
    """

    weights: HeadWeights
    results: tuple[AblationResult, ...]
    chosen: AblationResult
    samples: Mapping[str, int]
    left_out: Mapping[str, int]
    curve: tuple[LearningPoint, ...]
    importance: npt.NDArray[np.float64]


def train_on_ablations(
    model: ScoringModel,
    answer_model: AnswerModel,
    examples: Sequence[Example],
    folder: str | Path,
    *,
    fingerprint: str,
    signal: Signal = "ablation",
    target: TargetRule = "question",
    plan: AblationPlan | None = None,
    specs: Sequence[FeatureSpec] | None = None,
    objectives: Sequence[Objective] = (),
    depths: Sequence[int] = (),
    folds: int = 5,
    seed: int = 0,
    workers: int = 1,
    progress: Progress = lambda stage, done, total: None,
) -> AblationTraining:
    """Fit head weights on what ablations do to answers.

    Weights for the target "question" are for independent reading, those for "answer" for
    attributing finished answers, which are read jointly.

    First every feature set is cross-validated at the largest depth, with every objective of the
    signal and every ridge; then the best of them at each of the other depths. With the signal
    "ablation" no label is looked at, neither in the fit nor in the choice, and folds keep examples
    together whose most important chunk is the same passage. With "both", gold labels are among
    the objectives, judge all of them, and group the folds; they say nothing of added chunks that
    hold a reference answer, nor of samples whose chunks are all gold.

    Args:
        model: The scoring model, cut to the deepest layer wanted.
        answer_model: The same model in full.
        examples: Questions with their chunks.
        folder: Where collected ablations are kept; a killed run goes on from there.
        fingerprint: The model's.
        signal: What to learn from.
        target: Whose attention the weights are for.
        plan: What to ablate; None for `AblationPlan()`.
        specs: Feature sets to try; None for all of the target's reading.
        objectives: Objectives to try; none for all of the signal.
        depths: Depths to try, up to the model's; none for that alone.
        folds: Number of folds.
        seed: Of added chunks, masks and folds.
        workers: Reading threads, see `collect_ablations`.
        progress: Called with the stage's name, the steps done and in all.

    Raises:
        InputError: If a depth is out of range, there are fewer groups than folds, or no ablation
            tells anything.
        DataError: If the folder holds another collection.
    """
    specs = list(specs) if specs is not None else feature_specs(_reading(target))
    objectives = objectives or OBJECTIVES[signal]
    plan = plan or AblationPlan()
    identity: dict[str, Any] = {"fingerprint": fingerprint, "seed": seed, "plan": plan}
    check_ablation_training(
        model,
        examples,
        folder,
        signal=signal,
        target=target,
        specs=specs,
        objectives=objectives,
        depths=depths,
        folds=folds,
        **identity,
    )
    gathered = gather_ablations(
        model,
        answer_model,
        examples,
        folder,
        **identity,
        signal=signal,
        target=target,
        folds=folds,
        workers=workers,
        progress=progress,
    )
    samples, groups, fold_of, weights = (
        gathered.samples,
        gathered.groups,
        gathered.fold_of,
        gathered.weights,
    )
    collected, sources = samples.collected, samples.sources
    deepest = max(depths, default=model.depth)
    total = len(specs) * len(RIDGES) * len(objectives) + len(set(depths) - {deepest})
    results: list[AblationResult] = []
    progress("cross-validation", 0, total)

    def judge(candidates: Sequence[AblationCandidate]) -> AblationResult:
        for result in cross_validate_ablations(samples, fold_of, candidates, weights):
            results.append(result)
            progress("cross-validation", len(results), total)
        return max(results, key=lambda result: result.ndcg)

    best = judge(
        [
            AblationCandidate(spec, deepest, ridge, objective)
            for spec in specs
            for objective in objectives
            for ridge in RIDGES
        ]
    ).candidate
    chosen = judge(
        [
            AblationCandidate(best.spec, depth, best.ridge, best.objective)
            for depth in sorted(set(depths) - {deepest}, reverse=True)
        ]
    )
    design = chosen.candidate

    def judge_part(part: Part) -> dict[str, float | None]:
        [result] = cross_validate_ablations(samples, fold_of, [design], weights, part=part)
        figures = result.figures()
        return {name: figures[name] for name in ("ndcg_at_10", "faithfulness")}

    curve = learning_curve(
        groups,
        sources,
        fold_of,
        judge_part,
        seed=seed,
        progress=lambda done, total: progress("learning curve", done, total),
    )
    progress("fit", 0, 1)
    matrix = feature_matrix(collected, design.spec, design.depth)
    fit = samples.fit(matrix, design, np.ones(len(sources), dtype=bool), weights)
    shape = (len(design.spec.passes), design.depth, model.heads)
    head_weights = HeadWeights(
        weight=fit.weight.reshape(shape).astype(np.float32),
        bias=fit.bias,
        spec=design.spec,
        fingerprint=fingerprint,
        template_hash=model.prompts.template_hash,
        target_rule=target,
        score_scale="additive" if design.objective == "pearson" else "logit",
    )
    progress("fit", 1, 1)
    return AblationTraining(
        head_weights,
        tuple(results),
        chosen,
        dict(sorted(Counter(sources).items())),
        count_left_out(collected),
        curve,
        head_importance(matrix, head_weights.weight),
    )


def check_ablation_training(
    model: ScoringModel,
    examples: Sequence[Example],
    folder: str | Path,
    *,
    fingerprint: str,
    signal: Signal = "ablation",
    target: TargetRule = "question",
    plan: AblationPlan | None = None,
    specs: Sequence[FeatureSpec] | None = None,
    objectives: Sequence[Objective] = (),
    depths: Sequence[int] = (),
    folds: int = 5,
    seed: int = 0,
) -> None:
    """Refuse what `train_on_ablations` would, as far as can be told before anything is read.

    Raises:
        InputError: See `train_on_ablations`, which has the same arguments.
        DataError: If the folder holds another collection.
    """
    _check_designs(
        model, signal, _reading(target), specs=specs or (), objectives=objectives, depths=depths
    )
    if len(examples) < folds:
        raise InputError(
            f"the data has {len(examples)} examples, cross-validation needs {folds}; pass more "
            "data or fewer folds"
        )
    if signal == "both":
        check_gold_groups(labelled_groups(examples), folds)
    identity: dict[str, Any] = {
        "fingerprint": fingerprint,
        "seed": seed,
        "plan": plan or AblationPlan(),
    }
    check_collection(folder, ablation_settings(model, examples, **identity))
    if target == "answer":
        settings = answer_settings(model, ablations_identity(model, examples, **identity))
        check_collection(Path(folder) / ANSWERS_FOLDER, settings)


def _reading(target: TargetRule) -> Reading:
    return "joint" if target == "answer" else "independent"


def _check_designs(
    model: ScoringModel,
    signal: Signal,
    reading: Reading,
    *,
    specs: Sequence[FeatureSpec],
    objectives: Sequence[Objective],
    depths: Sequence[int],
) -> None:
    for depth in depths:
        if not 1 <= depth <= model.depth:
            raise InputError(f"depth is {depth}; pass 1 to {model.depth}, the depth collected")
    for spec in specs:
        if spec.reading != reading:
            raise InputError(
                f"the features {spec} are of reading {spec.reading!r}, to be fitted for is "
                f"{reading!r}; pass features of the passes {', '.join(PASSES[reading])}"
            )
    for objective in objectives:
        if objective not in OBJECTIVES[signal]:
            raise InputError(
                f"the signal {signal!r} has no objective {objective!r}; pass "
                f"{', '.join(OBJECTIVES[signal])}"
            )
