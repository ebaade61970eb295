"""Reads with the model what a calibration is fitted to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from at2_rag.data.examples import Example, gold_groups
from at2_rag.reading.features import FeatureSpec, Pass
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.readout.calibration import Outcome
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.readout.multi_hop import multi_hop_question
from at2_rag.text.chunks import Prior
from at2_rag.training.answering.answer_model import AnswerModel
from at2_rag.training.calibrating.examples import CalibrationExamples, known_priors
from at2_rag.training.calibrating.fits import Bools, Floats
from at2_rag.training.calibrating.multi_hop import MultiHopSample
from at2_rag.training.calibrating.probabilities import CalibrationSample
from at2_rag.training.collection.collection import Collection, Row
from at2_rag.training.collection.drops import DropCollection
from at2_rag.training.collection.features import FeatureCollection
from at2_rag.training.collection.features import Features as FeatureArrays
from at2_rag.training.collection.samples import content_hash
from at2_rag.training.collection.sentences import SentenceCollection
from at2_rag.training.fitting.cross_validation import assign_folds

RELEVANT_DROP = 0.1
"""Drop above which a chunk is relevant by the outcome "removal", in nats a token of the answer."""

Progress = Callable[[str, int, int], None]
"""Takes the name of a stage, the steps done and the steps in all."""

Features = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class SampleReader:
    """Reads samples of examples, and keeps all that was read in a folder.

    Its methods read only what the folder doesn't hold. They raise DataError if it holds something
    else, and InputError if no example fits the model's window. For its fields see `Calibrator`;
    `model` is cut to the layers of the head weights, `answer_model` is whole.
    """

    model: ScoringModel
    answer_model: AnswerModel
    weights: HeadWeights
    folder: Path
    fingerprint: str
    folds: int
    seed: int
    workers: int
    progress: Progress

    def read(
        self,
        examples: CalibrationExamples,
        *,
        outcome: Outcome = "evidence",
        priors: Sequence[Prior] = (),
        subfolder: str = "",
    ) -> list[CalibrationSample]:
        """Return samples of the chosen examples that fit the model's window, then of their twins.

        Examples that share a gold passage are in one fold, and twins in that of their example.

        Args:
            examples: What to read.
            outcome: What makes a chunk relevant; only "removal" reads answers.
            priors: The kinds of prior terms that samples are to have.
            subfolder: Where in the folder to keep what is read.
        """
        folder = self.folder / subfolder
        chosen, twins = examples.chosen, examples.twins
        rng = np.random.default_rng(self.seed)
        folds = assign_folds(gold_groups(chosen), self.folds, rng).tolist()
        features = list(self._features("examples", chosen, folder))
        twin_features = list(self._features("twins", twins, folder))
        relevant = self._relevant(chosen, outcome, folder)
        samples = [
            replace(
                _sample(chosen[index], rows, folds[index], index),
                relevant=relevant.get(index),
                priors=known_priors(chosen[index], priors),
            )
            for index, rows in features
        ]
        for index, rows in twin_features:
            example = examples.twins_of[index]
            sample = _sample(twins[index], rows, folds[example], example)
            samples.append(replace(sample, answerable=not twins[index].unanswerable))
        return samples

    def read_again(
        self,
        examples: CalibrationExamples,
        samples: Sequence[CalibrationSample],
        scores: Sequence[Floats],
        evidence: Sequence[float],
    ) -> list[MultiHopSample]:
        """Read each question of the chosen examples beside its best chunk, over the other chunks.

        Args:
            examples: The examples.
            samples: What `read` returned for them.
            scores: Each sample's scores.
            evidence: Each sample's greatest evidence logit, by a readout fitted without its fold.
        """
        indices = [index for index, sample in enumerate(samples) if sample.answerable is None]
        questions = [
            _beside_best(examples.chosen[samples[index].example], int(np.argmax(scores[index])))
            for index in indices
        ]
        # The best chunks depend on the head weights.
        folder = self.folder / f"multi_hop-{content_hash(questions)[:8]}"
        read = self._features("again", questions, folder, passes=("together",))
        return [
            MultiHopSample(
                samples[index].source,
                samples[index].fold,
                scores[index],
                samples[index].gold,
                evidence[index],
                features,
                index=index,
            )
            for index, features in ((indices[question], rows) for question, rows in read)
        ]

    def read_sentences(self, examples: CalibrationExamples) -> dict[int, Features]:
        """Return the scores [U] of each chosen example's sentences, by the example's index."""
        collection = SentenceCollection(self.model, self.weights, examples.chosen, self.folder)
        rows = self._collect("reading sentences", collection)
        return {index: row["scores"] for index, row in rows.items()}

    def _collect(self, stage: str, collection: Collection) -> Mapping[int, Row]:
        return collection.collect(
            workers=self.workers, progress=lambda done, total: self.progress(stage, done, total)
        ).rows

    def _features(
        self,
        name: str,
        examples: Sequence[Example],
        folder: Path,
        *,
        passes: tuple[Pass, ...] | None = None,
    ) -> Iterable[tuple[int, Features]]:
        """Return the index and the features [S, F] of each example that fits the window."""
        if not examples:
            return ()
        spec = self.weights.spec
        collection = FeatureCollection(
            self.model,
            examples,
            folder / name,
            reading=spec.reading,
            fingerprint=self.fingerprint,
            seed=self.seed,
            padded=False,
            passes=passes,
        )
        features = FeatureArrays.of(self._collect(f"reading {name}", collection))
        matrix = features.matrix(
            FeatureSpec(spec.quantity, passes or spec.passes), self.model.depth
        )
        return zip(features.examples.tolist(), features.by_sample(matrix), strict=True)

    def _relevant(
        self, examples: Sequence[Example], outcome: Outcome, folder: Path
    ) -> Mapping[int, Bools]:
        """Return by an example's index which of its chunks are relevant, [S], where it is known."""
        if outcome == "evidence":
            return {index: np.array(example.labels) for index, example in enumerate(examples)}
        collection = DropCollection(
            self.answer_model, examples, folder / "drops", fingerprint=self.fingerprint
        )
        rows = self._collect("leaving chunks out", collection)
        return {index: row["drops"] > RELEVANT_DROP for index, row in rows.items()}


def _sample(example: Example, features: Features, fold: int, index: int) -> CalibrationSample:
    return CalibrationSample(
        source=example.source,
        fold=fold,
        features=features,
        gold=np.array(example.labels),
        words=np.array([len(chunk.rendered.split()) for chunk in example.chunks], dtype=np.int64),
        example=index,
    )


def _beside_best(example: Example, best: int) -> Example:
    """Return the example with its best chunk moved into the question."""
    others = [index for index in range(len(example.chunks)) if index != best]
    return replace(
        example,
        query=multi_hop_question(example.query, example.chunks[best]),
        chunks=tuple(example.chunks[index] for index in others),
        labels=tuple(example.labels[index] for index in others),
        gold_sentences=(),
    )
