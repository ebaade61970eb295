"""What `at2-rag train` does: read, collect, choose, fit, judge, report."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from rich.text import Text

from at2_rag.cli.command_line import without_place
from at2_rag.data.examples import Example, draw_per_source, read_files
from at2_rag.errors import InputError, StorageError
from at2_rag.files import check_writable, remove_leftovers, write_whole
from at2_rag.progress import StepProgress
from at2_rag.reading.features import PASSES, FeatureSpec, Reading
from at2_rag.reading.scoring_model import ScoringModel, layers_and_heads
from at2_rag.readout.files import DESCRIPTION_FILE
from at2_rag.readout.head_weights import TargetRule
from at2_rag.report.training_page import training_page
from at2_rag.training.answering.answer_model import AnswerModel
from at2_rag.training.collection.ablations import SHARD_TOKENS, AblationPlan, drawn_samples
from at2_rag.training.collection.answer_features import ANSWERS_FOLDER
from at2_rag.training.collection.features import plan_samples
from at2_rag.training.collection.shards import Sample, plan_shards
from at2_rag.training.collection.store import reading_depth
from at2_rag.training.collection.store_size import (
    ablation_bytes,
    check_room,
    feature_bytes,
    megabytes,
    missing_bytes,
)
from at2_rag.training.commands.loading import load_for_workers
from at2_rag.training.commands.record import (
    PAGE_FILE,
    RECORD_FILE,
    dev_record,
    file_records,
    training_record,
)
from at2_rag.training.commands.results_table import results_table
from at2_rag.training.fitting.ablation_trainer import (
    AblationTraining,
    check_ablation_training,
    train_on_ablations,
)
from at2_rag.training.fitting.ablation_validation import Objective
from at2_rag.training.fitting.dev_figures import (
    DEV_FOLDER,
    DevSet,
    check_dev,
    choose_dev,
    collect_dev,
    count_shared,
)
from at2_rag.training.fitting.trainer import Training, check_training, train

_DEPTH_SHARE = 0.6
_CHARACTERS_A_TOKEN = 4


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What was asked for; the fields are the command's arguments."""

    files: tuple[str, ...]
    output: str
    model: str
    revision: str | None
    signal: Literal["evidence", "ablation", "both"]
    target: TargetRule
    reading: Reading
    depths: tuple[int, ...]
    features: tuple[str, ...]
    objectives: tuple[Objective, ...]
    limit: int | None
    folds: int
    seed: int
    collected: str | None
    masks: int
    answers: Literal["generated", "reference"]
    answer_tokens: int
    dtype: str | None
    dev: tuple[str, ...]

    @property
    def place(self) -> Path:
        """Where collected features are kept."""
        return Path(self.collected) if self.collected else Path(self.output) / "features"

    @property
    def plan(self) -> AblationPlan:
        """What is ablated."""
        return AblationPlan(self.masks, self.answer_tokens, reference=self.answers == "reference")

    @property
    def settings(self) -> dict[str, Any]:
        """All that was asked for, but no place of a file or folder."""
        values = asdict(self)
        for name in ("files", "output", "collected", "dev"):
            del values[name]
        return {**values, "model": without_place(self.model)}


