"""Reads with the model what a calibration is fitted to."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from at2_rag.arrays import Indices
from at2_rag.data.clusters import item_clusters
from at2_rag.data.examples import Example, gold_groups
from at2_rag.model.loading import LoadedModel
from at2_rag.reading.chunk_states import StateStore
from at2_rag.reading.features import FeatureSpec, Pass
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.readout.multi_hop import chunks_read_again, multi_hop_question
from at2_rag.readout.shipped import check_match
from at2_rag.text.chunks import Prior
from at2_rag.training.calibrating.examples import CalibrationExamples, known_priors
from at2_rag.training.calibrating.multi_hop import MultiHopSample
from at2_rag.training.calibrating.probabilities import CalibrationSample, ScoredSample
from at2_rag.training.collection.collection import Collection, Row
from at2_rag.training.collection.features import (
    FeatureCollection,
    Features,
    ShortlistCollection,
)
from at2_rag.training.collection.samples import content_hash
from at2_rag.training.collection.sentences import SentenceCollection
from at2_rag.training.fitting.cross_validation import assign_folds

Float32s = npt.NDArray[np.float32]


@dataclass(eq=False)
class SampleReader:
    """Reads examples for the head weights to calibrate, once: the folder keeps the results."""

    model: LoadedModel
    weights: HeadWeights
    folder: Path
    folds: int = 5
    seed: int = 0  # of the folds
    store: StateStore | None = None  # what is kept of chunks from one reading to the next
    workers: int | None = None  # threads that read, each with one torch thread; None: one a core
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None

    def __post_init__(self) -> None:
        hf_model, tokenizer = self.model.model, self.model.tokenizer
        self._scoring_model = ScoringModel(hf_model, tokenizer, depth=self.weights.layers)
        template_hash = self._scoring_model.prompts.template_hash(self.weights.reading)
        check_match(self.weights, self.model, template_hash=template_hash)

    def read(
        self, examples: CalibrationExamples, *, priors: Sequence[Prior] = ()
    ) -> list[CalibrationSample]:
        """Return samples of the chosen examples that fit the model's window, then of their twins.

        Examples that share a gold passage are in one fold, and twins in that of their example.
        """
        chosen = examples.chosen
        rng = np.random.default_rng(self.seed)
        folds = assign_folds(gold_groups(chosen), self.folds, rng).tolist()
        features = self._features("examples", chosen)
        twin_features = self._features("twins", [twin for _, twin in examples.twins])
        samples = []
        for index, rows in features.items():
            terms = known_priors(chosen[index], priors)
            samples.append(_sample(chosen[index], rows, folds, index, priors=terms))
        for index, rows in twin_features.items():
            example_index, twin = examples.twins[index]
            answerable = not twin.unanswerable
            samples.append(_sample(twin, rows, folds, example_index, answerable=answerable))
        return samples

    def read_again(
        self, examples: Sequence[Example], scored: Sequence[ScoredSample]
    ) -> dict[int, MultiHopSample]:
        """Read each question but twins' again beside its best chunk, over the other chunks.

        Samples are returned by their index in `scored`.
        """
        indices = [index for index, row in enumerate(scored) if not row.sample.is_twin]
        rows = [scored[index] for index in indices]
        read = [chunks_read_again(row.scores) for row in rows]
        questions = [
            _beside_best(examples[row.sample.example], best, others)
            for row, (best, others) in zip(rows, read, strict=True)
        ]
        # The best chunks depend on the head weights.
        folder = f"multi_hop-{content_hash(questions)[:8]}/again"
        clusters = item_clusters(examples)
        result = {}
        for question, features in self._features(folder, questions, ("together",)).items():
            sample, scores, evidence = rows[question]
            result[indices[question]] = MultiHopSample(
                sample.source,
                sample.fold,
                scores,
                sample.gold,
                evidence,
                *read[question],
                features,
                cluster=clusters[sample.example],
            )
        return result

    def read_sentences(self, examples: Sequence[Example]) -> dict[int, Float32s]:
        """Return the scores [U] of each example's sentences, by the example's index."""
        collection = SentenceCollection(
            self._scoring_model, self.weights, examples, self.folder, store=self.store
        )
        rows = self._collect("reading sentences", collection)
        return {index: row["scores"] for index, row in rows.items()}

    def _collect(self, stage: str, collection: Collection) -> Mapping[int, Row]:
        return collection.collect(
            workers=self.workers or os.cpu_count() or 1,
            progress=lambda done, total: self.progress(stage, done, total),
        ).rows

    def _features(
        self,
        name: str,
        examples: Sequence[Example],
        passes: tuple[Pass, ...] | None = None,
    ) -> dict[int, Float32s]:
        """Return the features [S, F] of each example that fits the window, by its index."""
        if not examples:
            return {}
        spec, shortlist = self.weights.spec, self.weights.shortlist
        late = FeatureCollection(
            self._scoring_model,
            examples,
            self.folder / name,
            reading=spec.reading,
            fingerprint=self.model.fingerprint,
            seed=self.seed,
            padded=False,
            passes=passes or (spec.passes if shortlist is None else ("late",)),
            heads=self.weights.key_heads(self._scoring_model.key_heads) or None,
            store=self.store,
        )
        collection: FeatureCollection | ShortlistCollection = late
        if shortlist is not None and passes is None:
            collection = ShortlistCollection(
                self._scoring_model, late, shortlist, spec.passes, store=self.store
            )
        rows = self._collect(f"reading {name.split('/')[-1]}", collection)
        features = Features.of(rows, collection.passes)
        spec = FeatureSpec(spec.quantity, passes or spec.passes)
        matrix = features.matrix(spec, self._scoring_model.depth)
        return dict(zip(features.examples.tolist(), features.by_sample(matrix), strict=True))


def _sample(
    example: Example, features: Float32s, folds: Sequence[int], index: int, **more: Any
) -> CalibrationSample:
    gold = np.array(example.labels)
    return CalibrationSample(example.source, folds[index], features, gold, example=index, **more)


def _beside_best(example: Example, best: int, others: Indices) -> Example:
    """Return the example with its best chunk moved into the question, and of the others some."""
    return replace(
        example,
        query=multi_hop_question(example.query, example.chunks[best]),
        chunks=tuple(example.chunks[index] for index in others),
        labels=tuple(example.labels[index] for index in others),
        gold_sentences=(),
    )
