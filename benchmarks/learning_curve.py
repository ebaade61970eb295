"""How far a few questions of a source make probabilities right, where nothing of it was known.

python benchmarks/learning_curve.py FILES... --collected FOLDER
python benchmarks/learning_curve.py FILES... --judge FILE --judge FILE --collected FOLDER

FILES hold questions that the head weights weren't fitted to, of many sources. Judged are those of
them with 65 questions or more, or the sources of other files. Of each, head weights and a
calibration are fitted to the others, and the calibration is adapted to some of its questions, as
at2-rag calibrate does. Other questions of it tell what that is worth: means over draws and sources.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import numpy as np
import torch
from keeping_rules import DEFAULT, kept_rows
from report import FOLDER, Row, markdown_table
from sklearn.metrics import log_loss

from at2_rag.data.examples import Example, gold_groups, linked_sources, read_examples
from at2_rag.model.hub import DEFAULT_MODEL
from at2_rag.model.loading import LoadedModel
from at2_rag.progress import StepProgress
from at2_rag.readout.calibration import Calibration
from at2_rag.readout.shipped import named_or_folder, resolve_head_weights
from at2_rag.training.calibrating.examples import choose_examples
from at2_rag.training.calibrating.metrics import calibration_error
from at2_rag.training.calibrating.probabilities import (
    fit_calibration,
    with_evidence,
    with_evidence_of,
)
from at2_rag.training.calibrating.samples import SampleReader
from at2_rag.training.calibrating.study import Prediction, predict, score_by_refit

COUNTS = (0, 10, 25, 50, 100, 200)  # questions that a calibration is adapted to
JUDGED = 40  # other questions of a source
FEW = 25  # that it has besides, at least
DRAWS = 10
FILE = click.Path(exists=True, dir_okay=False)


@click.command("learning_curve", context_settings={"show_default": True})
@click.argument("files", nargs=-1, required=True, type=FILE)
@click.option("--judge", multiple=True, type=FILE, help="Instead, questions of a source.")
@click.option("--collected", required=True, type=FOLDER, help="What is read is kept in it.")
@click.option("--head-weights", default="balanced", help="A name or a folder.")
@click.option("--model", default=DEFAULT_MODEL, help="Name, folder or hub id.")
@click.option("--dtype", help="Of the model.")
def main(
    *,
    files: tuple[str, ...],
    judge: tuple[str, ...],
    collected: Path,
    head_weights: str,
    model: str,
    dtype: str | None,
) -> None:
    """Tell what some questions of a source are worth to probabilities."""
    known, judged = read_examples(files), read_examples(judge) if judge else []
    linked = linked_sources([*known, *judged])
    loaded = LoadedModel.from_pretrained(model, dtype=dtype)
    torch.set_num_threads(1)  # as at2-rag train reads, in threads of its own
    weights = resolve_head_weights(named_or_folder(head_weights), loaded)
    questions = choose_examples(known)
    with StepProgress() as progress:
        samples = SampleReader(loaded, weights, collected, progress=progress).read(questions)
        of_judged = samples
        if judged:
            questions, folder = choose_examples(judged), collected / "judged"
            of_judged = SampleReader(loaded, weights, folder, progress=progress).read(questions)
    by_source = defaultdict(list)
    for sample in of_judged:
        by_source[sample.source].append(sample)
    predictions = {}
    for source, of_source in by_source.items():
        if len({one.question for one in of_source}) < JUDGED + FEW:
            continue
        others = [one for one in samples if linked[one.source] != linked[source]]
        score = score_by_refit(weights.shortlist)(others)
        scored = with_evidence(others, list(map(score, others)))
        calibration = fit_calibration(scored, weights.weight.shape)
        predictions[source] = [predict(one, score(one), calibration) for one in of_source]
    for source, rows in predictions.items():
        click.echo(markdown_table(source, list(curve({source: rows}, questions.chosen))))
    click.echo(markdown_table("Mean of the sources", list(curve(predictions, questions.chosen))))


def curve(predictions: dict[str, list[Prediction]], questions: Sequence[Example]) -> Iterator[Row]:
    """Yield how good probabilities are, adapted to more and more questions of the source."""
    groups = np.array(gold_groups(questions))  # none is both adapted to and judged
    for count in COUNTS:
        figures, sources = [], 0
        for rows in predictions.values():
            numbers = np.unique([row.sample.question for row in rows])
            if len(numbers) < count + JUDGED:
                continue
            sources += 1
            for draw in range(DRAWS):
                order = np.random.default_rng(draw).permutation(len(questions))
                drawn = numbers[np.argsort(order[groups[numbers]], kind="stable")]
                judged = set(drawn[:JUDGED])
                others = drawn[~np.isin(groups[drawn], groups[list(judged)])]
                known = set(others[:count])
                adapted = _adapted([row for row in rows if row.sample.question in known], rows)
                figures.append(
                    _figures(
                        [
                            predict(row.sample, row.scores, adapted)
                            for row in rows
                            if row.sample.question in judged
                        ],
                        questions,
                    )
                )
        if not figures:  # no source has that many
            return
        yield {
            "questions": count,
            "sources": sources,
            **{name: float(np.mean([row[name] for row in figures])) for name in figures[0]},
        }


def _adapted(known: Sequence[Prediction], rows: Sequence[Prediction]) -> Calibration:
    calibration = rows[0].calibration
    if not known:
        return calibration
    samples, scores = [row.sample for row in known], [row.scores for row in known]
    scored = with_evidence_of(calibration, samples, scores)
    return fit_calibration(scored, calibration.evidence_weight.shape, start=calibration)


def _figures(rows: Sequence[Prediction], questions: Sequence[Example]) -> dict[str, float]:
    retrieved = [row for row in rows if row.sample.is_retrieved]
    likely = np.concatenate([row.probabilities for row in retrieved])
    gold = np.concatenate([row.sample.gold for row in retrieved])
    answered = np.array([row.sample.is_answered for row in rows])
    answerable = np.array([row.answerable for row in rows])
    *_, kept = kept_rows(retrieved, questions, DEFAULT)
    return {
        "log loss of chunks": float(log_loss(gold, likely, labels=[0, 1])),
        "expected is off by (times)": float(np.exp(abs(np.log(likely.sum() / gold.sum())))),
        "log loss of calls": float(log_loss(answered, answerable)),
        "ECE of calls": calibration_error(answerable, answered),
        "all of one gold kept": kept["one gold"],
        "words kept": kept["words"],
    }


if __name__ == "__main__":
    main()