def run_training(request: TrainRequest, *, command: str) -> None:
    """Fit head weights and write them with a report.

    Args:
        request: What was asked for.
        command: The command line, for the report.

    Raises:
        AT2Error: If an argument, a file, the model or the disk can't be used.
    """
    if request.signal != "evidence" and request.reading != "independent":
        raise InputError(
            f"--signal {request.signal} with --reading {request.reading}; ablations are read over "
            "chunk states, pass --reading independent"
        )
    if request.signal == "evidence" and request.objectives:
        raise InputError(
            f"--objective {request.objectives[0]} with --signal evidence, which has one objective "
            "only; leave it out, or pass --signal ablation or both"
        )
    if request.target == "answer" and (request.signal == "evidence" or request.dev):
        raise InputError(
            "--target answer learns from ablated answers and ranks nothing for a question; pass "
            "--signal ablation or both, and no --dev"
        )
    specs = [_parse_features(text) for text in request.features] or None
    by_file = read_files(request.files, labelled=request.signal != "ablation")
    dev_by_file = read_files(request.dev)
    data = file_records(request.files, by_file)
    dev_data = file_records(request.dev, dev_by_file)
    examples = [example for own in by_file for example in own]
    if request.limit is not None:
        examples = draw_per_source(examples, request.limit, seed=request.seed)
    output = Path(request.output)
    check_writable(output)
    remove_leftovers(output)
    with StepProgress() as progress:
        dev = [example for own in dev_by_file for example in own]
        run = _Run(request, examples, dev, specs, progress)
        training = run.train()
        judged = run.judge_on_dev(training, dev_data)
    record = training_record(
        training,
        command=command,
        settings=request.settings,
        data=data,
        dev=judged,
        seconds=progress.seconds,
    )
    _write(request, training, record)
    progress.console.print(results_table(training))
    if judged is not None:
        _say(
            progress,
            f"dev: nDCG@10 {judged['ndcg_at_10']:.3f}, gold first {judged['gold_first']:.3f} "
            f"({sum(judged['examples'].values()):,} examples)",
        )
    _say(progress, f"wrote {output / DESCRIPTION_FILE}, the weights and {PAGE_FILE} beside it")


def _say(progress: StepProgress, text: str) -> None:
    """Print a line as it is: names in it may look like markup, and paths stay whole."""
    progress.console.print(Text(text), highlight=False, soft_wrap=True)


class _Run:
    """The model and the data of one run, with room for what is collected."""

    def __init__(
        self,
        request: TrainRequest,
        examples: Sequence[Example],
        dev: Sequence[Example],
        specs: Sequence[FeatureSpec] | None,
        progress: StepProgress,
    ) -> None:
        self._request, self._examples, self._progress = request, examples, progress
        self._specs = specs
        progress("loading the model", 0, 1)
        self._workers = os.cpu_count() or 1
        loaded = load_for_workers(request.model, revision=request.revision, dtype=request.dtype)
        self._loaded, self._tokenizer = loaded.model, loaded.tokenizer
        layers, _ = layers_and_heads(self._loaded.base_model.config)
        self._depths = request.depths or (round(_DEPTH_SHARE * layers),)
        # What was collected deeper serves every smaller depth.
        places = (request.place, self._dev_place)
        deepest = reading_depth(max(self._depths), places, layers=layers)
        self._model = ScoringModel(self._loaded, self._tokenizer, depth=deepest)
        self._fingerprint = loaded.fingerprint
        progress("loading the model", 1, 1)
        chosen, left_out = (
            choose_dev(self._model, dev, reading=request.reading) if dev else ([], {})
        )
        self._check(chosen)
        self._check_room(chosen)
        self._dev = self._collect_dev(chosen, left_out) if chosen else None

    def _check(self, dev: Sequence[Example]) -> None:
        """Refuse what can't be fitted before anything is read."""
        request = self._request
        if request.signal == "evidence":
            check_training(
                self._model,
                self._examples,
                request.place,
                reading=request.reading,
                **self._design,
            )
        else:
            check_ablation_training(
                self._model, self._examples, request.place, **self._ablation, **self._design
            )
        if dev:
            check_dev(
                self._model,
                dev,
                self._dev_place,
                reading=request.reading,
                fingerprint=self._fingerprint,
            )

    def train(self) -> Training | AblationTraining:
        """Collect what is missing and fit."""
        request = self._request
        run: dict[str, Any] = {"workers": self._workers, "progress": self._progress}
        if request.signal == "evidence":
            return train(
                self._model,
                self._examples,
                request.place,
                reading=request.reading,
                **self._design,
                **run,
            )
        return train_on_ablations(
            self._model,
            AnswerModel(self._loaded, self._tokenizer),
            self._examples,
            request.place,
            **self._ablation,
            **self._design,
            **run,
        )

    @property
    def _design(self) -> dict[str, Any]:
        request = self._request
        return {
            "fingerprint": self._fingerprint,
            "specs": self._specs,
            "depths": self._depths,
            "folds": request.folds,
            "seed": request.seed,
        }

    @property
    def _ablation(self) -> dict[str, Any]:
        request = self._request
        return {
            "signal": request.signal,
            "target": request.target,
            "objectives": request.objectives,
            "plan": request.plan,
        }

    def judge_on_dev(
        self, training: Training | AblationTraining, data: Sequence[dict[str, Any]]
    ) -> dict[str, Any] | None:
        """Return the weights' figures on the dev files; None without any."""
        if self._dev is None:
            return None
        return dev_record(self._dev, self._dev.judge(training.weights), data=data)

    @property
    def _dev_place(self) -> Path:
        return self._request.place / DEV_FOLDER

    def _collect_dev(self, examples: Sequence[Example], left_out: dict[str, int]) -> DevSet:
        return collect_dev(
            self._model,
            examples,
            self._dev_place,
            left_out=left_out,
            shared=count_shared(examples, self._examples),
            reading=self._request.reading,
            fingerprint=self._fingerprint,
            workers=self._workers,
            progress=lambda done, total: self._progress("reading dev", done, total),
        )

    def _check_room(self, dev: Sequence[Example]) -> None:
        """Say what collecting takes on the disk, and refuse if there is less."""
        request, examples = self._request, self._examples
        size = len(PASSES[request.reading]) * self._model.depth * self._model.heads
        if request.signal == "evidence":
            shards = plan_samples(examples, reading=request.reading, seed=request.seed)
            needed = feature_bytes(_chunk_counts(shards), features=size)
        else:
            shards = [
                drawn_samples(examples, shard, seed=request.seed)
                for shard in plan_shards(examples, shard_tokens=SHARD_TOKENS)
            ]
            needed = ablation_bytes(
                _chunk_counts(shards),
                features=size,
                masks=request.masks,
                answer_tokens=request.answer_tokens,
                query_tokens=sum(len(example.query) for example in examples)
                / (_CHARACTERS_A_TOKEN * len(examples)),
            )
        missing = missing_bytes(request.place, needed)
        if request.target == "answer":
            answers = feature_bytes(
                _chunk_counts(shards), features=self._model.depth * self._model.heads
            )
            missing += missing_bytes(request.place / ANSWERS_FOLDER, answers)
        if dev:
            own = plan_samples(dev, reading=request.reading, seed=0, padded=False)
            own_needed = feature_bytes(_chunk_counts(own), features=size)
            missing += missing_bytes(self._dev_place, own_needed)
        check_room(request.place, missing)
        _say(
            self._progress,
            f"what is read takes about {megabytes(missing)} more in {request.place}",
        )


