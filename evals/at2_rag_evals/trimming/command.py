"""What `at2-rag eval trimming` does: read, prune, look for answers, report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
from rich.console import Console

from at2_rag.cli.step_progress import StepProgress
from at2_rag.data.examples import Example, read_examples
from at2_rag.errors import DataError
from at2_rag.files import write_whole
from at2_rag.model.hub import DEFAULT_MODEL
from at2_rag_evals.bootstrap import LEVEL, RESAMPLES, Estimate, macro_sample
from at2_rag_evals.clusters import item_clusters
from at2_rag_evals.items import ItemSet
from at2_rag_evals.model_record import model_record
from at2_rag_evals.provenance import file_record, git_state, package_versions, without_folder
from at2_rag_evals.rankers.at2 import head_weights_record, load_pruner, shared_cache
from at2_rag_evals.report import difference_cell, estimate_cell, items_table, report_head
from at2_rag_evals.summary import MACRO, Strata
from at2_rag_evals.tables import Cell, Table, to_markdown, to_rich
from at2_rag_evals.trimming.judging import Cut, Trimmed, judge_trimming, trimmable_items

DEFAULT_SHARE = 0.5
"""Most tokens of sentences, as a share of those of the best chunks, where nothing else is said."""

MultiHopFor = Literal["none", "sentences", "both"]
"""For what the question is asked again beside the best chunk, whole chunks or sentences."""

_WIDTH = 120
NOTE = (
    "Brackets are 95 % percentile bootstrap intervals over clusters of items that share a gold "
    "passage, a page or their chunks; macro is the mean of the sources' means. An answer is held "
    "where its normalised words stand in the kept text one after another."
)


@dataclass(frozen=True, slots=True)
class TrimmingRequest:
    """What was asked for; the fields are the command's arguments."""

    files: tuple[Path, ...]
    output: Path | None = None
    top_k: tuple[int, ...] = (1, 3)
    share: float | None = None
    min_scores: tuple[float, ...] = ()
    max_missed: tuple[float, ...] = ()
    multi_hop: MultiHopFor | None = None
    limit: int | None = None
    seed: int = 0
    model: str | None = None
    head_weights: str | None = None

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """How sentences are chosen; in half of the tokens where nothing else was asked for."""
        others = bool(self.min_scores or self.max_missed)
        share = DEFAULT_SHARE if self.share is None and not others else self.share
        asks = None if self.multi_hop is None else self.multi_hop != "none"
        return (
            *(Cut(share=own, multi_hop=asks) for own in [share] if own is not None),
            *(Cut(min_score=own, multi_hop=asks) for own in self.min_scores),
            *(Cut(max_missed=own, multi_hop=asks) for own in self.max_missed),
        )

    @property
    def command(self) -> str:
        """The command line, with the names of files and folders but not where they are."""
        parts = ["at2-rag eval trimming", *(path.name for path in self.files)]
        parts += [f"--top-k {count}" for count in self.top_k]
        parts += [] if self.share is None else [f"--share {self.share:g}"]
        parts += [f"--min-score {own:g}" for own in self.min_scores]
        parts += [f"--max-missed {own:g}" for own in self.max_missed]
        parts += [] if self.multi_hop is None else [f"--multi-hop {self.multi_hop}"]
        parts += [] if self.limit is None else [f"--limit {self.limit}"]
        parts += [f"--seed {self.seed}"]
        for option, value in (
            ("--model", self.model),
            ("--head-weights", self.head_weights),
            ("--output", None if self.output is None else str(self.output)),
        ):
            parts += [] if value is None else [f"{option} {without_folder(value)}"]
        return " ".join(parts)


@dataclass(frozen=True, slots=True)
class TrimmingFigures:
    """How both ways of pruning did with one number of chunks, by source and `MACRO`.

    Attributes:
        top_k: The number of chunks.
        cut: How sentences were chosen.
        in_chunks: Share of items whose best chunks hold the answer.
        in_sentences: Share of items whose kept sentences do.
        difference: The latter less the former.
        chunk_tokens: Mean tokens of the best chunks.
        sentence_tokens: Mean tokens of the kept sentences.
        changed: Items in which something kept is not the chunks' own text.
    """

    top_k: int
    cut: str
    in_chunks: Mapping[str, Estimate]
    in_sentences: Mapping[str, Estimate]
    difference: Mapping[str, Estimate]
    chunk_tokens: Mapping[str, float]
    sentence_tokens: Mapping[str, float]
    changed: int


