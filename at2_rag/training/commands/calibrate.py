"""What `at2-rag calibrate` does: read, collect, fit, judge, write."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.text import Text

from at2_rag.cli.command_line import without_place
from at2_rag.data.examples import read_files
from at2_rag.errors import InputError, StorageError
from at2_rag.files import check_writable, write_whole
from at2_rag.model.loading import LoadedModel
from at2_rag.progress import StepProgress
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.readout.calibration import Outcome
from at2_rag.readout.files import DESCRIPTION_FILE
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.readout.lookup import check_match, named_or_folder, resolve_head_weights
from at2_rag.text.chunks import Prior
from at2_rag.training.answering.answer_model import AnswerModel
from at2_rag.training.calibrating.data import (
    check_priors,
    choose_examples,
    choose_judged,
    collect_calls,
    collect_multi_hops,
)
from at2_rag.training.calibrating.fit import (
    MATTERS,
    LabelledCall,
    fit_calibration,
    fit_prior_weight,
    out_of_fold_evidence,
)
from at2_rag.training.calibrating.multi_hop import (
    FollowedCall,
    fit_multi_hop,
    judge_multi_hop,
    scores_after,
)
from at2_rag.training.calibrating.sentences import fit_sentences, gold_sentences
from at2_rag.training.calibrating.study import CalibrationFigures, judge_left_out_sources
from at2_rag.training.calibrating.transfer import TransferFigures, judge_transfer
from at2_rag.training.collection.sentence_reading import collect_sentences, sentence_calls
from at2_rag.training.commands.calibration_tables import (
    figures_table,
    multi_hop_table,
    reliability_plot_of,
    transfer_table,
)
from at2_rag.training.commands.loading import load_for_workers
from at2_rag.training.commands.record import file_records

RECORD_FILE = "calibration.json"
PLOT_FILE = "reliability.svg"


@dataclass(frozen=True, slots=True)
class CalibrateRequest:
    """What was asked for; the fields are the command's arguments."""

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
    prior: tuple[Prior, ...]
    judge: tuple[str, ...]
    multi_hop: bool
    sentences: bool
    dtype: str | None

    @property
    def settings(self) -> dict[str, Any]:
        """All that was asked for, but no place of a file or folder."""
        values = asdict(self)
        for name in ("files", "output", "collected", "judge"):
            del values[name]
        return {
            **values,
            "model": without_place(self.model),
            "head_weights": self.head_weights and without_place(self.head_weights),
        }


