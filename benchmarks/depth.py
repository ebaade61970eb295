"""Quality and time of pruning by the number of layers that are read of the scoring model.

python benchmarks/depth.py --train FILE.jsonl.gz --collected FOLDER --dev FILE.jsonl.gz

README.md beside this file says what is measured.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from cases import COLD, WARM, forward_case, prune_case
from models import NO_LIMIT, make_pruner, zero_weights
from prompts import Prompt
from report import FILE, FOLDER, POSITIVE, Report, Row, SharedOptions, share_note, shared_options
from timing import UNIT, Case, TimedRun, median_ms, ratio, time_cases

from at2_rag.data.bootstrap import Estimate, macro_sample, resample_means
from at2_rag.data.examples import Example, draw_per_source, read_examples
from at2_rag.model.loading import LoadedModel
from at2_rag.progress import StepProgress
from at2_rag.reading.features import FeatureSpec, Pass, Quantity
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.report.plots import Series, interval_plot
from at2_rag.states.store import ChunkCache
from at2_rag.training.collection.ablations import AblationPlan
from at2_rag.training.collection.collection import reading_depth
from at2_rag.training.collection.features import Features
from at2_rag.training.fitting.cross_validation import (
    Candidate,
    CandidateResult,
    CrossValidation,
    assign_folds,
)
from at2_rag.training.fitting.dev import (
    DEV_FOLDER,
    DevFigures,
    choose_dev,
    count_shared,
    judge_on_dev,
)
from at2_rag.training.fitting.objectives import Objective
from at2_rag.training.fitting.samples import Samples
from at2_rag.training.fitting.trainer import RIDGES, fit_weights
from at2_rag.training.fitting.training_data import Progress, TrainingData, TrainingPlan
from at2_rag_evals.provenance import file_record

SEED = 0
ITEMS, REPEATS = 4, 3
PASSES: tuple[tuple[Pass, ...], ...] = (("together",), ("together", "apart"))
QUANTITY: Quantity = "log"
OBJECTIVE: Objective = "mixed"
PLOT = "Quality by layers in use"

DevJudge = Callable[[HeadWeights], DevFigures]


@dataclass(frozen=True, slots=True)
class Design:
    """What is read of the model: the passes, and the layers in use."""

    passes: tuple[Pass, ...]
    depth: int

    @property
    def name(self) -> str:
        """The design in words."""
        return f"{self.depth}, {' + '.join(self.passes)}"


@dataclass(frozen=True, slots=True)
class Quality:
    """How well a design ranks.

    Attributes:
        design: The design.
        ndcg: Macro nDCG@10 out of fold, with the ridge that gives the highest.
        less_best: The same less that of the best design, paired.
        by_source: nDCG@10 out of fold of each source.
        dev: Figures on dev, fitted on all examples; None without dev examples.
    """

    design: Design
    ndcg: Estimate
    less_best: Estimate
    by_source: Mapping[str, float]
    dev: DevFigures | None


@click.command("depth", context_settings={"show_default": True})
@shared_options
@click.option(
    "--train", type=FILE, multiple=True, required=True, help="As for at2-rag train; repeat."
)
@click.option("--dev", type=FILE, multiple=True, help="Also judge on these; repeat.")
@click.option(
    "--collected",
    type=FOLDER,
    required=True,
    help="What at2-rag train --signal both collected; what is missing is read.",
)
@click.option(
    "--depth",
    "depths",
    type=POSITIVE,
    multiple=True,
    default=(4, 6, 8, 10, 12, 14, 16, 18, 22, 26, 30),
    help="Layers in use; repeat.",
)
@click.option("--limit", type=POSITIVE, help="Examples of each source.")
@click.option("--masks", type=POSITIVE, default=32, help="As for at2-rag train.")
@click.option("--answer-tokens", type=POSITIVE, default=32, help="As for at2-rag train.")
@click.option("--folds", type=POSITIVE, default=5, help="As for at2-rag train.")
def main(
    *,
    shared: SharedOptions,
    train: tuple[Path, ...],
    dev: tuple[Path, ...],
    collected: Path,
    depths: tuple[int, ...],
    limit: int | None,
    masks: int,
    answer_tokens: int,
    folds: int,
) -> None:
    """Compare how well, and how fast, weights over few layers rank beside weights over many."""
    model = shared.load()
    designs = [Design(passes, depth) for depth in depths for passes in PASSES]
    files = {"train": list(map(file_record, train)), "dev": list(map(file_record, dev))}
    settings = {"quantity": QUANTITY, "objective": OBJECTIVE, "seed": SEED, **files}
    report = Report("Quality and time by depth", shared, model, **settings)
    examples = read_examples(train)
    if limit is not None:
        examples = draw_per_source(examples, limit, seed=SEED)
    # As `at2-rag train --signal both` collects it; all designs share it.
    layers = model.model.config.num_hidden_layers
    plan = TrainingPlan(
        signal="both", folds=folds, seed=SEED, ablations=AblationPlan(masks, answer_tokens)
    )
    data = TrainingData(
        model,
        examples,
        collected,
        plan,
        depth=reading_depth(max(depths), (collected, collected / DEV_FOLDER), layers=layers),
    )
    torch.set_num_threads(1)  # as at2-rag train reads, in threads of its own
    with StepProgress() as progress:
        samples = data.gather(workers=os.cpu_count() or 1, progress=progress)
        dev_folder = collected / DEV_FOLDER
        judge_dev = read_dev(data, read_examples(dev), dev_folder, progress) if dev else None
    torch.set_num_threads(shared.threads)
    heads = model.model.config.num_attention_heads
    rows = compare(samples, designs, judge_dev, folds=folds, heads=heads)
    runs, sizes = time_designs(model, shared.prompts(model, ITEMS).prompts, designs)
    if shared.output is not None:
        report.plots[PLOT] = depth_plot(rows)
    report.add(
        "Quality (macro nDCG@10, 95 % intervals) and time (ratio to the unit)",
        [depth_row(quality, runs, sizes[quality.design]) for quality in rows],
        f"Out of fold: {folds} folds grouped by gold passage, {rows[0].ndcg.n:,} examples; "
        "intervals by the bootstrap over groups, each source drawn from by itself. Dev: fitted on "
        "all examples.",
        share_note(runs, threads=shared.threads),
    )
    report.add("nDCG@10 by source, out of fold", [source_row(q, q.by_source) for q in rows])
    if judge_dev is not None:
        by_source = [source_row(q, q.dev.ndcg_by_source) for q in rows if q.dev is not None]
        report.add("nDCG@10 by source, dev", by_source)


def read_dev(
    data: TrainingData, examples: Sequence[Example], folder: Path, progress: Progress
) -> DevJudge:
    """Read dev examples, and return what ranks them with head weights."""
    chosen, _ = choose_dev(data.model, examples, reading="independent")
    count_shared(chosen, data.examples)  # warns
    collection = data.features_of(chosen, folder, seed=0, padded=False)
    collected = collection.collect(
        workers=os.cpu_count() or 1,
        progress=lambda done, total: progress("reading dev", done, total),
    )
    features = Features.of(collected.rows, collection.passes)
    return functools.partial(judge_on_dev, examples=chosen, features=features)


def compare(
    samples: Samples,
    designs: Sequence[Design],
    judge_dev: DevJudge | None,
    *,
    folds: int,
    heads: int,
) -> list[Quality]:
    """Cross-validate designs, compare them with the best, and judge each on dev."""
    fold_of = assign_folds(samples.groups, folds, np.random.default_rng(SEED))
    validation = CrossValidation(samples, fold_of)
    results = [_best_ridge(validation, design) for design in designs]
    quality = np.stack([result.quality for result in results], axis=1)  # [examples, designs]
    judged = ~np.isnan(quality[:, 0])
    sources, groups = np.array(samples.sources), np.array(samples.groups)
    rng = np.random.default_rng(SEED)
    sample = macro_sample(
        [
            resample_means(quality[rows], groups[rows].tolist(), rng=rng)
            for rows in (judged & (sources == name) for name in np.unique(sources[judged]))
        ]
    )
    best = int(np.argmax(sample.means))
    return [
        Quality(
            design,
            sample.estimate(index),
            sample.estimate(index, minus=best),
            result.by_source,
            judge_dev and judge_dev(fit_weights(samples, result.candidate, heads=heads)),
        )
        for index, (design, result) in enumerate(zip(designs, results, strict=True))
    ]


def time_designs(
    model: LoadedModel, prompts: Sequence[Prompt], designs: Sequence[Design]
) -> tuple[list[TimedRun], dict[Design, float]]:
    """Time whole calls of every design beside the unit; also return bytes a chunk.

    The head weights are zeros: time doesn't depend on the numbers.
    """
    chunks = list({chunk.rendered: chunk for p in prompts for chunk in p.chunks}.values())
    cases: dict[str, Case] = {UNIT: forward_case(model, prompts)}
    sizes = {}
    for design in designs:
        weights = zero_weights(model, design.passes, design.depth)
        cache = ChunkCache(max_memory_bytes=NO_LIMIT)
        warm = make_pruner(model, weights, chunk_cache=cache)
        warm.index(chunks)
        sizes[design] = cache.counts.memory_bytes / len(chunks)
        cases[f"{design.name}, {COLD}"] = prune_case(make_pruner(model, weights), prompts)
        cases[f"{design.name}, {WARM}"] = prune_case(warm, prompts)
    runs = time_cases(cases, prompts=len(prompts), repeats=REPEATS, seed=SEED)
    return runs, sizes


def depth_row(quality: Quality, runs: Sequence[TimedRun], size: float) -> Row:
    """Return what a design is worth and what it costs."""
    name, dev = quality.design.name, quality.dev
    return {
        "layers, passes": name,
        "out of fold": _interval(quality.ndcg),
        "less the best": _interval(quality.less_best),
        "dev": None if dev is None else f"{dev.ndcg:.4f}",
        "dev, gold first": None if dev is None else f"{dev.gold_first:.4f}",
        COLD: ratio(runs, f"{name}, {COLD}", to=UNIT),
        f"{COLD}, ms": median_ms(runs, f"{name}, {COLD}"),
        WARM: ratio(runs, f"{name}, {WARM}", to=UNIT),
        f"{WARM}, ms": median_ms(runs, f"{name}, {WARM}"),
        "KB a chunk": size / 1000,
    }


def source_row(quality: Quality, by_source: Mapping[str, float]) -> Row:
    """Return a design's figures by source."""
    return {"layers, passes": quality.design.name, **dict(sorted(by_source.items()))}