def run_trimming(request: TrimmingRequest, *, as_json: bool) -> None:
    """Run the trimming eval, print its report and write it where asked to.

    Raises:
        AT2Error: If a file, the model or the head weights can't be used.
    """
    if request.output is not None:
        request.output.mkdir(parents=True, exist_ok=True)
    examples = read_examples(request.files, labelled=False)
    items = trimmable_items(examples, limit=request.limit)
    if not items.items:
        raise DataError(
            f"none of the {len(examples)} items can be judged (left out: "
            f"{json.dumps(items.left_out)}); an item needs an answer that stands in a chunk"
        )
    with StepProgress() as progress:
        progress("loading the model", 0, 1)
        pruner = load_pruner(
            request.model, head_weights=request.head_weights, chunk_cache=shared_cache()
        )
        progress("loading the model", 1, 1)
        trimmed = judge_trimming(
            pruner,
            items.items,
            top_k=request.top_k,
            cuts=request.cuts,
            multi_hop=request.multi_hop == "both",
            progress=lambda done, total: progress("pruning", done, total),
        )
    found = [
        _figures(request, items.items, count, cut, own) for (count, cut), own in trimmed.items()
    ]
    report = _report(request, items, found)
    tables = [*map(_table, found), _items(items)]
    if request.output is not None:
        _write(request.output, report, tables, items, trimmed)
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    for table in tables:
        console.print(to_rich(table))
    console.print(NOTE, style="dim", markup=False, highlight=False)


def _figures(
    request: TrimmingRequest,
    items: Sequence[Example],
    count: int,
    cut: Cut,
    trimmed: Sequence[Trimmed],
) -> TrimmingFigures:
    sources = [item.source for item in items]
    values = np.array([[own.in_chunks, own.in_sentences] for own in trimmed], dtype=np.float64)
    strata = Strata(item_clusters(items), f"top {count}", request.seed, RESAMPLES)
    samples = strata.sample(values, sources, metric="containment")
    samples[MACRO] = macro_sample(list(samples.values()))
    tokens = np.array([[own.chunk_tokens, own.sentence_tokens] for own in trimmed], dtype=float)
    means = {
        source: tokens[[own == source for own in sources]].mean(axis=0)
        for source in dict.fromkeys(sources)
    }
    means[MACRO] = np.mean(list(means.values()), axis=0)
    return TrimmingFigures(
        top_k=count,
        cut=cut.label,
        in_chunks={name: own.estimate(0) for name, own in samples.items()},
        in_sentences={name: own.estimate(1) for name, own in samples.items()},
        difference={name: own.estimate(1, minus=0) for name, own in samples.items()},
        chunk_tokens={name: float(own[0]) for name, own in means.items()},
        sentence_tokens={name: float(own[1]) for name, own in means.items()},
        changed=sum(not own.verbatim for own in trimmed),
    )


def _table(figures: TrimmingFigures) -> Table:
    header = [
        *(Cell("items"), Cell("n/clusters"), Cell("chunks hold it"), Cell("tokens")),
        *(Cell("sentences hold it"), Cell("tokens"), Cell("difference")),
    ]
    rows = [
        [
            Cell(name),
            Cell(f"{own.n}/{own.clusters}"),
            estimate_cell(own),
            Cell(f"{figures.chunk_tokens[name]:,.0f}"),
            estimate_cell(figures.in_sentences[name]),
            Cell(f"{figures.sentence_tokens[name]:,.0f}"),
            difference_cell(figures.difference[name]),
        ]
        for name, own in figures.in_chunks.items()
    ]
    best = "best chunk" if figures.top_k == 1 else f"best {figures.top_k} chunks"
    changed = "all kept text verbatim" if not figures.changed else f"{figures.changed} changed"
    title = f"Answer kept: {best}, or sentences ({figures.cut}); {changed}"
    return Table(title, header, rows)


def _items(items: ItemSet) -> Table:
    counts = Counter(item.source for item in items.items)
    return items_table(items.name, counts, items.left_out)


def _report(
    request: TrimmingRequest, items: ItemSet, found: Sequence[TrimmingFigures]
) -> dict[str, Any]:
    return {
        "eval": "trimming",
        "command": request.command,
        "settings": {
            "files": [file_record(path) for path in request.files],
            "seed": request.seed,
            "limit": request.limit,
            "top_k": list(request.top_k),
            "cuts": [asdict(own) for own in request.cuts],
            "multi_hop": request.multi_hop,
            "resamples": RESAMPLES,
            "level": LEVEL,
            **model_record(request.model or DEFAULT_MODEL),
            **head_weights_record(request.head_weights),
        },
        "git": git_state(),
        "packages": package_versions(),
        "left_out": {source: dict(own) for source, own in items.left_out.items()},
        "figures": [asdict(own) for own in found],
        "notes": [NOTE],
    }


def _write(
    folder: Path,
    report: dict[str, Any],
    tables: Sequence[Table],
    items: ItemSet,
    trimmed: Mapping[tuple[int, Cut], Sequence[Trimmed]],
) -> None:
    lines = [
        json.dumps(_record(item, count, cut, own)) + "\n"
        for (count, cut), every in trimmed.items()
        for item, own in zip(items.items, every, strict=True)
    ]
    text = [*report_head("Trimming eval", report)]
    for table in tables:
        text += [to_markdown(table), ""]
    text += ["## Notes", "", f"- {NOTE}"]
    write_whole(folder / "items.jsonl", "".join(lines).encode())
    write_whole(folder / "trimming.md", ("\n".join(text) + "\n").encode())
    write_whole(folder / "trimming.json", (json.dumps(report, indent=2) + "\n").encode())


def _record(item: Example, count: int, cut: Cut, own: Trimmed) -> dict[str, Any]:
    names = {"source": item.source, "id": item.id, "top_k": count, "cut": cut.label}
    return {**names, **asdict(own)}
