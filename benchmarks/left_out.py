"""How weights do on sources that they were fitted without: ranking, probabilities, what is kept.

python benchmarks/left_out.py FILES... --presets FOLDER --peers
python benchmarks/left_out.py FILES... --head-weights best --collected FOLDER --hold-out 28

The first judges what scripts/fit-presets wrote, with the FILES that it was given: each source is
judged, on the questions that were held out, by head weights and a calibration that were fitted
without it and what shares gold passages with it. Key heads and shortlists are the presets', which
all sources chose. The second fits head weights to the very questions that at2-rag calibrate has
read into FOLDER, with the same FILES and number held out: for weights whose training questions
aren't read. They are fewer, so that the weights rank worse.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import torch
from keeping_rules import DEFAULT, kept_by_rules, kept_rows
from report import FOLDER, POSITIVE, Row, Value, markdown_table
from rich.console import Console

from at2_rag.arrays import Floats
from at2_rag.data.bootstrap import Estimate, macro_sample, resample_means
from at2_rag.data.clusters import item_clusters
from at2_rag.data.examples import Example, draw_per_source, linked_sources, read_examples
from at2_rag.model.hub import DEFAULT_MODEL
from at2_rag.model.loading import LoadedModel
from at2_rag.options import UNANSWERABLE_BELOW
from at2_rag.progress import StepProgress
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.readout.multi_hop import after_multi_hop, reads_again
from at2_rag.readout.prior import prior_terms
from at2_rag.readout.scores import ChunkScores
from at2_rag.readout.shipped import named_or_folder, resolve_head_weights
from at2_rag.readout.shortlist import Design
from at2_rag.text.chunks import Chunk
from at2_rag.training.calibrating.examples import choose_examples
from at2_rag.training.calibrating.held_out import hold_out
from at2_rag.training.calibrating.multi_hop import fit_multi_hop
from at2_rag.training.calibrating.probabilities import (
    CalibrationSample,
    ScoredSample,
    fit_prior_weight,
)
from at2_rag.training.calibrating.samples import SampleReader
from at2_rag.training.calibrating.study import (
    Prediction,
    Score,
    ScoreWithout,
    judge_sources,
    predict,
    predict_left_out_sources,
    score_by_refit,
)
from at2_rag.training.commands.calibration_tables import figure_tables
from at2_rag.training.fitting.cross_validation import ndcg_at_10
from at2_rag.training.fitting.fit import fit_listwise
from at2_rag.training.fitting.losses import ListwiseData
from at2_rag.training.fitting.samples import Samples
from at2_rag.training.fitting.training_data import TrainingData, TrainingPlan
from at2_rag_evals.rankers.base import Ranker
from at2_rag_evals.rankers.bm25 import BM25Ranker
from at2_rag_evals.rankers.embedding import EmbeddingRanker

HELD_OUT, FITTED = 28, 250  # questions of a source, as in scripts/fit-presets
EVEN = 0.5  # as likely as not
OURS, BM25, MINILM = "at2", "BM25", "MiniLM"


@click.command("left_out", context_settings={"show_default": True})
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--presets", type=FOLDER, help="What scripts/fit-presets wrote.")
@click.option("--preset", "names", multiple=True, default=("best", "balanced", "fast"))
@click.option("--head-weights", help="Instead, these weights, a name or a folder.")
@click.option("--collected", type=FOLDER, help="With --head-weights: what was read of FILES.")
@click.option("--hold-out", "held_out", type=POSITIVE, help="With --head-weights: as it was read.")
@click.option("--model", default=DEFAULT_MODEL, help="Name, folder or hub id.")
@click.option("--dtype", help="Of the model, as it was read.")
@click.option("--hops", is_flag=True, help="Read questions again beside the best chunk.")
@click.option("--peers", is_flag=True, help="Also BM25 and MiniLM.")
@click.option("--embedding", type=FOLDER, multiple=True, help="Also this embedding model.")
def main(
    *,
    files: tuple[str, ...],
    presets: Path | None,
    names: tuple[str, ...],
    head_weights: str | None,
    collected: Path | None,
    held_out: int | None,
    model: str,
    dtype: str | None,
    hops: bool,
    peers: bool,
    embedding: tuple[Path, ...],
) -> None:
    """Judge weights on each source by what was fitted without it."""
    if (presets is None) == (head_weights is None or collected is None):
        raise click.UsageError("pass --presets, or --head-weights and --collected")
    examples = read_examples(files)
    linked, training = linked_sources(examples), list[Example]()
    if presets is not None:
        held_out = HELD_OUT
    if held_out is not None:
        examples, rest = hold_out(examples, held_out)
        training = draw_per_source(rest, FITTED, seed=0)
    questions = choose_examples(examples)
    loaded = LoadedModel.from_pretrained(model, dtype=dtype)
    ranked = Ranked(questions.chosen)
    if peers or embedding:
        ranked.add_peers(embedding)
    torch.set_num_threads(1)  # as at2-rag train reads, in threads of its own
    for name in names if head_weights is None else (head_weights,):
        with StepProgress() as progress:
            without: ScoreWithout
            if presets is not None:
                preset = Preset.load(presets, name)
                weights, read = preset.weights, preset.folder / "calibrated"
                without = preset.fitted(loaded, training, progress)
            else:
                assert collected is not None  # checked above
                weights, read = resolve_head_weights(named_or_folder(name), loaded), collected
                without = score_by_refit(weights.shortlist)
            reader = SampleReader(loaded, weights, read, progress=progress)
            samples = reader.read(questions)
            shape = weights.weight.shape
            predictions = predict_left_out_sources(
                samples,
                shape,
                without,
                linked=linked,
                progress=lambda done, total: progress("sources left out", done, total),
            )
            finals: Sequence[Prediction] = predictions
            if hops:
                finals = with_second_reading(reader, predictions, questions.chosen, linked)
        retrieved = of_retrieved(predictions)
        click.echo(f"## {name}\n")
        for table in figure_tables({"left-out sources": judge_sources(finals)}, []):
            Console(width=140).print(table)
        click.echo(markdown_table("Calls by kind of list", list(kind_rows(predictions))))
        ranked.add(OURS, [row.scores for row in retrieved])
        click.echo(markdown_table("Ranking, nDCG@10", list(ranked.rows())))
        if MINILM in ranked.scores:
            ranked.add(OURS, _with_cosines(samples, retrieved, ranked.scores[MINILM], linked))
            click.echo(markdown_table("With MiniLM's cosines as prior", list(ranked.rows())))
        twins = [s for s in samples if s.is_retrieved or s.kind.startswith("twin")]
        of_twins = predict_left_out_sources(twins, shape, without, linked=linked)
        fitted = {row.sample.source: row.calibration for row in of_twins}
        designs = {
            "lists of all kinds": predictions,
            "as retrieved, and twins": [
                predict(row.sample, row.scores, fitted[row.sample.source]) for row in predictions
            ],
        }
        rows = [{"fitted to": name, **_overall(rows)} for name, rows in designs.items()]
        click.echo(markdown_table("Probabilities, means over sources", rows))
        rules = list(kept_by_rules(of_retrieved(finals), questions.chosen))
        click.echo(markdown_table("Kept by several rules", rules))
        rows = list(kept_rows(of_retrieved(finals), questions.chosen, DEFAULT))
        click.echo(markdown_table("Kept without a limit", rows))


@dataclass(frozen=True, slots=True, eq=False)
class Preset:
    """Weights that scripts/fit-presets wrote, and how they were fitted."""

    folder: Path
    weights: HeadWeights
    ridge: float
    late_ridge: float  # of the preset that chose the shortlist

    @classmethod
    def load(cls, presets: Path, name: str) -> Preset:
        """Load a preset by its name."""
        fitted = presets / "fitted" / name
        ridge, shortlist = chosen_fit(fitted)
        late_ridge = ridge if shortlist is None else cls.load(presets, shortlist).ridge
        return cls(presets / "read", HeadWeights.load(fitted), ridge, late_ridge)

    def fitted(
        self, loaded: LoadedModel, training: Sequence[Example], progress: StepProgress
    ) -> FittedWithout:
        """Read what head weights are fitted to."""
        weights = self.weights
        plan = TrainingPlan(
            specs=(weights.spec,), depths=(weights.layers,), shortlist=weights.shortlist
        )
        folder, depth = self.folder / "fitted", weights.layers
        if (record := folder / "collection.json").exists():
            depth = json.loads(record.read_text(encoding="utf-8"))["depth"]
        data = TrainingData(loaded, training, folder, plan, depth=depth)
        samples = data.gather(progress=progress)
        planned = [data.samples[item] for item in samples.features.examples.tolist()]
        read = [
            replace(
                training[one.example],
                chunks=one.chunks[:size],
                labels=one.labels[:size],
                gold_sentences=(),
                teacher_scores=(),
            )
            for one, size in zip(planned, samples.counts.tolist(), strict=True)
        ]
        heads = weights.key_heads(data.model.key_heads)
        return FittedWithout(samples, read, weights, self.ridge, self.late_ridge, heads)


@dataclass(frozen=True, slots=True, eq=False)
class FittedWithout:
    """Fits head weights to the training questions of some sources."""

    samples: Samples
    questions: Sequence[Example]  # of the samples, with the chunks that were read
    weights: HeadWeights
    ridge: float
    late_ridge: float  # of the late scores beside a shortlist
    heads: Sequence[tuple[int, int]]  # key heads that are read late

    @property
    def features(self) -> npt.NDArray[np.float32]:
        """Features of the training questions' chunks, [N, F], 0 of key heads that aren't read."""
        samples, weights = self.samples, self.weights
        features = samples.features.matrix(weights.spec, weights.layers)
        unread = np.ones((weights.layers, samples.key_heads), dtype=bool)
        for layer, head in self.heads:
            unread[layer, head] = False
        unread = unread.repeat(weights.heads // samples.key_heads, axis=1)
        features[:, : unread.size][:, unread.ravel()] = 0.0
        return features

    def __call__(self, others: Sequence[CalibrationSample]) -> Score:
        """Return what scores samples by weights for the sources of `others`."""
        samples, features = self.samples, self.features
        assert samples.labels is not None  # the signal is evidence
        chosen = np.isin(samples.sources, list({one.source for one in others}))
        design, shortlist = None, self.weights.shortlist
        if shortlist is not None:
            late = features[:, : shortlist.weight.size]
            data = ListwiseData(late, samples.labels, samples.counts).take(chosen)
            first = fit_listwise(data, ridge=self.late_ridge)
            design = Design.of(shortlist.refitted(first.weight, first.bias), features)
        terms = features if design is None else design.terms(features)
        data = ListwiseData(terms, samples.labels, samples.counts).take(chosen)
        fit = fit_listwise(data, ridge=self.ridge)

        def score(sample: CalibrationSample) -> Floats:
            return fit.scores(design.terms(sample.features) if design else sample.features)

        return score


def chosen_fit(folder: Path) -> tuple[float, str | None]:
    """Return the ridge of weights that at2-rag train wrote, and the name of their shortlist."""
    record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    [ridge] = [row["ridge"] for row in record["candidates"] if row["chosen"]]
    return ridge, record["settings"]["shortlist"]


class Ranked:
    """Questions with the scores that each system gives their chunks."""

    def __init__(self, questions: Sequence[Example]) -> None:
        self._questions = questions
        self._clusters = item_clusters(questions)
        self.scores: dict[str, Sequence[Floats]] = {}
        self._quality: dict[str, Floats] = {}

    def add_peers(self, embeddings: Iterable[Path]) -> None:
        """Add BM25, MiniLM and other embedding models."""
        rankers: dict[str, Ranker] = {BM25: BM25Ranker(), MINILM: EmbeddingRanker(batch_size=16)}
        rankers |= {
            folder.name: EmbeddingRanker(str(folder), batch_size=16) for folder in embeddings
        }
        for name, ranker in rankers.items():
            self.add(name, _scores(ranker, self._questions))

    def add(self, name: str, scores: Sequence[Floats]) -> None:
        """Add a system's scores [S] of each question, in order."""
        if len(scores) != len(self._questions):
            missing = len(self._questions) - len(scores)
            raise click.ClickException(f"{missing} questions exceed the window; leave them out")
        self.scores[name] = scores
        labels = np.concatenate([question.labels for question in self._questions])
        counts = np.array([len(question.labels) for question in self._questions])
        self._quality[name] = ndcg_at_10(np.concatenate(scores), labels, counts)

    def rows(self) -> Iterator[Row]:
        """Yield the mean of each source, and last of all sources, ours less each other system's."""
        systems = [OURS, *(name for name in self._quality if name != OURS)]
        values = np.stack([self._quality[name] for name in systems], axis=1)
        sources = np.array([question.source for question in self._questions])
        clusters, rng = np.array(self._clusters), np.random.default_rng(0)
        drawn = []
        for source in np.unique(sources):
            rows = sources == source
            drawn.append(resample_means(values[rows], clusters[rows].tolist(), rng=rng))
            means = dict(zip(systems, drawn[-1].means.tolist(), strict=True))
            better = max((means[name] for name in systems[1:]), default=float("nan"))
            yield {"source": source, **means, "less the best": means[OURS] - better}
        macro = macro_sample(drawn)
        yield {
            "source": "macro",
            **{name: _interval(macro.estimate(i)) for i, name in enumerate(systems)},
            "less the best": "",
        }
        yield {
            "source": "at2 less it",
            OURS: "",
            **{
                name: _interval(macro.estimate(0, minus=i))
                for i, name in enumerate(systems)
                if name != OURS
            },
            "less the best": "",
        }


