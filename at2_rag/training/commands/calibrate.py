"""What `at2-rag calibrate` does: read, calibrate, judge, write."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

from rich.text import Text

from at2_rag.data.examples import Example, linked_sources, read_files
from at2_rag.errors import StorageError
from at2_rag.files import check_writable, without_folder, write_whole
from at2_rag.progress import StepProgress
from at2_rag.readout.files import DESCRIPTION_FILE
from at2_rag.readout.shipped import named_or_folder, resolve_head_weights
from at2_rag.states.store import ChunkCache
from at2_rag.training.calibrating.calibrator import LearnedPrior, calibrate
from at2_rag.training.calibrating.examples import choose_examples
from at2_rag.training.calibrating.held_out import hold_out
from at2_rag.training.calibrating.probabilities import CalibrationSample
from at2_rag.training.calibrating.samples import SampleReader
from at2_rag.training.calibrating.study import (
    CalibrationFigures,
    judge_sources,
    predict_left_out_sources,
    predict_own_questions,
    score_by_refit,
)
from at2_rag.training.commands.calibration_tables import figure_tables, reliability_of_sources
from at2_rag.training.commands.loading import load_for_workers, writing_to
from at2_rag.training.commands.record import file_records

RECORD_FILE = "calibration.json"
PLOT_FILE = "reliability.svg"
MINILM = "minilm"  # the embedding of that package, see `minilm_folder`
CHUNKS_FOLDER = "chunks"  # what is kept of chunks while the command runs


@dataclass(frozen=True, slots=True)
class CalibrateRequest:
    """The arguments of the command."""

    files: tuple[str, ...]
    output: str
    head_weights: str | None
    model: str
    revision: str | None
    limit: int | None
    hold_out: int | None
    folds: int
    seed: int
    collected: str | None
    prior: tuple[LearnedPrior, ...]
    embedding: str | None
    multi_hop: bool
    sentences: bool
    dtype: str | None

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments without the paths of files and folders."""
        values = asdict(self)
        for name in ("files", "output", "collected"):
            del values[name]
        return {
            **values,
            "embedding": self.embedding and without_folder(self.embedding),
            "model": without_folder(self.model),
            "head_weights": self.head_weights and without_folder(self.head_weights),
        }


def run_calibration(request: CalibrateRequest, *, command: str) -> None:
    """Calibrate head weights and write them with a report, which shows the command line."""
    by_file = read_files(request.files)
    questions = [*chain.from_iterable(by_file)]
    if request.hold_out is not None:
        questions, _ = hold_out(questions, request.hold_out)
    output = Path(request.output)
    folder = Path(request.collected) if request.collected else output / "features"
    if request.embedding is not None:
        questions = _with_cosines(questions, request.embedding, folder)
    examples = choose_examples(
        questions,
        limit=request.limit,
        seed=request.seed,
        priors=request.prior,
        sentences=request.sentences,
    )
    data = file_records(request.files, by_file)
    check_writable(output)
    with StepProgress() as progress:
        progress("loading the model", 0, 1)
        model = load_for_workers(request.model, revision=request.revision, dtype=request.dtype)
        weights = resolve_head_weights(named_or_folder(request.head_weights), model)
        chunks = ChunkCache(folder / CHUNKS_FOLDER)
        reader = SampleReader(
            model,
            weights,
            folder,
            folds=request.folds,
            seed=request.seed,
            store=chunks,
            progress=progress,
        )
        progress("loading the model", 1, 1)
        calibrated = calibrate(
            reader,
            examples,
            priors=request.prior,
            multi_hop=request.multi_hop,
            sentences=request.sentences,
        )
        with suppress(StorageError):  # what is left there costs room only
            chunks.clear()
        with writing_to(output, collected=folder):
            calibrated.weights.describe(calibrated_on=data).save(output)
        probabilities: dict[str, list[CalibrationFigures]] = {}
        if weights.calibration is None:
            predictions = predict_left_out_sources(
                calibrated.samples,
                weights.weight.shape,
                score_by_refit(weights.shortlist),
                linked=linked_sources([*chain.from_iterable(by_file)]),
                progress=lambda done, total: progress("left-out sources", done, total),
            )
            probabilities["left-out sources"] = judge_sources(predictions)
        else:
            before, after = predict_own_questions(calibrated.samples, weights)
            probabilities["as it was"] = judge_sources(before)
            probabilities["adapted, questions of other folds left out"] = judge_sources(after)
    learned = calibrated.weights
    record = {
        "command": command,
        "settings": request.settings,
        "version": version("at2-rag"),
        "data": data,
        "examples": _per_source(examples.chosen),
        "lists": dict(Counter(one.kind for one in examples.lists)),
        "unusable": examples.unusable,
        "chunks": _chunks_per_source(calibrated.samples),
        "calibration": learned.calibration and learned.calibration.numbers(),
        "prior_weight": learned.prior_weight,
        "cosine_weight": learned.cosine_weight,
        "sentences": learned.sentences and learned.sentences.numbers(),
        "probabilities": {
            name: [figures.to_dict() for figures in rows] for name, rows in probabilities.items()
        },
        "multi_hop": {
            "numbers": learned.multi_hop and learned.multi_hop.numbers(),
            "all_gold_in_top_3": [asdict(figures) for figures in calibrated.multi_hop],
        },
    }
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    with writing_to(output, collected=folder):
        write_whole(output / RECORD_FILE, text.encode())
        *_, last = probabilities.values()
        if last:
            write_whole(output / PLOT_FILE, reliability_of_sources(last).encode())
    for table in figure_tables(probabilities, calibrated.multi_hop):
        progress.console.print(table)
    wrote = f"wrote {output / DESCRIPTION_FILE}, the weights and {RECORD_FILE} beside it"
    progress.console.print(Text(wrote), highlight=False, soft_wrap=True)


def _with_cosines(examples: Sequence[Example], embedding: str, folder: Path) -> list[Example]:
    """Return examples whose chunks have cosines as retrieval scores, where none has a score."""
    from at2_rag.training.labelling.cosines import CosineCollection
    from at2_rag.training.labelling.embedding import embedding_folder

    unknown = [
        index
        for index, example in enumerate(examples)
        if all(chunk.retrieval_score is None for chunk in example.chunks)
    ]
    result = list(examples)
    if not unknown:
        return result
    with StepProgress() as progress:
        rows = (
            CosineCollection(
                [examples[index] for index in unknown],
                folder,
                model=embedding_folder(None if embedding == MINILM else Path(embedding)),
                progress=lambda done, total: progress("embedding", done, total),
            )
            .collect()
            .rows
        )
    for number, index in enumerate(unknown):
        chunks = zip(examples[index].chunks, rows[number]["cosines"].tolist(), strict=True)
        scored = tuple(replace(chunk, retrieval_score=cosine) for chunk, cosine in chunks)
        result[index] = replace(examples[index], chunks=scored)
    return result


def _per_source(examples: Iterable[Example]) -> dict[str, int]:
    return dict(sorted(Counter(example.source for example in examples).items()))


def _chunks_per_source(samples: Iterable[CalibrationSample]) -> dict[str, dict[str, int]]:
    """Return for each source how many chunks its examples have, and how many are gold."""
    labels: dict[str, list[bool]] = defaultdict(list)
    for sample in samples:
        if sample.is_retrieved:
            labels[sample.source] += sample.gold.tolist()
    return {
        source: {"all": len(of_source), "gold": sum(of_source)}
        for source, of_source in sorted(labels.items())
    }
