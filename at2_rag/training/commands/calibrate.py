"""What `at2-rag calibrate` does: read, calibrate, judge, write."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

from rich.text import Text

from at2_rag.data.examples import Example, read_files
from at2_rag.errors import StorageError
from at2_rag.files import check_writable, without_folder, write_whole
from at2_rag.progress import StepProgress
from at2_rag.readout.calibration import Outcome
from at2_rag.readout.files import DESCRIPTION_FILE
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.readout.lookup import named_or_folder, resolve_head_weights
from at2_rag.training.calibrating.calibrator import (
    CalibrationStudy,
    Calibrator,
    LearnedPrior,
)
from at2_rag.training.calibrating.examples import (
    CalibrationExamples,
    choose_examples,
    choose_judged,
)
from at2_rag.training.calibrating.probabilities import CalibrationSample
from at2_rag.training.calibrating.samples import RELEVANT_DROP
from at2_rag.training.commands.calibration_tables import reliability_plot_of, study_tables
from at2_rag.training.commands.loading import load_for_workers
from at2_rag.training.commands.record import file_records

RECORD_FILE = "calibration.json"
PLOT_FILE = "reliability.svg"


@dataclass(frozen=True, slots=True)
class CalibrateRequest:
    """The arguments of the command."""

    files: tuple[str, ...]
    output: str
    head_weights: str | None
    model: str
    revision: str | None
    limit: int | None
    folds: int
    seed: int
    collected: str | None
    outcome: Outcome
    prior: tuple[LearnedPrior, ...]
    judge: tuple[str, ...]
    multi_hop: bool
    sentences: bool
    dtype: str | None

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments without the paths of files and folders."""
        values = asdict(self)
        for name in ("files", "output", "collected", "judge"):
            del values[name]
        return {
            **values,
            "model": without_folder(self.model),
            "head_weights": self.head_weights and without_folder(self.head_weights),
        }


def run_calibration(request: CalibrateRequest, *, command: str) -> None:
    """Calibrate head weights and write them with a report.

    Args:
        request: The command's arguments.
        command: The command line, for the report.

    Raises:
        AT2Error: If an argument, a file, the model or the disk can't be used.
    """
    by_file, judged_by_file = read_files(request.files), read_files(request.judge)
    examples = choose_examples(
        [*chain.from_iterable(by_file)],
        limit=request.limit,
        seed=request.seed,
        priors=request.prior,
        sentences=request.sentences,
    )
    judged = choose_judged(
        [*chain.from_iterable(judged_by_file)],
        sources={example.source for example in examples.chosen},
        limit=request.limit,
        seed=request.seed,
    )
    data = file_records(request.files, by_file)
    judged_data = file_records(request.judge, judged_by_file)
    output = Path(request.output)
    check_writable(output)
    with StepProgress() as progress:
        calibrator = _calibrator(request, output, progress)
        weights = calibrator.fit(examples).describe(calibrated_on=data)
        with _writing_to(output):
            weights.save(output)
        study = calibrator.study(judged)
    record = {
        "command": command,
        "settings": request.settings,
        "version": version("at2-rag"),
        "data": data,
        "judged": judged_data,
        "relevant_drop": RELEVANT_DROP if request.outcome == "removal" else None,
        **_record(examples, judged, calibrator.samples, weights, study),
    }
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    with _writing_to(output):
        write_whole(output / RECORD_FILE, text.encode())
        if study.probabilities:
            plot = reliability_plot_of(study.probabilities)
            write_whole(output / PLOT_FILE, plot.encode())
    for table in study_tables(study):
        progress.console.print(table)
    wrote = f"wrote {output / DESCRIPTION_FILE}, the weights and {RECORD_FILE} beside it"
    progress.console.print(Text(wrote), highlight=False, soft_wrap=True)


def _calibrator(request: CalibrateRequest, output: Path, progress: StepProgress) -> Calibrator:
    """Load the model and the head weights."""
    progress("loading the model", 0, 1)
    model = load_for_workers(request.model, revision=request.revision, dtype=request.dtype)
    calibrator = Calibrator(
        model,
        resolve_head_weights(named_or_folder(request.head_weights), model),
        request.collected or output / "features",
        outcome=request.outcome,
        priors=request.prior,
        multi_hop=request.multi_hop,
        sentences=request.sentences,
        folds=request.folds,
        seed=request.seed,
        progress=progress,
    )
    progress("loading the model", 1, 1)
    return calibrator


def _record(
    examples: CalibrationExamples,
    judged: CalibrationExamples,
    samples: Sequence[CalibrationSample],
    weights: HeadWeights,
    study: CalibrationStudy,
) -> dict[str, Any]:
    """Return what was read and learned, and how good it is, JSON-ready."""
    known: Counter[str] = Counter()
    relevant: Counter[str] = Counter()
    for sample in samples:
        if sample.relevant is not None:
            known[sample.source] += len(sample.relevant)
            relevant[sample.source] += int(sample.relevant.sum())
    return {
        "examples": _per_source(examples.chosen),
        "twins": _per_source(examples.twins),
        "unusable": examples.unusable,
        "examples_judged": _per_source(judged.chosen),
        "unusable_to_judge": judged.unusable,
        "relevant_chunks": {
            name: {"known": known[name], "relevant": relevant[name]} for name in sorted(known)
        },
        "calibration": weights.calibration and weights.calibration.numbers(),
        "prior_weight": weights.prior_weight,
        "cosine_weight": weights.cosine_weight,
        "sentences": weights.sentences and weights.sentences.numbers(),
        "left_out_sources": [figures.to_dict() for figures in study.probabilities],
        "transfer": [asdict(figures) for figures in study.transfer],
        "multi_hop": {
            "numbers": weights.multi_hop and weights.multi_hop.numbers(),
            "all_gold_in_top_3": [asdict(figures) for figures in study.multi_hop],
        },
    }


@contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{folder} can't be written ({error}); make room or choose another folder: a rerun "
            "with the same --collected reads nothing again"
        ) from error


def _per_source(examples: Iterable[Example]) -> dict[str, int]:
    return dict(sorted(Counter(example.source for example in examples).items()))