def of_retrieved(predictions: Sequence[Prediction]) -> list[Prediction]:
    """Return the predictions of lists as retrieved, in the order of the questions."""
    rows = (row for row in predictions if row.sample.is_retrieved)
    return sorted(rows, key=lambda row: row.sample.question)


def with_second_reading(
    reader: SampleReader,
    predictions: Sequence[Prediction],
    questions: Sequence[Example],
    linked: Mapping[str, int],
) -> list[Prediction]:
    """Return what is predicted where a pruner without a limit reads the question again.

    Lists as retrieved only. Multi-hop weights are fitted without the source that is judged, and the
    best chunk is that of the scores without it.
    """
    result = list(predictions)
    scored = [ScoredSample(row.sample, row.scores, float("nan")) for row in result]
    again = reader.read_again(questions, scored)
    for group in set(linked.values()):
        others = [one for one in again.values() if linked[one.source] != group]
        weights, _ = fit_multi_hop(others, reader.weights.weight.shape[1:])
        for index, sample in again.items():
            row = result[index]
            first = ChunkScores(row.scores, row.probabilities, row.answerable)
            if linked[sample.source] == group and reads_again(DEFAULT, first):
                second = weights.scores(row.scores[sample.others], sample.features)
                last = after_multi_hop(
                    first, sample.best, sample.others, second, weights, row.calibration
                )
                assert last.probabilities is not None and last.answerable is not None
                result[index] = replace(
                    row,
                    scores=last.scores,
                    probabilities=last.probabilities,
                    answerable=last.answerable,
                )
    return result