def depth_plot(rows: Sequence[Quality]) -> str:
    """Return an SVG of quality by layers, with a line for each choice of passes, and on dev."""
    series = []
    for passes in PASSES:
        of_passes = [row for row in rows if row.design.passes == passes]
        name = " + ".join(passes)
        points = [(r.design.depth, r.ndcg.mean, r.ndcg.low, r.ndcg.high) for r in of_passes]
        series.append(Series(f"{name}, out of fold", points, emphasis=passes == PASSES[-1]))
        dev = [(r.design.depth, r.dev.ndcg, None, None) for r in of_passes if r.dev is not None]
        series += [Series(f"{name}, dev", dev)] if dev else []
    least = min(y if low is None else low for line in series for _, y, low, _ in line.points)
    return interval_plot(
        series,
        title=PLOT,
        x_label="layers in use",
        y_label="macro nDCG@10",
        lowest=np.floor(20 * least) / 20,
    )


def _best_ridge(validation: CrossValidation, design: Design) -> CandidateResult:
    spec = FeatureSpec(QUANTITY, design.passes)
    candidates = [Candidate(spec, design.depth, ridge, OBJECTIVE) for ridge in RIDGES]
    return max(map(validation.judge, candidates), key=lambda result: result.ndcg)


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.mean:.4f}"
    return f"{estimate.mean:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"


if __name__ == "__main__":
    main()
