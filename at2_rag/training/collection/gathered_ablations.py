"""Examples as training on ablations needs them: read, labelled, split into folds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from at2_rag.data.examples import Example, gold_groups, linked_groups, passage_keys
from at2_rag.errors import InputError
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.readout.head_weights import TargetRule
from at2_rag.training.answering.answer_model import AnswerModel
from at2_rag.training.collection.ablations import (
    SHARD_TOKENS,
    AblationPlan,
    ablation_settings,
    collect_ablations,
    drawn_samples,
)
from at2_rag.training.collection.answer_features import ANSWERS_FOLDER, with_answer_features
from at2_rag.training.collection.shards import Sample, plan_shards, unlabelled_chunks
from at2_rag.training.fitting.ablation_validation import AblationSamples
from at2_rag.training.fitting.validation import assign_folds, source_weights

Signal = Literal["ablation", "both"]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class GatheredAblations:
    """Collected samples, ready to fit, and how they are to be split.

    Attributes:
        samples: The samples.
        groups: Each sample's group; folds keep a group together.
        fold_of: [I] int64, each sample's fold.
        weights: [I] float64, of the samples in the loss: every source counts the same.
    """

    samples: AblationSamples
    groups: Sequence[int]
    fold_of: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]


def gather_ablations(
    model: ScoringModel,
    answer_model: AnswerModel,
    examples: Sequence[Example],
    folder: str | Path,
    *,
    fingerprint: str,
    signal: Signal,
    target: TargetRule = "question",
    plan: AblationPlan | None = None,
    folds: int = 5,
    seed: int = 0,
    workers: int = 1,
    progress: Progress = lambda stage, done, total: None,
) -> GatheredAblations:
    """Collect what is missing, and split it into folds; arguments as in `train_on_ablations`.

    Raises:
        InputError: If there are fewer groups than folds, or no example can be ablated.
        DataError: If the folder holds another collection.
    """
    identity: dict[str, Any] = {
        "fingerprint": fingerprint,
        "seed": seed,
        "plan": plan or AblationPlan(),
    }
    collected = collect_ablations(
        model,
        answer_model,
        examples,
        folder,
        **identity,
        workers=workers,
        progress=lambda done, total: progress("reading", done, total),
    )
    drawn = _drawn(examples, seed)
    if target == "answer":
        collected = with_answer_features(
            model,
            examples,
            collected,
            [drawn[int(index)] for index in collected.examples],
            Path(folder) / ANSWERS_FOLDER,
            identity=ablations_identity(model, examples, **identity),
            workers=workers,
            progress=lambda done, total: progress("reading answers", done, total),
        )
    sources = [examples[index].source for index in collected.examples]
    chunks = [drawn[int(index)] for index in collected.examples]
    labels, unlabelled = _labels(examples, chunks) if signal == "both" else (None, None)
    samples = AblationSamples.of(
        collected, sources, labels, unlabelled=unlabelled, question=target == "question"
    )
    groups = _groups(examples, samples, chunks, labelled=signal == "both")
    if len(set(groups)) < folds:
        raise InputError(
            f"the data has {len(set(groups))} groups of examples that share passages, "
            f"cross-validation needs {folds}; pass more data or fewer folds"
        )
    fold_of = assign_folds(groups, folds, np.random.default_rng(seed))
    return GatheredAblations(samples, groups, fold_of, source_weights(sources))


def ablations_identity(
    model: ScoringModel,
    examples: Sequence[Example],
    *,
    fingerprint: str,
    seed: int,
    plan: AblationPlan,
) -> str:
    """Return a hash of all that decides collected ablations."""
    settings = ablation_settings(model, examples, fingerprint=fingerprint, seed=seed, plan=plan)
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()


def _drawn(examples: Sequence[Example], seed: int) -> dict[int, Sample]:
    """Return the samples that were collected, by example."""
    return {
        sample.example: sample
        for shard in plan_shards(examples, shard_tokens=SHARD_TOKENS)
        for sample in drawn_samples(examples, shard, seed=seed)
    }


def _labels(
    examples: Sequence[Example], drawn: Sequence[Sample]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return for every chunk whether it is gold, and whether that is a guess."""
    guesses = [
        guess for sample in drawn for guess in unlabelled_chunks(examples[sample.example], sample)
    ]
    labels = [label for sample in drawn for label in sample.labels]
    return np.array(labels), np.array(guesses)


def _groups(
    examples: Sequence[Example],
    samples: AblationSamples,
    drawn: Sequence[Sample],
    *,
    labelled: bool,
) -> list[int]:
    """Return each sample's group: those that share gold passages, or else their top passage."""
    if labelled:
        gold = gold_groups(examples)
        return [gold[sample.example] for sample in drawn]
    ends = np.cumsum(samples.collected.counts)
    top: list[int] = [
        int(np.argmax(samples.contributions[end - len(sample.chunks) : end]))
        for sample, end in zip(drawn, ends, strict=True)
    ]
    return linked_groups(
        [passage_keys([sample.chunks[place]]) for sample, place in zip(drawn, top, strict=True)]
    )