def kind_rows(predictions: Sequence[Prediction]) -> Iterator[Row]:
    """Yield for each kind of list how likely its calls are answerable."""
    by_kind: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in predictions:
        answered = "yes" if row.sample.is_answered else "no"
        by_kind[row.sample.kind, answered].append(row.answerable)
    for (kind, answered), values in by_kind.items():
        yield {
            "list": kind,
            "has the answer": answered,
            "lists": len(values),
            "mean": float(np.mean(values)),
            ".5 or more": float(np.mean(np.array(values) >= EVEN)),
            f"below {UNANSWERABLE_BELOW}": float(np.mean(np.array(values) < UNANSWERABLE_BELOW)),
        }


def _overall(predictions: Sequence[Prediction]) -> dict[str, Value]:
    *figures, _ = judge_sources(predictions)  # the last is of all sources

    def mean(name: str) -> float:
        return float(np.nanmean([getattr(row, name) for row in figures]))

    expected = [row.expected for row in figures]
    return {
        "ECE": mean("error"),
        "most of a source": max(row.error for row in figures),
        "expected": f"{min(expected):.2f} to {max(expected):.2f}",
        "AUROC": mean("auroc"),
        "of twins": mean("auroc_of_twins"),
        "lost": mean("lost"),
        "most lost": max(row.lost for row in figures),
        "recognised": mean("recognised"),
    }