def run_calibration(request: CalibrateRequest, *, command: str) -> None:
    """Calibrate head weights and write them with a report.

    Args:
        request: What was asked for.
        command: The command line, for the report.

    Raises:
        AT2Error: If an argument, a file, the model or the disk can't be used.
    """
    by_file = read_files(request.files)
    data = file_records(request.files, by_file)
    every = [example for own in by_file for example in own]
    examples = choose_examples(every, limit=request.limit, seed=request.seed)
    check_priors(examples.chosen, request.prior)
    if request.sentences and all(gold_sentences(own) is None for own in examples.chosen):
        raise InputError(
            "--sentences was given, but of no example is it known which sentences hold evidence; "
            "pass examples with gold_sents, or with answers that stand in gold chunks"
        )
    to_judge = read_files(request.judge)
    judged = choose_judged(
        [example for own in to_judge for example in own],
        sources={own.source for own in examples.chosen},
        limit=request.limit,
        seed=request.seed,
    )
    output = Path(request.output)
    check_writable(output)
    with StepProgress() as progress:
        progress("loading the model", 0, 1)
        loaded = load_for_workers(request.model, revision=request.revision, dtype=request.dtype)
        answering = AnswerModel(loaded.model, loaded.tokenizer)
        fingerprint = loaded.fingerprint
        weights = _weights(request, loaded, answering.scoring_model.prompts.template_hash)
        passes, layers, heads = weights.weight.shape
        progress("loading the model", 1, 1)
        scoring = ScoringModel(loaded.model, loaded.tokenizer, depth=layers)
        folder = Path(request.collected or output / "features")
        read_calls = partial(
            collect_calls,
            scoring,
            answering,
            spec=weights.spec,
            fingerprint=fingerprint,
            folds=request.folds,
            seed=request.seed,
            workers=os.cpu_count() or 1,
            progress=progress,
        )
        calls = read_calls(examples, folder, outcome=request.outcome, priors=request.prior)
        judged_calls = read_calls(judged, folder / "judged") if judged.chosen else []
        progress("fit", 0, 1)
        scores = [weights.score(own.features) for own in calls]
        shape = (passes, layers, heads)
        calibration = fit_calibration(calls, scores, shape, outcome=request.outcome)
        learned = {own: fit_prior_weight(calls, scores, own) for own in request.prior}
        progress("fit", 1, 1)
        followed: list[FollowedCall] = []
        if request.multi_hop:
            followed = collect_multi_hops(
                scoring,
                examples,
                calls,
                scores,
                out_of_fold_evidence(calls).tolist(),
                folder,
                weights.spec,
                fingerprint=fingerprint,
                seed=request.seed,
                workers=os.cpu_count() or 1,
                progress=progress,
            )
        multi_hop = fit_multi_hop(followed, (layers, heads)) if followed else weights.multi_hop
        sentences = weights.sentences
        if request.sentences:
            own = collect_sentences(
                scoring,
                weights,
                examples.chosen,
                folder,
                workers=os.cpu_count() or 1,
                progress=lambda done, total: progress("reading sentences", done, total),
            )
            after = scores_after(followed) if followed else {}
            evidence = out_of_fold_evidence(calls).tolist()
            sentences = fit_sentences(
                sentence_calls(calls, examples.chosen, own, scores, after, evidence)
            )
        calibrated = replace(
            weights,
            calibration=calibration,
            prior_weight=_latest(learned.get("score"), weights.prior_weight),
            cosine_weight=_latest(learned.get("cosine"), weights.cosine_weight),
            multi_hop=multi_hop,
            sentences=sentences,
        )
        calibrated = calibrated.describe(calibrated_on=data)
        _written(output, lambda: calibrated.save(output))
        figures: list[CalibrationFigures] = []
        transfer: list[TransferFigures] = []
        if len({own.source for own in calls}) > 1:
            figures += judge_left_out_sources(
                calls,
                shape,
                progress=lambda done, total: progress("left-out sources", done, total),
            )
            transfer += judge_transfer(
                calls,
                shape,
                judged_calls,
                progress=lambda done, total: progress("one max_missed for all", done, total),
            )
    asked_again = judge_multi_hop(followed) if followed else []
    record = {
        "command": command,
        "settings": request.settings,
        "version": version("at2-rag"),
        "data": data,
        "judged": file_records(request.judge, to_judge),
        "examples_judged": dict(sorted(Counter(own.source for own in judged.chosen).items())),
        "unusable_to_judge": judged.unusable,
        "examples": dict(sorted(Counter(own.source for own in examples.chosen).items())),
        "twins": dict(sorted(Counter(own.source for own in examples.twins).items())),
        "unusable": examples.unusable,
        "chunks_that_matter": _that_matter(calls),
        "matters_from": MATTERS if request.outcome == "removal" else None,
        "calibration": calibration.numbers(),
        "prior_weight": learned.get("score"),
        "cosine_weight": learned.get("cosine"),
        "sentences": sentences and sentences.numbers(),
        "left_out_sources": [own.to_dict() for own in figures],
        "one_tolerance": [asdict(own) for own in transfer],
        "multi_hop": {
            "numbers": multi_hop and multi_hop.numbers(),
            "all_gold_in_top_3": [asdict(own) for own in asked_again],
        },
    }
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    _written(output, lambda: write_whole(output / RECORD_FILE, text.encode()))
    if figures:
        _written(
            output, lambda: write_whole(output / PLOT_FILE, reliability_plot_of(figures).encode())
        )
        progress.console.print(figures_table(figures))
    if transfer:
        progress.console.print(transfer_table(transfer))
    if asked_again:
        progress.console.print(multi_hop_table(asked_again))
    stale = [
        name
        for name, kept, anew in (
            ("--multi-hop", weights.multi_hop, request.multi_hop),
            ("--sentences", weights.sentences, request.sentences),
        )
        if kept is not None and not anew
    ]
    if stale:
        note = (
            "kept is what an earlier calibration learned by "
            f"{' and '.join(stale)}; its probabilities were fitted beside that one's"
        )
        progress.console.print(Text(note), highlight=False, soft_wrap=True)
    wrote = f"wrote {output / DESCRIPTION_FILE}, the weights and {RECORD_FILE} beside it"
    progress.console.print(Text(wrote), highlight=False, soft_wrap=True)


def _weights(request: CalibrateRequest, model: LoadedModel, template_hash: str) -> HeadWeights:
    """Return the head weights asked for, which belong to the model and whose scores are logits."""
    weights = resolve_head_weights(named_or_folder(request.head_weights), model)
    check_match(weights, model, template_hash=template_hash)
    if request.multi_hop and weights.reading == "joint":
        raise InputError(
            "--multi-hop was given, but the head weights are for joint reading, which keeps no "
            "states to ask again over; leave it off, or use weights for independent reading"
        )
    if request.sentences and weights.multi_hop is not None and not request.multi_hop:
        raise InputError(
            "--sentences was given without --multi-hop, but the head weights ask again; pass both, "
            "since sentences are scored after that, too"
        )
    if weights.score_scale != "logit":
        raise InputError(
            f"the head weights' scores are {weights.score_scale}; only logits can be calibrated, "
            "as those of weights fitted to evidence labels are"
        )
    return weights


def _latest(learned: float | None, before: float | None) -> float | None:
    return before if learned is None else learned


def _written(folder: Path, write: Callable[[], object]) -> None:
    try:
        write()
    except OSError as error:
        raise StorageError(
            f"{folder} can't be written ({error}); make room or choose another folder: a rerun "
            "with the same --collected reads nothing again"
        ) from error


def _that_matter(calls: Sequence[LabelledCall]) -> dict[str, dict[str, int]]:
    """Return of how many chunks of each source it is known whether they matter, and do."""
    known: Counter[str] = Counter()
    true: Counter[str] = Counter()
    for own in calls:
        if own.matters is not None:
            known[own.source] += len(own.matters)
            true[own.source] += int(own.matters.sum())
    return {name: {"known": known[name], "true": true[name]} for name in sorted(known)}
