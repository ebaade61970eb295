"""Quality and time of pruning by the number of layers that are read of the scoring model.

python benchmarks/depth.py --train FILE.jsonl.gz --collected FOLDER --dev FILE.jsonl.gz

README.md beside this file says what is measured.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch
from cases import COLD, UNIT, WARM, forward_case, prune_case
from models import make_pruner, zero_weights
from prompts import Prompt
from report import FILE, FOLDER, POSITIVE, Row, SharedOptions, share_note, shared_options
from timing import Case, Spread, TimedRun, core_share, ratios, seconds_of, time_cases

from at2_rag.data.examples import Example, draw_per_source, read_files
from at2_rag.model.loading import LoadedModel
from at2_rag.reading.features import FeatureSpec, Pass, Quantity
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.report.plots import Series, interval_plot
from at2_rag.states.store import ChunkCache
from at2_rag.training.answering.answer_model import AnswerModel
from at2_rag.training.collection.ablations import AblationPlan
from at2_rag.training.collection.gathered_ablations import GatheredAblations, gather_ablations
from at2_rag.training.collection.store import reading_depth
from at2_rag.training.fitting.ablation_validation import (
    AblationCandidate,
    AblationResult,
    Objective,
    cross_validate_ablations,
)
from at2_rag.training.fitting.dev_figures import (
    DEV_FOLDER,
    DevFigures,
    DevSet,
    choose_dev,
    collect_dev,
    count_shared,
)
from at2_rag.training.fitting.validation import RIDGES, feature_matrix
from at2_rag_evals.bootstrap import Estimate, macro_sample, resample_means
from at2_rag_evals.provenance import file_record

SEED = 0
ITEMS, REPEATS = 4, 3
PASSES: tuple[tuple[Pass, ...], ...] = (("together",), ("together", "apart"))
QUANTITY: Quantity = "log_mass"
OBJECTIVE: Objective = "mixed"
PLOT = "Quality by layers in use"


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
    model = shared.subject.load()
    designs = [Design(passes, depth) for depth in depths for passes in PASSES]
    files = {"train": list(map(file_record, train)), "dev": list(map(file_record, dev))}
    settings = {"quantity": QUANTITY, "objective": OBJECTIVE, "seed": SEED, **files}
    report = shared.report("depth", "Quality and time by depth", model, **settings)
    plan = AblationPlan(masks, answer_tokens)
    torch.set_num_threads(1)  # as at2-rag train reads, in threads of its own
    gathered, dev_set = gather(
        model, train, dev, collected, depth=max(depths), limit=limit, plan=plan, folds=folds
    )
    torch.set_num_threads(shared.subject.threads)
    rows = compare(model, gathered, designs, dev_set)
    runs, sizes = time_designs(model, shared.prompts(model, ITEMS).prompts, designs)
    if shared.output is not None:
        report.plots[PLOT] = depth_plot(rows)
    report.add(
        "Quality (macro nDCG@10, 95 % intervals) and time (ratio to the unit)",
        [depth_row(quality, runs, sizes[quality.design]) for quality in rows],
        f"Out of fold: {folds} folds grouped by gold passage, {rows[0].ndcg.n:,} examples; "
        "intervals by the bootstrap over groups, each source drawn from by itself. Dev: fitted on "
        "all examples.",
        share_note("the unit", core_share(runs, UNIT, threads=shared.subject.threads)),
    )
    report.add("nDCG@10 by source, out of fold", [source_row(q, q.by_source) for q in rows])
    if dev_set is not None:
        by_source = [source_row(q, q.dev.ndcg_by_source) for q in rows if q.dev is not None]
        report.add("nDCG@10 by source, dev", by_source)


def gather(
    model: LoadedModel,
    train: Sequence[Path],
    dev: Sequence[Path],
    folder: Path,
    *,
    depth: int,
    limit: int | None,
    plan: AblationPlan,
    folds: int,
) -> tuple[GatheredAblations, DevSet | None]:
    """Collect features and ablations as `at2-rag train --signal both` does; all designs share them.

    Args:
        model: The model.
        train: Files of training examples.
        dev: Files of dev examples.
        folder: What is collected already, and where the rest goes.
        depth: Layers of the deepest design.
        limit: Examples of each source; None for all.
        plan: What is ablated.
        folds: Folds of the cross-validation.
    """
    examples = _examples(train)
    if limit is not None:
        examples = draw_per_source(examples, limit, seed=SEED)
    layers = model.model.config.num_hidden_layers
    depth = reading_depth(depth, (folder, folder / DEV_FOLDER), layers=layers)
    scoring_model = ScoringModel(model.model, model.tokenizer, depth=depth)
    workers = os.cpu_count() or 1
    gathered = gather_ablations(
        scoring_model,
        AnswerModel(model.model, model.tokenizer),
        examples,
        folder,
        fingerprint=model.fingerprint,
        signal="both",
        plan=plan,
        folds=folds,
        seed=SEED,
        workers=workers,
        progress=_show_progress("reading"),
    )
    if not dev:
        return gathered, None
    chosen, left_out = choose_dev(scoring_model, _examples(dev), reading="independent")
    count_shared(chosen, examples)  # warns
    show = _show_progress("reading")
    dev_set = collect_dev(
        scoring_model,
        chosen,
        folder / DEV_FOLDER,
        left_out=left_out,
        reading="independent",
        fingerprint=model.fingerprint,
        workers=workers,
        progress=lambda done, total: show("dev", done, total),
    )
    return gathered, dev_set


def compare(
    model: LoadedModel,
    gathered: GatheredAblations,
    designs: Sequence[Design],
    dev: DevSet | None,
) -> list[Quality]:
    """Cross-validate designs, compare them with the best, and judge each on dev."""
    results = [_best_ridge(gathered, design) for design in designs]
    quality = np.stack([result.quality for result in results], axis=1)  # [examples, designs]
    judged = ~np.isnan(quality[:, 0])
    sources, groups = np.array(gathered.samples.sources), np.array(gathered.groups)
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
            None if dev is None else _judge(model, gathered, result.candidate, dev),
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
        cache = ChunkCache(max_memory_bytes=2**40)
        warm = make_pruner(model, weights, chunk_cache=cache)
        warm.index(chunks)
        sizes[design] = cache.counts.memory_bytes / len(chunks)
        cases[f"{design.name}, {COLD}"] = prune_case(make_pruner(model, weights), prompts)
        cases[f"{design.name}, {WARM}"] = prune_case(warm, prompts)
    runs = time_cases(cases, prompts=len(prompts), repeats=REPEATS, seed=SEED)
    return runs, sizes


def depth_row(quality: Quality, runs: Sequence[TimedRun], size: float) -> Row:
    """Return what a design is worth and what it costs."""
    dev = quality.dev
    row: dict[str, str | float | Spread | None] = {
        "layers, passes": quality.design.name,
        "out of fold": _interval(quality.ndcg),
        "less the best": _interval(quality.less_best),
        "dev": None if dev is None else f"{dev.ndcg:.4f}",
        "dev, gold first": None if dev is None else f"{dev.gold_first:.4f}",
    }
    for state in (COLD, WARM):
        case = f"{quality.design.name}, {state}"
        row[state] = Spread.of(ratios(runs, case, to=UNIT))
        row[f"{state}, ms"] = 1000 * statistics.median(seconds_of(runs, case))
    return {**row, "KB a chunk": size / 1000}


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


def _examples(files: Sequence[Path]) -> list[Example]:
    return [example for file in read_files(list(map(str, files))) for example in file]


def _best_ridge(gathered: GatheredAblations, design: Design) -> AblationResult:
    spec = FeatureSpec(QUANTITY, design.passes)
    candidates = [AblationCandidate(spec, design.depth, ridge, OBJECTIVE) for ridge in RIDGES]
    results = cross_validate_ablations(
        gathered.samples, gathered.fold_of, candidates, gathered.weights
    )
    return max(results, key=lambda result: result.ndcg)


def _judge(
    model: LoadedModel, gathered: GatheredAblations, candidate: AblationCandidate, dev: DevSet
) -> DevFigures:
    """Fit a candidate on all examples and rank those of dev."""
    samples = gathered.samples
    matrix = feature_matrix(samples.collected, candidate.spec, candidate.depth)
    everything = np.ones(len(samples.sources), dtype=bool)
    fit = samples.fit(matrix, candidate, everything, gathered.weights)
    zeros = zero_weights(model, candidate.spec.passes, candidate.depth)
    weight = fit.weight.reshape(zeros.weight.shape).astype(np.float32)
    return dev.judge(replace(zeros, weight=weight, bias=fit.bias))


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.mean:.4f}"
    return f"{estimate.mean:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"


def _show_progress(what: str) -> Callable[[str, int, int], None]:
    """Return a callback that counts what was read on stderr."""

    def show(stage: str, done: int, total: int) -> None:
        click.echo(f"\r{what} {stage}: {done} of {total}", err=True, nl=done == total)

    return show


if __name__ == "__main__":
    main()