def _chunk_counts(shards: Iterable[Sequence[Sample]]) -> list[list[int]]:
    return [[len(sample.chunks) for sample in shard] for shard in shards]


def _parse_features(text: str) -> FeatureSpec:
    quantity, separator, passes = text.partition(":")
    if not separator:
        raise InputError(f"--features is {text!r}; write it as log_ratio:together+apart")
    return FeatureSpec(quantity, tuple(passes.split("+")))  # type: ignore[arg-type]


def _write(
    request: TrainRequest, training: Training | AblationTraining, record: dict[str, Any]
) -> None:
    ablated = {
        "answers": request.answers,
        **({"answer_tokens": request.answer_tokens} if request.answers == "generated" else {}),
        "masks": request.masks,
    }
    facts: dict[str, Any] = {
        "model": record["settings"]["model"],
        "revision": request.revision,
        "signal": request.signal,
        "data": [file["name"] for file in record["data"]],
        "samples": record["samples"],
        "left_out": record["left_out"],
        "seed": request.seed,
        "folds": request.folds,
        "ridge": training.chosen.candidate.ridge,
        **({} if request.signal == "evidence" else ablated),
        "cross_validation": training.chosen.figures(),
        **({} if record["dev"] is None else {"dev": record["dev"]}),
        "versions": {name: version(name) for name in ("at2-rag", "torch", "transformers")},
    }
    folder = Path(request.output)
    try:
        training.weights.describe(**facts).save(folder)
        text = json.dumps(record, indent=1, allow_nan=False) + "\n"
        write_whole(folder / RECORD_FILE, text.encode())
        write_whole(folder / PAGE_FILE, training_page(record).encode())
    except OSError as error:
        raise StorageError(
            f"{folder} can't be written ({error}); make room or choose another folder: what was "
            f"read is kept in {request.place}, and a rerun with --collected goes on from there"
        ) from error
