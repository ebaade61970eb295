"""What a training run asks for, checked before anything is read, and the samples it collects."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias, get_args

import numpy as np

from at2_rag.arrays import Floats
from at2_rag.data.examples import Example, linked_groups, passage_keys
from at2_rag.errors import InputError
from at2_rag.model.loading import LoadedModel
from at2_rag.reading.features import PASSES, FeatureSpec, Pass, Quantity, Reading
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.readout.head_weights import TargetRule
from at2_rag.readout.shortlist import Shortlist
from at2_rag.text.chunks import Chunk
from at2_rag.training.answering.answer_model import AnswerModel
from at2_rag.training.collection.ablations import (
    AblationCollection,
    AblationPlan,
    AnswerFeatureCollection,
)
from at2_rag.training.collection.collection import Collected, Collection, Row
from at2_rag.training.collection.features import (
    FeatureCollection,
    Features,
    ShortlistCollection,
)
from at2_rag.training.collection.samples import (
    Sample,
    doubtful_labels,
    has_ranking,
    is_taught,
)
from at2_rag.training.fitting.objectives import ABLATED, LABELLED, OBJECTIVES, Objective, Signal
from at2_rag.training.fitting.samples import Effects, Samples, link_sources
from at2_rag.training.fitting.soft_labels import soft_labels

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with a stage's name, the steps done and in all; the first call of a stage begins it."""

