"""Designs of late reading: where the question stands, layers, key heads, and shortlists.

python benchmarks/late_designs.py FILES... --limit 40 --collected FOLDER

Each source is ranked by what was fitted without it. README.md beside this file says more.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch
from report import FOLDER, POSITIVE, Row, markdown_table

from at2_rag.arrays import Bools, Floats
from at2_rag.data.bootstrap import Estimate, MeanDraws, macro_sample, resample_means
from at2_rag.data.examples import draw_per_source, read_examples
from at2_rag.model.hub import DEFAULT_MODEL
from at2_rag.model.loading import LoadedModel
from at2_rag.progress import StepProgress
from at2_rag.reading import late
from at2_rag.reading.features import FeatureSpec
from at2_rag.readout.shortlist import Design, Shortlist
from at2_rag.training.fitting.cross_validation import (
    Candidate,
    CrossValidation,
    mean_by_source,
    ndcg_at_10,
)
from at2_rag.training.fitting.objectives import fit_objective
from at2_rag.training.fitting.samples import Samples
from at2_rag.training.fitting.training_data import TrainingData, TrainingPlan
from at2_rag_evals.rankers.embedding import EmbeddingRanker

SEED = 0
RIDGE, CASCADE_RIDGE = 0.03, 0.1
LATE = FeatureSpec("log", ("late",))
CASCADE = FeatureSpec("log", ("late", "together", "apart"))
ALL_CHUNKS = FeatureSpec("log", ("together", "apart"))  # cascades are compared with it
EARLY = (6, 8, 9, 10, 12, 14)  # layers after which chunks are let go
SHARES = (0.34, 0.5, 0.67)  # of the chunks that are read on, at least three
RULES = ((3, 6, 2.0), (3, 8, 3.0), (3, 10, 3.0), (8, 8, 0.0), (10, 10, 0.0))  # least, most, gap


@click.command("late_designs", context_settings={"show_default": True})
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--limit", type=POSITIVE, default=40, help="Questions of each source.")
@click.option("--model", default=DEFAULT_MODEL, help="Name, folder or hub id.")
@click.option("--collected", type=FOLDER, required=True, help="What is read, kept there.")
@click.option("--depth", "depths", type=POSITIVE, multiple=True, default=(8, 9, 10, 14, 16, 18, 22))
@click.option("--key-heads", type=POSITIVE, multiple=True, default=(6, 9, 18, 54))
@click.option("--offset", "offsets", type=POSITIVE, multiple=True, default=(32, late.OFFSET, 400))
@click.option("--peers", is_flag=True, help="Also embeddings by MiniLM.")
@click.option("--judge", "sources", multiple=True, help="Judge this source alone. [default: all]")
def main(
    *,
    files: tuple[str, ...],
    limit: int,
    model: str,
    collected: Path,
    depths: tuple[int, ...],
    key_heads: tuple[int, ...],
    offsets: tuple[int, ...],
    peers: bool,
    sources: tuple[str, ...],
) -> None:
    """Rank each source by what was fitted without it, in several designs."""
    examples = draw_per_source(read_examples(files), limit, seed=SEED)
    loaded = LoadedModel.from_pretrained(model)
    torch.set_num_threads(1)  # as at2-rag train reads, in threads of its own
    designs = [(depth, heads) for depth in depths for heads in key_heads]
    with StepProgress() as progress:
        for offset in offsets:
            specs = (CASCADE, ALL_CHUNKS, LATE) if offset == offsets[0] else (LATE,)
            plan = TrainingPlan(specs=specs, leave_out_sources=True)
            folder = collected / f"offset{offset}"
            data = TrainingData(loaded, examples, folder, plan, depth=max(depths))
            with question_at(offset):
                samples = data.gather(workers=os.cpu_count() or 1, progress=progress)
            judge = Judge(samples, sources)
            rows = list(late_rows(judge, designs))
            click.echo(markdown_table(f"Late, the question {offset} positions on", rows))
            if offset == offsets[0]:
                if rows := list(early_rows(judge, max(depths), max(key_heads))):
                    click.echo(markdown_table("Chunks let go early, less all chunks", rows))
                rows = list(shortlist_rows(judge, data, max(depths), max(key_heads), peers=peers))
                click.echo(markdown_table("Shortlists", rows))


@contextmanager
def question_at(offset: int) -> Iterator[None]:
    """Read questions late so many positions after the prefix."""
    before, late.OFFSET = late.OFFSET, offset
    try:
        yield
    finally:
        late.OFFSET = before


@dataclass(frozen=True, slots=True)
class Judge:
    """Compares designs on samples of some sources, none for all."""

    samples: Samples
    only: tuple[str, ...] = ()

    def row(self, quality: Floats, beside: Floats | None = None) -> Row:
        """Return the macro nDCG@10 [I], and its difference to that of another design."""
        judged = self._judged(quality)
        by_source = mean_by_source(quality[judged], np.array(self.samples.sources)[judged])
        less = {} if beside is None else {"less all chunks": self.compared(quality, beside)}
        return {
            "nDCG@10": _interval(self._sampled(quality, quality).estimate(0)),
            **less,
            "least source": min(by_source.values()),
        }

    def compared(self, quality: Floats, beside: Floats) -> str:
        """Return the macro difference of two designs."""
        return _interval(self._sampled(quality, beside).estimate(0, minus=1))

    def _judged(self, quality: Floats) -> Bools:
        judged: Bools = ~np.isnan(quality)
        return judged & np.isin(self.samples.sources, self.only) if self.only else judged

    def _sampled(self, quality: Floats, beside: Floats) -> MeanDraws:
        """Return means over sources of two designs, resampled together."""
        judged = self._judged(quality)
        values = np.stack([quality, beside], axis=1)
        sources, groups = np.array(self.samples.sources), np.array(self.samples.groups)
        rng = np.random.default_rng(SEED)
        return macro_sample(
            [
                resample_means(values[rows], groups[rows].tolist(), rng=rng)
                for rows in (judged & (sources == name) for name in np.unique(sources[judged]))
            ]
        )


def late_rows(judge: Judge, designs: Sequence[tuple[int, int]]) -> Iterator[Row]:
    """Yield what weights over so many layers and key heads rank."""
    samples = judge.samples
    validation = CrossValidation(samples, samples.linked_sources())
    for depth, heads in designs:
        result = validation.judge(Candidate(LATE, depth, RIDGE, "evidence", heads))
        yield {"layers": depth, "key heads": heads, **judge.row(result.quality)}


def early_rows(judge: Judge, depth: int, heads: int) -> Iterator[Row]:
    """Yield what late reading ranks that goes on, after some layers, with the better chunks only.

    The others are behind them, in the order that they had then.
    """
    samples = judge.samples
    assert samples.labels is not None  # the signal is evidence
    validation = CrossValidation(samples, samples.linked_sources())
    scores = validation.scores(Candidate(LATE, depth, RIDGE, "evidence", heads))
    every = _figures(samples, scores)
    for layers in (layers for layers in EARLY if layers < depth):
        first = validation.scores(Candidate(LATE, layers, RIDGE, "evidence", heads))
        for share in SHARES:
            after, read = [], []
            by_sample = (samples.features.by_sample(values) for values in (first, scores))
            for of_first, of_all in zip(*by_sample, strict=True):
                count = max(3, math.ceil(share * len(of_first)))
                behind = np.argsort(-of_first, kind="stable")[count:]
                merged = of_all.copy()
                merged[behind] = of_all.min(initial=0) - 1 + of_first[behind] - of_first.max()
                after.append(merged)
                read.append(len(merged) - len(behind))
            part = sum(read) / len(scores)
            yield {
                "layers": layers,
                "share": share,
                "work": (layers + part * (depth - layers)) / depth,
                **{
                    name: judge.compared(values, every[name])
                    for name, values in _figures(samples, np.concatenate(after)).items()
                    if not np.isnan(values).all()
                },
            }


def _figures(samples: Samples, scores: Floats) -> dict[str, Floats]:
    """Return nDCG@10, gold first and all gold in the top 3 of each sample, [I]; NaN: not judged."""
    assert samples.labels is not None
    pairs = zip(
        samples.features.by_sample(scores), samples.features.by_sample(samples.labels), strict=True
    )
    first, top = [], []
    for of_sample, gold in pairs:
        ranked = gold[np.argsort(-of_sample, kind="stable")]
        first.append(float(ranked[0]))
        several = 2 <= gold.sum() <= 3
        top.append(float(ranked[:3].sum() == gold.sum()) if several else np.nan)
    return {
        "nDCG@10": ndcg_at_10(scores, samples.labels, samples.counts),
        "gold first": np.array(first),
        "all gold in top 3": np.array(top),
    }


def shortlist_rows(
    judge: Judge, data: TrainingData, depth: int, heads: int, *, peers: bool
) -> Iterator[Row]:
    """Yield what two passes over all chunks rank, late reading alone, cascades, and MiniLM."""
    samples = judge.samples
    assert samples.labels is not None  # the signal is evidence
    fold_of = samples.linked_sources()
    validation = CrossValidation(samples, fold_of)
    all_chunks = validation.judge(Candidate(ALL_CHUNKS, depth, RIDGE, "evidence")).quality
    yield {"read": "together and apart", "of": "all chunks", **judge.row(all_chunks)}
    late_alone = validation.judge(Candidate(LATE, depth, RIDGE, "evidence", heads)).quality
    yield {"read": "late", "of": "all chunks", **judge.row(late_alone, all_chunks)}
    features = samples.features.matrix(CASCADE, depth)
    for least, most, gap in RULES:
        scores, sizes = np.zeros(len(features)), []
        for fold in np.unique(fold_of):
            held_out = fold_of == fold
            first = _shortlist(samples, depth, heads, ~held_out)
            first = replace(first, least=least, most=most, gap=gap)
            masked, size = _only_shortlisted(samples, features, first)
            design = Design.of(first, masked)
            terms = design.terms(masked)
            fit = fit_objective("evidence", samples, terms, ridge=CASCADE_RIDGE, chosen=~held_out)
            rows = np.repeat(held_out, samples.counts)
            scores[rows] = fit.scores(terms[rows])
            sizes += size[held_out].tolist()
        quality = ndcg_at_10(scores, samples.labels, samples.counts)
        yield {
            "read": "late, then all three",
            "of": f"{least} to {most}, within {gap:g}",
            "chunks": float(np.mean(sizes)),
            **judge.row(quality, all_chunks),
        }
    if peers:
        ranker = EmbeddingRanker(batch_size=16)
        ranker.prepare()
        similarities = [
            score
            for index in samples.features.examples.tolist()
            for score in ranker.score(data.examples[index].query, data.samples[index].chunks).scores
        ]
        quality = ndcg_at_10(np.array(similarities), samples.labels, samples.counts)
        yield {"read": "MiniLM", "of": "all chunks", **judge.row(quality, all_chunks)}


def _shortlist(samples: Samples, depth: int, heads: int, chosen: Bools) -> Shortlist:
    """Return late weights fitted to a part of the samples."""
    fit = fit_objective(
        "evidence",
        samples,
        samples.features.matrix(LATE, depth),
        ridge=RIDGE,
        chosen=chosen,
        groups=samples.limit(depth, heads),
    )
    return Shortlist(fit.weight.reshape(depth, -1).astype(np.float32), fit.bias)


def _only_shortlisted(
    samples: Samples, features: np.ndarray, shortlist: Shortlist
) -> tuple[np.ndarray, np.ndarray]:
    """Return features [N, F] without what cascades don't read, and the shortlists' sizes [I]."""
    masked, first = features.copy(), shortlist.late_scores(features)
    chosen = [shortlist.chosen(scores) for scores in samples.features.by_sample(first)]
    masked[~np.concatenate(chosen), shortlist.weight.size :] = np.nan
    return masked, np.array([one.sum() for one in chosen])


def _interval(estimate: Estimate) -> str:
    return f"{estimate.mean:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


if __name__ == "__main__":
    main()
