"""The tables of the ranking report, and its lines on items."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from at2_rag.report.verdict import Verdict
from at2_rag_evals.metrics import METRIC_TITLES
from at2_rag_evals.ranking.rating import RatedSet
from at2_rag_evals.ranking.summary import SetSummary
from at2_rag_evals.report import INTERVAL_NOTE, grid, items_table
from at2_rag_evals.summary import MACRO, OURS
from at2_rag_evals.tables import Table
from at2_rag_evals.verdict import ranking_verdict

NOTES = (
    INTERVAL_NOTE,
    "Chunks with equal scores keep their input order.",
    "Distractors mined with BM25 are adversarial to BM25: on sources built that way it does worse "
    "than on chunks found by another retriever. Distractors that were constructed or drawn at "
    "random are easier than those a web-scale retriever brings.",
    "Milliseconds are this run's median wall-clock time an item; texts that a system had seen "
    "before cost nothing: no speed comparison.",
)


METRIC = "ndcg_at_10"
RIVALS = ("bm25", "minilm", "bm25_minilm", "bm25_unstemmed")
"""What somebody would use in place of at2. The others are controls."""


def verdict(summary: SetSummary, *, embeddings: Sequence[str] = ()) -> Verdict:
    """Return what the figures of a set say of at2 and its alternatives.

    `embeddings` are the names of embedding models, which are alternatives beside `RIVALS`.
    """
    return ranking_verdict(
        f"Does {OURS} rank the gold chunks higher than its alternatives ({summary.name})?",
        f"an {METRIC_TITLES[METRIC]} of",
        summary.by_source[METRIC].get(MACRO, {}),
        summary.differences.get(METRIC, {}).get(MACRO, {}),
        rivals=(*RIVALS, *embeddings),
    )


def summary_tables(summary: SetSummary) -> Iterator[Table]:
    """Yield the tables of one set."""
    systems = list(summary.systems)
    others = [system for system in systems if system != OURS]
    for metric, title in METRIC_TITLES.items():
        if summary.by_source[metric]:
            yield grid(f"{title}, {summary.name}", summary.by_source[metric], systems)
    for metric, groups in summary.differences.items():
        if groups:
            title = f"{METRIC_TITLES[metric]}, {summary.name}: {OURS} minus each other system"
            yield grid(title, groups, others, difference=True)
    for metric, title in METRIC_TITLES.items():
        sizes = summary.by_chunks[metric]
        if len(summary.items_by_chunks) > 1 and sizes:
            ordered = {name: sizes[name] for name in summary.items_by_chunks if name in sizes}
            title = f"{title}, {summary.name}, by number of chunks an item, sources pooled"
            yield grid(title, ordered, systems)
    yield items_table(summary.name, summary.items, summary.left_out)
    yield _systems_table(summary)


def item_records(rated: RatedSet) -> Iterator[dict[str, Any]]:
    """Yield for each item every system's metrics and ranks of the gold chunks."""
    for index, item in enumerate(rated.item_set.items):
        yield {
            "set": rated.item_set.name,
            "source": item.source,
            "id": item.id,
            "chunks": len(item.chunks),
            "gold": sum(item.labels),
            "systems": {
                system: {
                    **ratings[index].metrics,
                    "gold_ranks": list(ratings[index].gold_ranks),
                    "truncated": ratings[index].truncated,
                }
                for system, ratings in rated.ratings.items()
            },
        }


def _systems_table(summary: SetSummary) -> Table:
    header = ["system", "chunks", "truncated", "ms an item"]
    rows = [
        [
            system,
            f"{totals.chunks:,}",
            f"{totals.truncated_chunks:,}",
            f"{1000 * totals.median_seconds:.1f}",
        ]
        for system, totals in summary.systems.items()
    ]
    return Table(f"Systems, {summary.name}", header, rows)
