"""What `at2-rag calibrate` does: read, collect, fit, judge, write."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich import box
from rich.table import Table
from rich.text import Text
from transformers.utils.logging import disable_progress_bar

from at2_rag.command_line import without_place
from at2_rag.errors import InputError
from at2_rag.fingerprint import model_fingerprint
from at2_rag.head_weights import DESCRIPTION_FILE, HeadWeights, shipped_names
from at2_rag.model_hub import resolve_model
from at2_rag.model_loading import load_model
from at2_rag.scoring_model import ScoringModel
from at2_rag.step_progress import StepProgress
from at2_rag.training.answer_model import AnswerModel
from at2_rag.training.calibration_data import choose_examples, collect_calls
from at2_rag.training.calibration_fit import MATTERS, LabelledCall, fit_calibration
from at2_rag.training.calibration_study import CalibrationFigures, judge_left_out_sources
from at2_rag.training.examples import read_files
from at2_rag.training.record import file_record
from at2_rag.whole_files import check_writable, write_whole

RECORD_FILE = "calibration.json"


@dataclass(frozen=True, slots=True)
class CalibrateRequest:
    """What was asked for; the fields are the command's arguments."""

    files: tuple[str, ...]
    output: str
    head_weights: str
    model: str
    revision: str | None
    limit: int | None
    folds: int
    seed: int
    collected: str | None
    dtype: str | None

    @property
    def settings(self) -> dict[str, Any]:
        """All that was asked for, but no place of a file or folder."""
        values = asdict(self)
        for name in ("files", "output", "collected"):
            del values[name]
        return {
            **values,
            "model": without_place(self.model),
            "head_weights": without_place(self.head_weights),
        }


def run_calibration(request: CalibrateRequest, *, command: str) -> None:
    """Calibrate head weights and write them with a report.

    Args:
        request: What was asked for.
        command: The command line, for the report.

    Raises:
        AT2Error: If an argument, a file, the model or the disk can't be used.
    """
    name = request.head_weights
    weights = HeadWeights.shipped(name) if name in shipped_names() else HeadWeights.load(name)
    if weights.target_rule != "question":
        raise InputError(
            f"--head-weights {without_place(name)} are for the target rule "
            f"{weights.target_rule!r}; what is calibrated are weights for questions"
        )
    if weights.score_scale != "logit":
        raise InputError(
            f"the scores of --head-weights {without_place(name)} are {weights.score_scale}; only "
            "logits can be calibrated, as those of weights fitted to evidence labels are"
        )
    by_file = read_files(request.files)
    data = [
        file_record(Path(path), examples=len(own))
        for path, own in zip(request.files, by_file, strict=True)
    ]
    every = [example for own in by_file for example in own]
    examples = choose_examples(every, limit=request.limit, seed=request.seed)
    output = Path(request.output)
    check_writable(output)
    shape = weights.weight.shape
    with StepProgress() as progress:
        progress("loading the model", 0, 1)
        disable_progress_bar()  # type: ignore[no-untyped-call]  # its bar for reading local files
        torch.set_num_threads(1)  # many workers of one thread read faster
        folder = resolve_model(request.model, revision=request.revision)
        dtype = getattr(torch, request.dtype) if request.dtype else None
        model, tokenizer = load_model(folder, dtype=dtype)
        answering = AnswerModel(model, tokenizer)
        fingerprint = model_fingerprint(model.base_model, tokenizer)
        weights.check(fingerprint=fingerprint, template_hash=answering.prompts.template_hash)
        scoring = ScoringModel(model, tokenizer, depth=weights.layers)
        progress("loading the model", 1, 1)
        calls = collect_calls(
            scoring,
            answering,
            examples,
            Path(request.collected or output / "features"),
            weights.spec,
            fingerprint=fingerprint,
            folds=request.folds,
            seed=request.seed,
            workers=os.cpu_count() or 1,
            progress=progress,
        )
        progress("fit", 0, 1)
        scores = [weights.score(own.features) for own in calls]
        calibration = fit_calibration(calls, scores, (shape[0], shape[1], shape[2]))
        progress("fit", 1, 1)
        calibrated = replace(weights, calibration=calibration).describe(calibrated_on=data)
        calibrated.save(output)
        figures = _judge(calls, weights, progress)
    record = {
        "command": command,
        "settings": request.settings,
        "version": version("at2-rag"),
        "data": data,
        "examples": dict(sorted(Counter(own.source for own in examples.chosen).items())),
        "twins": dict(sorted(Counter(own.source for own in examples.twins).items())),
        "unusable": examples.unusable,
        "chunks_that_matter": _counted(
            (own.source, bool(one)) for own in calls for one in _known(own.matters)
        ),
        "matters_from": MATTERS,
        "calibration": calibration.numbers(),
        "left_out_sources": [own.to_dict() for own in figures],
    }
    write_whole(output / RECORD_FILE, (json.dumps(record, indent=2) + "\n").encode())
    if figures:
        progress.console.print(_table(figures))
    wrote = f"wrote {output / DESCRIPTION_FILE}, the weights and {RECORD_FILE} beside it"
    progress.console.print(Text(wrote), highlight=False, soft_wrap=True)


def _known(matters: npt.NDArray[np.bool_] | None) -> Iterable[np.bool_]:
    return () if matters is None else matters


def _counted(outcomes: Iterable[tuple[str, bool]]) -> dict[str, dict[str, int]]:
    """Return how many outcomes of each source are known, and how many of them are true."""
    known: Counter[str] = Counter()
    true: Counter[str] = Counter()
    for source, outcome in outcomes:
        known[source] += 1
        true[source] += outcome
    return {name: {"known": known[name], "true": true[name]} for name in sorted(known)}


def _judge(
    calls: Sequence[LabelledCall], weights: HeadWeights, progress: StepProgress
) -> list[CalibrationFigures]:
    """Return the figures on left-out sources; none where there is one source only."""
    if len({own.source for own in calls}) < 2:
        return []
    passes, layers, heads = weights.weight.shape
    return list(
        judge_left_out_sources(
            calls,
            (passes, layers, heads),
            progress=lambda done, total: progress("left-out sources", done, total),
        )
    )


def _table(figures: Sequence[CalibrationFigures]) -> Table:
    """Return the figures on sources that weights and calibration were fitted without."""
    table = Table(title="left-out sources", box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("source", no_wrap=True)
    for heading in (
        "chunks",
        "matter",
        "ECE",
        "best's",
        "skill",
        "gold's",
        "calls",
        "AUROC",
        "by length",
    ):
        table.add_column(heading, justify="right")
    for own in figures:
        numbers = (own.matter, own.error, own.error_of_best, own.skill, own.skill_of_gold)
        table.add_row(
            Text(own.source),
            f"{own.chunks:,}",
            *(f"{number:.3f}" for number in numbers),
            f"{own.calls:,}",
            f"{own.auroc:.3f}",
            f"{own.auroc_of_lengths:.3f}",
        )
    return table