def _with_cosines(
    samples: Sequence[CalibrationSample],
    predictions: Sequence[Prediction],
    cosines: Sequence[Floats],
    linked: Mapping[str, int],
) -> list[Floats]:
    """Return scores with the prior weight that the other sources have learned."""
    terms = [
        prior_terms([Chunk("", retrieval_score=float(one)) for one in of_question], "cosine")
        for of_question in cosines
    ]
    scored = []
    for row, of_question in zip(predictions, terms, strict=True):
        assert of_question is not None  # all are known
        sample = CalibrationSample(
            row.sample.source,
            row.sample.fold,
            row.sample.features,
            row.sample.gold,
            priors={"cosine": of_question},
        )
        scored.append(ScoredSample(sample, row.scores, 0.0))
    weights = {}
    for group in set(linked.values()):
        others = [one for one in scored if linked[one.sample.source] != group]
        weights[group] = fit_prior_weight(others, "cosine") or 0.0
    return [
        scores + weights[linked[sample.source]] * sample.priors["cosine"]
        for sample, scores, _ in scored
    ]


def _scores(ranker: Ranker, questions: Sequence[Example]) -> list[Floats]:
    ranker.prepare()
    scored = (ranker.score(question.query, question.chunks) for question in questions)
    return [np.array(one.scores, dtype=float) for one in scored]


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.mean:.3f}"
    return f"{estimate.mean:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


if __name__ == "__main__":
    main()
