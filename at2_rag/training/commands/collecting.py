"""What a training run reads: questions, a model, and the collections that keep what it reads.

`at2-rag train` reads them and fits; `at2-rag ray collect` only reads, by many processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

from at2_rag.data.examples import Example, draw_per_source, read_files
from at2_rag.errors import InputError
from at2_rag.reading.features import FeatureSpec, Reading
from at2_rag.reading.scoring_model import layers_and_heads
from at2_rag.readout.head_weights import TargetRule
from at2_rag.readout.shipped import load_head_weights, named_or_folder
from at2_rag.readout.shortlist import Shortlist
from at2_rag.training.calibrating.held_out import hold_out
from at2_rag.training.collection.ablations import AblationPlan
from at2_rag.training.collection.collection import Collection, reading_depth
from at2_rag.training.collection.features import FeatureCollection, ShortlistCollection
from at2_rag.training.commands.loading import load_for_workers
from at2_rag.training.fitting.dev import DEV_FOLDER, choose_dev
from at2_rag.training.fitting.objectives import Signal
from at2_rag.training.fitting.training_data import Progress, TrainingData, TrainingPlan

_DEPTH_SHARE = 0.6  # of the model's layers, used by default
_FEWEST_FOLDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionRequest:
    """The arguments that decide what is read of which questions, and where it is kept."""

    files: tuple[str, ...]
    model: str
    revision: str | None
    signal: Signal
    target: TargetRule
    reading: Reading
    depths: tuple[int, ...]
    features: tuple[str, ...]
    limit: int | None
    hold_out: int | None
    seed: int
    collected: str
    masks: int
    answers: Literal["generated", "reference"]
    answer_tokens: int
    shortlist: str | None
    dtype: str | None
    dev: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where what is read is kept."""
        return Path(self.collected)

    def plan(self, layers: int) -> TrainingPlan:
        """Return what to read for training, of a model of so many layers."""
        shortlist = None if self.shortlist is None else _shortlist(self.shortlist)
        default = round(_DEPTH_SHARE * layers) if shortlist is None else shortlist.layers
        return TrainingPlan(
            signal=self.signal,
            target=self.target,
            reading=self.reading,
            specs=tuple(map(_parse_features, self.features)),
            depths=self.depths or (default,),
            folds=_FEWEST_FOLDS,
            seed=self.seed,
            shortlist=shortlist,
            ablations=AblationPlan(
                self.masks, self.answer_tokens, reference=self.answers == "reference"
            ),
        )


@dataclass(frozen=True, slots=True)
class Questions:
    """The examples of a run.

    Attributes:
        by_file: Those of each file.
        dev_by_file: Those of each dev file.
        examples: Those that are trained on.
    """

    by_file: Sequence[Sequence[Example]]
    dev_by_file: Sequence[Sequence[Example]]
    examples: Sequence[Example]


@dataclass(frozen=True, slots=True)
class DevSet:
    """What is read of dev examples.

    Attributes:
        examples: Those whose ranking can be judged.
        left_out: How many others there are, by reason.
        collection: Their features.
    """

    examples: Sequence[Example]
    left_out: Mapping[str, int]
    collection: FeatureCollection | ShortlistCollection


@dataclass(frozen=True, slots=True)
class TrainingInput:
    """All that a run reads, checked as far as that can be done before it is read.

    Attributes:
        data: What is trained on.
        dev: What the weights are judged on; None without dev examples.
    """

    data: TrainingData
    dev: DevSet | None

    def parts(self) -> Iterator[Collection]:
        """Yield all that is collected, part by part, see `Collection.parts`."""
        yield from self.data.parts()
        if self.dev is not None:
            yield from self.dev.collection.parts()


def read_questions(request: CollectionRequest) -> Questions:
    """Read the files, and choose the examples that are trained on.

    Raises:
        InputError: If options don't go together, or a file can't be used.
    """
    request.plan(layers=1)  # refuses what doesn't go together before anything is loaded
    if request.target == "answer" and request.dev:
        raise InputError(
            "--target answer fits weights that rank nothing for a question; leave out --dev"
        )
    by_file = read_files(request.files, labelled=request.signal in ("evidence", "both"))
    dev_by_file = read_files(request.dev)
    examples = [*chain.from_iterable(by_file)]
    if request.hold_out is not None:
        _, examples = hold_out(examples, request.hold_out)
    if request.limit is not None:
        examples = draw_per_source(examples, request.limit, seed=request.seed)
    return Questions(by_file, dev_by_file, examples)


def open_input(
    request: CollectionRequest,
    questions: Questions,
    *,
    progress: Progress = lambda stage, done, total: None,
) -> TrainingInput:
    """Load the model, and return what is to be read; reads nothing of the questions.

    Raises:
        AT2Error: If the model can't be loaded, what is read can't be fitted, or a folder holds
            something else.
    """
    progress("loading the model", 0, 1)
    loaded = load_for_workers(request.model, revision=request.revision, dtype=request.dtype)
    layers, _ = layers_and_heads(loaded.model.base_model.config)
    plan = request.plan(layers)
    dev_folder = request.folder / DEV_FOLDER
    # What was collected deeper serves every smaller depth.
    depth = reading_depth(max(plan.depths), (request.folder, dev_folder), layers=layers)
    data = TrainingData(loaded, questions.examples, request.folder, plan, depth=depth)
    progress("loading the model", 1, 1)
    data.check()
    dev_examples = [*chain.from_iterable(questions.dev_by_file)]
    if not dev_examples:
        return TrainingInput(data, None)
    chosen, left_out = choose_dev(data.model, dev_examples, reading=plan.reading)
    collection = data.features_of(chosen, dev_folder, seed=0, padded=False)
    collection.check()
    return TrainingInput(data, DevSet(chosen, left_out, collection))


def _shortlist(name_or_folder: str) -> Shortlist:
    """Return the shortlist that weights for late reading alone choose."""
    weights = load_head_weights(named_or_folder(name_or_folder))
    if weights.spec != FeatureSpec("log", ("late",)):
        raise InputError(
            f"--shortlist {name_or_folder}: these weights are for the {weights.spec.quantity} of "
            f"{', '.join(weights.spec.passes)}; pass weights for the log of late reading alone"
        )
    return Shortlist(weights.weight[0], weights.bias)


def _parse_features(text: str) -> FeatureSpec:
    quantity, separator, passes = text.partition(":")
    if not separator:
        raise InputError(f"--features is {text!r}; write it as log:together+apart")
    return FeatureSpec(quantity, tuple(passes.split("+")))  # type: ignore[arg-type]
