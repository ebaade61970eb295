"""From examples to head weights: collect samples, choose a design, fit it on everything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

import numpy as np

from at2_rag.arrays import Floats
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.readout.shortlist import Design
from at2_rag.training.fitting.cross_validation import (
    Candidate,
    CandidateResult,
    CrossValidation,
    assign_folds,
)
from at2_rag.training.fitting.objectives import OBJECTIVES, Objective, fit_objective
from at2_rag.training.fitting.samples import Judge, Samples
from at2_rag.training.fitting.training_data import Progress, TrainingData, TrainingPlan

RIDGES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)


@dataclass(frozen=True, slots=True, eq=False)
class Training:
    """What a training run gave."""

    weights: HeadWeights  # fitted on all samples, in the chosen design
    results: tuple[CandidateResult, ...]  # of every design, in the order tried
    chosen: CandidateResult  # the one with the highest macro nDCG@10 out of fold
    samples: Mapping[str, int]  # samples fitted on, by source
    left_out: Mapping[str, int]  # examples that gave no sample, by reason
    importance: Floats  # [P, L, H], see `head_importance`
    judged_by: Judge  # what says which chunks are relevant in the figures out of fold


def train(
    data: TrainingData,
    *,
    workers: int = 1,
    progress: Progress = lambda stage, done, total: None,
) -> Training:
    """Fit head weights.

    First every feature set is cross-validated at the largest depth, with every objective and every
    ridge; then the best of them at each of the other depths. The best of all is fitted on
    everything. Folds keep examples together that share a gold passage, or without labels their most
    important passage, or the teacher's best; or they are the sources. Deterministic for the same
    data and torch threads.
    """
    data.check()
    plan = data.plan
    samples = data.gather(workers=workers, progress=progress)
    if plan.leave_out_sources:
        fold_of = samples.linked_sources()
    else:
        fold_of = assign_folds(samples.groups, plan.folds, np.random.default_rng(plan.seed))
    validation = CrossValidation(samples, fold_of)
    objectives = plan.objectives or OBJECTIVES[plan.signal]
    if plan.signal == "teacher" and samples.labels is None:
        objectives = ("teacher",)
    results = _try_designs(validation, plan, data.depths, objectives, progress)
    chosen = max(results, key=attrgetter("ndcg"))
    progress("fit", 0, 1)
    weights = replace(
        fit_weights(samples, chosen.candidate, heads=data.model.heads),
        fingerprint=data.fingerprint,
        template_hash=data.model.prompts.template_hash(plan.features_read),
        target_rule=plan.target,
    )
    progress("fit", 1, 1)
    return Training(
        weights,
        tuple(results),
        chosen,
        dict(sorted(Counter(samples.sources).items())),
        samples.left_out,
        head_importance(samples, weights),
        samples.judged_by,
    )


def fit_weights(samples: Samples, design: Candidate, *, heads: int) -> HeadWeights:
    """Return head weights fitted on all samples in a design, bound to no model."""
    features = samples.features.matrix(design.spec, design.depth)
    everything = np.ones(len(samples.sources), dtype=bool)
    design_terms = None if samples.shortlist is None else Design.of(samples.shortlist, features)
    fit = fit_objective(
        design.objective,
        samples,
        features if design_terms is None else design_terms.terms(features),
        ridge=design.ridge,
        chosen=everything,
        groups=samples.limit(design.depth, design.key_heads),
    )
    weight, bias, shortlist = fit.weight, fit.bias, None
    if design_terms is not None:
        weight, bias, shortlist = design_terms.fitted(weight, bias)
    shape = (len(design.spec.passes), design.depth, heads)
    return HeadWeights(
        weight=weight.reshape(shape).astype(np.float32),
        bias=bias,
        spec=design.spec,
        shortlist=shortlist,
        score_scale="additive" if design.objective == "pearson" else "logit",
    )


def head_importance(samples: Samples, weights: HeadWeights) -> Floats:
    """Return the standard deviation that each head alone gives the score, [P, L, H]."""
    matrix = samples.features.matrix(weights.spec, weights.layers)
    spread = np.nanstd(matrix, axis=0, dtype=np.float64).reshape(weights.weight.shape)
    importance: Floats = np.abs(weights.weight.astype(np.float64)) * spread
    return importance


def _try_designs(
    validation: CrossValidation,
    plan: TrainingPlan,
    depths: Sequence[int],
    objectives: Sequence[Objective],
    progress: Progress,
) -> list[CandidateResult]:
    """Judge every design at the largest depth, then the best of them at the others."""
    deepest, *shallower = sorted(set(depths), reverse=True)
    designs = [
        Candidate(spec, deepest, ridge, objective, plan.key_heads)
        for spec in plan.specs_tried
        for objective in objectives
        for ridge in RIDGES
    ]
    total = len(designs) + len(shallower)
    results: list[CandidateResult] = []
    progress("cross-validation", 0, total)

    def judge(designs: Iterable[Candidate]) -> None:
        for design in designs:
            results.append(validation.judge(design))
            progress("cross-validation", len(results), total)

    judge(designs)
    best = max(results, key=attrgetter("ndcg")).candidate
    judge(replace(best, depth=layers) for layers in shallower)
    return results
