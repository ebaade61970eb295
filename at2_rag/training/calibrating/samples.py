"""Reads with the model what a calibration is fitted to."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from at2_rag.arrays import Bools, Indices
from at2_rag.data.clusters import item_clusters
from at2_rag.data.examples import Example, gold_groups
from at2_rag.model.loading import LoadedModel
from at2_rag.pruning.legibility import Legibility
from at2_rag.reading.chunk_states import StateStore
from at2_rag.reading.features import FeatureSpec, Pass
from at2_rag.reading.scoring_model import ScoringModel, layers_and_heads
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.readout.multi_hop import chunks_read_again, multi_hop_question
from at2_rag.readout.shipped import check_match
from at2_rag.text.chunks import Prior
from at2_rag.text.echo import without_echoes
from at2_rag.training.calibrating.examples import CalibrationExamples, known_priors
from at2_rag.training.calibrating.multi_hop import MultiHopSample
from at2_rag.training.calibrating.probabilities import CalibrationSample, ScoredSample
from at2_rag.training.calibrating.sentences import gold_sentences
from at2_rag.training.collection.collection import Collection, Row, reading_depth
from at2_rag.training.collection.features import (
    FeatureCollection,
    Features,
    ShortlistCollection,
)
from at2_rag.training.collection.samples import content_hash
from at2_rag.training.collection.sentences import SentenceCollection
from at2_rag.training.fitting.cross_validation import assign_folds

MOST_WITH_SENTENCES = 100  # questions whose sentences are read

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
        self._scoring_model = self._model_of(self.weights.layers)
        template_hash = self._scoring_model.prompts.template_hash(self.weights.reading)
        check_match(self.weights, self.model, template_hash=template_hash)

    def read(
        self, examples: CalibrationExamples, *, priors: Sequence[Prior] = ()
    ) -> list[CalibrationSample]:
        """Return samples of the lists of the chosen examples that fit the model's window.

        Examples that share a gold passage are in one fold, with all of their lists.
        """
        rng = np.random.default_rng(self.seed)
        folds = assign_folds(gold_groups(examples.chosen), self.folds, rng).tolist()
        features = self._features("lists", [one.example for one in examples.lists])
        samples = []
        for index, rows in features.items():
            read = examples.lists[index]
            example, question = read.example, read.question
            known = known_priors(example, priors) if read.kind == "retrieved" else {}
            gold = np.array(example.labels)
            samples.append(
                CalibrationSample(
                    example.source, folds[question], rows, gold, read.kind, known, question
                )
            )
        return samples

    def read_again(
        self, examples: Sequence[Example], scored: Sequence[ScoredSample]
    ) -> dict[int, MultiHopSample]:
        """Read each question again beside its best chunk as retrieved, over the other chunks.

        Samples are returned by their index in `scored`.
        """
        indices = [index for index, row in enumerate(scored) if row.sample.is_retrieved]
        rows = [scored[index] for index in indices]
        read = [chunks_read_again(row.scores) for row in rows]
        questions = [
            _beside_best(examples[row.sample.question], best, others)
            for row, (best, others) in zip(rows, read, strict=True)
        ]
        # The best chunks depend on the head weights.
        folder = f"multi_hop-{content_hash(questions)[:8]}/again"
        clusters = item_clusters(examples)
        result = {}
        for question, features in self._features(folder, questions, ("together",)).items():
            sample, scores, _ = rows[question]
            result[indices[question]] = MultiHopSample(
                sample.source,
                sample.fold,
                scores,
                sample.gold,
                *read[question],
                features,
                cluster=clusters[sample.question],
            )
        return result

    def unread(self, examples: Sequence[Example]) -> float:
        """Return how much the model hardly reads of examples' questions or chunks, in [0, 1]."""
        legibility = Legibility(self._scoring_model.prompts)
        of_examples = (legibility.unread_texts(one.query, one.chunks) for one in examples)
        return float(np.mean(list(map(max, of_examples))))

    def read_sentences(self, examples: Sequence[Example]) -> dict[int, Float32s]:
        """Return the scores [U] of examples' sentences, by the example's index.

        Read are examples of which it is known what sentences hold evidence, evenly spread if there
        are more than `MOST_WITH_SENTENCES`: all of their chunks are read again.
        """
        known = [i for i, example in enumerate(examples) if gold_sentences(example) is not None]
        known = known[:: math.ceil(len(known) / MOST_WITH_SENTENCES)]
        collection = SentenceCollection(
            self._scoring_model,
            self.weights,
            [examples[index] for index in known],
            self.folder,
            store=self.store,
        )
        rows = self._collect("reading sentences", collection)
        return {known[number]: row["scores"] for number, row in rows.items()}

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
        """Return the features [S, F] of each example that fits the window, by its index.

        Key heads that the weights don't use count as unread.
        """
        spec, shortlist, folder = self.weights.spec, self.weights.shortlist, self.folder / name
        layers, _ = layers_and_heads(self.model.model.base_model.config)
        depth = reading_depth(self.weights.layers, [folder], layers=layers)
        first = FeatureCollection(
            self._model_of(depth),
            examples,
            folder,
            reading=spec.reading,
            fingerprint=self.model.fingerprint,
            seed=self.seed,
            padded=False,
            passes=passes or (spec.passes if shortlist is None else ("late",)),
            store=self.store,
        )
        collection: FeatureCollection | ShortlistCollection = first
        if shortlist is not None and passes is None:
            collection = ShortlistCollection(
                self._scoring_model, first, shortlist, spec.passes, store=self.store
            )
        rows = self._collect(f"reading {name.split('/')[-1]}", collection)
        features = Features.of(rows, collection.passes)
        spec = FeatureSpec(spec.quantity, passes or spec.passes)
        matrix = features.matrix(spec, self._scoring_model.depth)
        if "late" in spec.passes:
            matrix[:, ~self._read_heads(len(spec.passes))] = 0.0
        return dict(zip(features.examples.tolist(), features.by_sample(matrix), strict=True))

    def _model_of(self, depth: int) -> ScoringModel:
        return ScoringModel(self.model.model, self.model.tokenizer, depth=depth)

    def _read_heads(self, passes: int) -> Bools:
        """Return which features [F] are read: of the late pass those of key heads in use."""
        weights, model = self.weights, self._scoring_model
        read = np.ones((passes, weights.layers, model.key_heads), dtype=bool)
        if used := weights.key_heads(model.key_heads):
            read[weights.spec.passes.index("late")] = False
            for layer, head in used:
                read[weights.spec.passes.index("late"), layer, head] = True
        return read.repeat(model.heads // model.key_heads, axis=2).ravel()


def _beside_best(example: Example, best: int, others: Indices) -> Example:
    """Return the example with its best chunk moved into the question, and of the others some.

    All of them without echoes of the question, as a pruner reads them.
    """
    chunks = without_echoes(example.query, example.chunks)
    return replace(
        example,
        query=multi_hop_question(example.query, chunks[best]),
        chunks=tuple(chunks[index] for index in others),
        labels=tuple(example.labels[index] for index in others),
        gold_sentences=(),
    )
