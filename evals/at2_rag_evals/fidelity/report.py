"""The tables and notes of the fidelity report, and its lines on items."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from at2_rag.report.verdict import Verdict
from at2_rag_evals.fidelity.judging import METRIC_TITLES, JudgedSet
from at2_rag_evals.fidelity.summary import FidelitySummary
from at2_rag_evals.fidelity.systems.base import FidelitySystem
from at2_rag_evals.report import INTERVAL_NOTE, grid, items_table
from at2_rag_evals.summary import MACRO, OURS
from at2_rag_evals.tables import Table
from at2_rag_evals.verdict import ranking_verdict

NOTES = (
    INTERVAL_NOTE,
    "The truth is how the same model reads the answer after chunks (with --unit sentence, their "
    "sentences) are removed from the prompt. LDS is the correlation of summed scores with the "
    "answer's logit-probability over held masks; constant scores count as 0, and items whose truth "
    "is constant are left out of it.",
    "A sum of scores depends on where their zero is: scores that are all positive predict the "
    "number of sources kept, even if random. Centred scores have each item's mean subtracted.",
    "LDS of tempered shares takes the softmax of each system's scores (of their logarithm, for "
    "attention baselines) at the temperature that is best on these very items: an upper bound, so "
    "that no system loses for the form of its scores. Additive scores (gold, at2_answer, "
    "leave_one_out and the regressions) stay as they are.",
    "With few sources some held masks leave out one source, which leave_one_out has read.",
    "An insertion with k sources is over items with more than k.",
    "gold sees the labels; answer_heads_mean, at2_answer, leave_one_out, regression_32 and "
    "masked_regression read the answer, which the others don't.",
    "Seconds are for one item on one thread of this machine, with the answer made and models "
    "loaded; removals are the same in average readings of held masks. Masks of an item are read "
    "together and share the beginnings of their prompts: one prompt read alone costs more. Texts "
    "read for an earlier item may have cost nothing: no speed benchmark.",
)


METRIC = "lds_pearson"
RIVALS = ("bm25", "minilm", "bm25_minilm", "best_head", "heads_8", "heads_16")
"""What somebody could have in place of at2: scores made without the answer or labels."""


def verdict(summary: FidelitySummary) -> Verdict:
    """Return what the figures say of at2 and its alternatives."""
    return ranking_verdict(
        f"Do scores of {OURS} predict what removing sources does better than its alternatives?",
        "a linear datamodeling score (Pearson) of",
        summary.by_source[METRIC].get(MACRO, {}),
        summary.differences.get(OURS, {}).get(METRIC, {}).get(MACRO, {}),
        rivals=RIVALS,
    )


def shares_note(systems: Iterable[FidelitySystem]) -> str:
    """Return a sentence on which systems' shares are a softmax."""
    names = ", ".join(system.name for system in systems if system.shares_are_softmax)
    return (
        "LDS of shares takes scores on a logit's scale as their softmax over an item's sources "
        f"({names or 'no system here'}) and the scores of all other systems as they are."
    )


def fidelity_tables(summary: FidelitySummary) -> Iterator[Table]:
    """Yield the tables of a run."""
    systems = list(summary.seconds)
    for metric, title in METRIC_TITLES.items():
        if summary.by_source[metric]:
            yield grid(title, summary.by_source[metric], systems)
    for compared, figures in summary.differences.items():
        others = [system for system in systems if system != compared]
        for metric, groups in figures.items():
            if groups and others:
                title = f"{METRIC_TITLES[metric]}: {compared} minus each other system"
                yield grid(title, groups, others, difference=True)
    yield _costs_table(summary)
    yield items_table("fidelity", summary.items, summary.left_out)


def item_records(judged: JudgedSet) -> Iterator[dict[str, Any]]:
    """Yield for each item every system's metrics and cost."""
    for result in judged.items:
        example = result.item.example
        yield {
            "source": example.source,
            "id": example.id,
            "chunks": len(example.chunks),
            "sources": len(result.item.sources),
            "gold": sum(result.item.labels),
            "answer_tokens": result.tokens,
            "mean_log_probability": result.full,
            "seconds_a_removal": result.removal_seconds,
            "systems": {
                system: {**metrics, "seconds": result.scored[system].seconds}
                for system, metrics in result.metrics.items()
            },
        }


def _costs_table(summary: FidelitySummary) -> Table:
    header = ["system", "seconds, mean", "median", "removals", "truncated texts"]
    rows = [
        [
            system,
            f"{cost.mean:.4f}",
            f"{cost.median:.4f}",
            f"{cost.removals:.2f}",
            f"{cost.truncated:,}",
        ]
        for system, cost in summary.seconds.items()
    ]
    return Table("Cost an item", header, rows)