_PASS_CHOICES: Mapping[Reading, tuple[tuple[Pass, ...], ...]] = {
    "independent": (("late",), ("together", "apart"), ("late", "together", "apart")),
    "joint": (("joint",),),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """What to learn from, and which designs to try.

    The signal "evidence" reads features and fits to gold labels. "ablation" reads features and what
    ablations do to answers, and looks at no label, neither in the fit nor in the choice. "both"
    reads the same and fits to labels, too, which judge all designs; labels say nothing of added
    chunks that hold a reference answer, nor of samples whose chunks are all gold. "teacher" reads
    features, of examples without a gold chunk by their chunks' teacher scores alone; gold labels
    judge all designs where there are any, else the chunk that the teacher ranks first.
    """

    signal: Signal = "evidence"
    target: TargetRule = "question"  # whose attention is read; "answer" is read jointly
    reading: Reading = "independent"  # how chunks are read for the question
    specs: tuple[FeatureSpec, ...] = ()  # to try; none for all of the reading's
    objectives: tuple[Objective, ...] = ()  # to try; none for all of the signal's
    depths: tuple[int, ...] = ()  # to try, in layers; none for the model's alone
    folds: int = 5
    leave_out_sources: bool = False  # makes each source, with those it shares gold with, a fold
    seed: int = 0  # of added chunks, masks and folds
    key_heads: int | None = None  # most that have weights, of weights for late reading; None: all
    shortlist: Shortlist | None = None  # chooses what is read by more than the late pass
    ablations: AblationPlan = field(default_factory=AblationPlan)

    def __post_init__(self) -> None:
        if self.signal not in ABLATED and self.target == "answer":
            raise InputError(
                "the target 'answer' is learned from ablated answers; pass the signal 'ablation' "
                "or 'both'"
            )
        if self.signal in ABLATED and self.reading != "independent":
            raise InputError(
                f"the signal {self.signal!r} reads ablations over chunk states; pass the reading "
                f"'independent' instead of {self.reading!r}"
            )
        for spec in self.specs:
            if spec.reading != self.features_read:
                raise InputError(
                    f"the features {spec} are of reading {spec.reading!r}, to be fitted for is "
                    f"{self.features_read!r}; pass features of the passes "
                    f"{', '.join(PASSES[self.features_read])}"
                )
        if self.key_heads is not None and any(
            spec.passes != ("late",) for spec in self.specs_tried
        ):
            raise InputError(
                f"key_heads is {self.key_heads}, which only late features can be limited to; pass "
                "features like log:late"
            )
        for objective in self.objectives:
            if objective not in OBJECTIVES[self.signal]:
                raise InputError(
                    f"the signal {self.signal!r} has no objective {objective!r}; pass "
                    f"{', '.join(OBJECTIVES[self.signal])}"
                )
        if self.shortlist is not None:
            self._check_shortlist(self.shortlist)

    def _check_shortlist(self, shortlist: Shortlist) -> None:
        for spec in self.specs_tried:
            if (
                self.signal in ABLATED
                or spec.quantity != "log"
                or spec.passes[0] != "late"
                or len(spec.passes) == 1
            ):
                raise InputError(
                    "a shortlist is for the log of late and other passes, fitted without "
                    "ablations; pass features like log:late+together+apart and the signal "
                    "'evidence' or 'teacher'"
                )

    @property
    def features_read(self) -> Reading:
        """The reading that the features, and so the weights, are of."""
        return "joint" if self.target == "answer" else self.reading

    @property
    def passes_read(self) -> tuple[Pass, ...]:
        """The passes that some feature set to try has."""
        wanted = {name for spec in self.specs_tried for name in spec.passes}
        return tuple(name for name in PASSES[self.features_read] if name in wanted)

    @property
    def specs_tried(self) -> tuple[FeatureSpec, ...]:
        """The feature sets to try."""
        return self.specs or tuple(
            FeatureSpec(quantity, passes)
            for quantity in get_args(Quantity)
            for passes in _PASS_CHOICES[self.features_read]
        )


class TrainingData:
    """The examples of a training run, and the folder in which what is read of them is kept.

    A killed run goes on from there. `depth` is how many layers to read, no fewer than the plan has;
    None for all. `model` is the scoring model, cut to them, and `depths` are those to try.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        examples: Sequence[Example],
        folder: str | Path,
        plan: TrainingPlan,
        *,
        depth: int | None = None,
    ) -> None:
        self.examples, self.plan, self.fingerprint = examples, plan, loaded.fingerprint
        self.model = ScoringModel(loaded.model, loaded.tokenizer, depth=depth)
        self._loaded, shortlist = loaded, plan.shortlist
        self.depths = plan.depths or (self.model.depth if shortlist is None else shortlist.layers,)
        for layers in self.depths:
            if not 1 <= layers <= self.model.depth:
                raise InputError(
                    f"depth is {layers}; pass 1 to {self.model.depth}, the depth collected"
                )
            if shortlist is not None and layers != shortlist.layers:
                raise InputError(
                    f"depth is {layers}; pass {shortlist.layers}, the layers of the shortlist's "
                    "weights"
                )
        self._collection: FeatureCollection | ShortlistCollection | AblationCollection
        if plan.signal not in ABLATED:
            taught = plan.signal == "teacher"
            self._collection = self.features_of(examples, folder, seed=plan.seed, taught=taught)
        else:
            self._collection = AblationCollection(
                self.model,
                AnswerModel(loaded.model, loaded.tokenizer),
                examples,
                folder,
                fingerprint=self.fingerprint,
                seed=plan.seed,
                plan=plan.ablations,
            )

    def features_of(
        self,
        examples: Sequence[Example],
        folder: str | Path,
        *,
        seed: int,
        padded: bool = True,
        taught: bool = False,
    ) -> FeatureCollection | ShortlistCollection:
        """Return where features of examples are kept, of the passes that the plan's designs have.

        See `FeatureCollection` for `seed`, `padded` and `taught`.
        """
        plan = self.plan
        collection = FeatureCollection(
            self.model,
            examples,
            folder,
            reading=plan.reading,
            fingerprint=self.fingerprint,
            seed=seed,
            padded=padded,
            taught=taught,
            passes=plan.passes_read if plan.shortlist is None else ("late",),
        )
        if plan.shortlist is None:
            return collection
        hf_model, tokenizer = self._loaded.model, self._loaded.tokenizer
        model = ScoringModel(hf_model, tokenizer, depth=plan.shortlist.layers)
        return ShortlistCollection(model, collection, plan.shortlist, plan.passes_read)

    @property
    def samples(self) -> Mapping[int, Sample]:
        """What is read of each example, by its index."""
        return self._collection.samples

    def check(self) -> None:
        """Refuse what can't be fitted, as far as can be known before anything is read."""
        if self.plan.signal == "ablation":
            self._check_folds(self.examples, range(len(self.examples)), "examples")
        else:
            taught = self.plan.signal == "teacher"
            if taught:
                self._check_teacher()
            groups = zip(self._groups(), self.examples, strict=True)
            usable = [
                (group, example)
                for group, example in groups
                if any(example.labels) or (taught and is_taught(example))
            ]
            if usable:  # else another error says more
                best = "gold passages" if not taught else "gold passages or the teacher's best"
                groups_of = [group for group, _ in usable]
                name = f"groups of examples that share {best}"
                self._check_folds([example for _, example in usable], groups_of, name)
        self._collection.check()
        if self.plan.target == "answer":
            self._answers({}).check()

    def _check_teacher(self) -> None:
        if not any(map(has_ranking, self.examples)):
            raise InputError(
                f"in none of the {len(self.examples)} examples do chunks have teacher scores that "
                "differ; write some by `at2-rag label`"
            )
        wanted = [name for name in self.plan.objectives if name in LABELLED]
        if wanted and not any(any(example.labels) for example in self.examples):
            raise InputError(
                f"the objective {wanted[0]!r} needs gold labels, and none of the "
                f"{len(self.examples)} examples has a gold chunk; leave it out, or label some"
            )

    def parts(self) -> Iterator[Collection]:
        """Yield all that is collected, part by part, see `Collection.parts`."""
        yield from self._collection.parts()
        if self.plan.target == "answer":
            yield self._answers(self._collection.collect().rows)

    def gather(
        self, *, workers: int = 1, progress: Progress = lambda stage, done, total: None
    ) -> Samples:
        """Return the samples, reading only what the folder doesn't hold."""
        collected = self._collection.collect(workers=workers, progress=partial(progress, "reading"))
        if self.plan.target == "answer":
            answers = self._answers(collected.rows).collect(
                workers=workers, progress=partial(progress, "reading answers")
            )
            rows = {item: {**collected.rows[item], **row} for item, row in answers.rows.items()}
            collected = Collected(rows, {**collected.left_out, **answers.left_out})
        samples = self._samples(collected)
        read = [self.examples[item] for item in collected.rows]
        self._check_folds(read, samples.groups, "groups of examples that share passages")
        return samples

    def _answers(self, ablated: Mapping[int, Row]) -> AnswerFeatureCollection:
        assert isinstance(self._collection, AblationCollection)  # the plan saw to that
        return AnswerFeatureCollection(self.model, self.examples, self._collection, ablated)

    def _groups(self) -> list[int]:
        """Return the group of each example: those that share a best chunk are in one."""
        return linked_groups([passage_keys(_best_chunks(example)) for example in self.examples])

    def _check_folds(self, examples: Sequence[Example], groups: Sequence[int], name: str) -> None:
        if self.plan.leave_out_sources:
            link_sources([example.source for example in examples], groups)
        elif len(set(groups)) < self.plan.folds:
            raise InputError(
                f"the data has {len(set(groups))} {name}, cross-validation needs "
                f"{self.plan.folds}; pass more data or fewer folds"
            )

    def _samples(self, collected: Collected) -> Samples:
        signal, items = self.plan.signal, list(collected.rows)
        passes = ("joint",) if self.plan.target == "answer" else self._collection.passes
        features = Features.of(collected.rows, passes)
        read = [self.samples[item] for item in items]
        labels = doubtful = effects = teacher = None
        if signal in ABLATED:
            rows = list(collected.rows.values())
            effects = Effects.of(rows, contributions_to=self.plan.target)
        if signal == "ablation":
            assert effects is not None  # just made
            by_sample = zip(read, features.by_sample(effects.contributions), strict=True)
            top = [sample.chunks[int(np.argmax(of_chunks))] for sample, of_chunks in by_sample]
            groups = linked_groups([passage_keys([chunk]) for chunk in top])
        else:
            numbers = self._groups()
            groups = [numbers[item] for item in items]
            # In joint reading chunks at the end may be missing.
            sizes = list(zip(read, features.counts.tolist(), strict=True))
            labels = np.concatenate([sample.labels[:size] for sample, size in sizes])
        sources = tuple(self.examples[item].source for item in items)
        if signal == "teacher":
            scores = np.concatenate([_teacher_scores(sample)[:size] for sample, size in sizes])
            teacher = soft_labels(scores, features.counts, np.array(sources))
            labels = labels if np.any(labels) else None
        if signal == "both":
            doubtful = np.concatenate(
                [doubtful_labels(self.examples[sample.example], sample) for sample in read]
            )
        return Samples(
            features,
            sources,
            tuple(groups),
            collected.reasons,
            labels,
            doubtful,
            effects,
            teacher,
            self.plan.shortlist,
            self.model.key_heads,
        )


def _best_chunks(example: Example) -> Sequence[Chunk]:
    """Return the gold chunks; where there are none, the teacher's best, if there is a teacher."""
    if example.gold or not example.teacher_scores:
        return example.gold
    scores = [-math.inf if score is None else score for score in example.teacher_scores]
    return [example.chunks[int(np.argmax(scores))]]


def _teacher_scores(sample: Sample) -> Floats:
    """Return the teacher's score of each chunk [S], NaN for those that have none."""
    scores = np.full(len(sample.chunks), np.nan)
    for index, score in enumerate(sample.teacher_scores):
        if score is not None:
            scores[index] = score
    return scores
