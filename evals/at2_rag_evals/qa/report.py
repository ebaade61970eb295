"""The QA report as Markdown, and every answer as a line of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from at2_rag.data.examples import Example
from at2_rag.report.verdict import Verdict
from at2_rag_evals.items import content_hash
from at2_rag_evals.qa.generators.base import Answer, Failure
from at2_rag_evals.qa.items import kind_of
from at2_rag_evals.qa.run import CellResult
from at2_rag_evals.qa.tables import Section
from at2_rag_evals.report import INTERVAL_NOTE, provenance_lines, verdict_lines
from at2_rag_evals.tables import Table, to_markdown
from at2_rag_evals.verdict import GUARD_NOTE

NOTES = (
    "Accuracy: a reference answer's normalised tokens are a run of the prediction's; a yes or no "
    "is its first word. Long-form items are judged by token F1 and unanswerable ones by "
    "abstention, each apart.",
    INTERVAL_NOTE,
    GUARD_NOTE,
    "At equal tokens another pruner gets, in each source, the mean context tokens of the setting "
    "it is compared with: from its setting within 2 % of them, or from a mixture of its two "
    "settings next to them, no chunk and every chunk included, whose expected accuracy is taken "
    "(which settings, and in what shares, is in summary.json). More budgets near it would do "
    "better by a pruner whose accuracy rises ever less with tokens.",
    "Peak MB is the most main memory that the process took above what it held before a pruner's "
    "settings were pruned, or one answered; a model counts where first needed. What was stored "
    "before takes none.",
    "Prompt tokens are of the whole prompt, context tokens of the kept chunks, both "
    "counted by the generator's tokenizer. All seconds are wall clock of the run that made the "
    "answer, models loaded; an answer's share of its batch.",
    "Distractors mined with BM25 are adversarial to BM25; constructed distractors are easier than "
    "those a web-scale retriever brings.",
)


def qa_markdown(
    report: Mapping[str, Any],
    sections: Sequence[Section],
    items: Sequence[Table],
    verdicts: Sequence[Verdict],
) -> str:
    """Write the report, as `summary.json` holds it, with its sections and tables of items."""
    lines = ["# QA eval", "", *verdict_lines(verdicts)]
    for section in [*sections, Section("Items", (), tuple(items))]:
        lines += [f"## {section.title}", ""]
        for remark in section.remarks:
            lines += [remark, ""]
        for table in section.tables:
            lines += [to_markdown(table), ""]
    lines += ["## Notes", "", *(f"- {note}" for note in report["notes"]), ""]
    lines += provenance_lines(report, more=f", on {machine_class(report)}")
    return "\n".join(lines) + "\n"


def machine_class(report: Mapping[str, Any]) -> str:
    """Return what the run's generators ran on: "Linux x86_64, 2 cores, float32 on cpu"."""
    machine = report["run"]["machine"]
    types = {
        f"{generator['dtype']} on {generator['device']}"
        for generator in report["settings"]["generators"].values()
        if "dtype" in generator
    }
    kind = f"{machine['system']} {machine['processor']}, {machine['cores']} cores"
    return ", ".join([kind, *sorted(types)])


def item_lines(
    items: Sequence[Example],
    results: Sequence[CellResult],
    clusters: Sequence[int],
    *,
    gold_position: str | None = None,
) -> Iterator[str]:
    """Yield one line of JSON for each cell and item."""
    for result in results:
        for item, judged, cluster in zip(items, result.judged, clusters, strict=True):
            answer = judged.result
            record = {
                "generator": result.generator,
                **asdict(result.cell),
                "gold_position": gold_position,
                "source": item.source,
                "id": item.id,
                "content": content_hash(item.query, item.chunks),
                "cluster": cluster,
                "kind": kind_of(item),
                "chunks": len(item.chunks),
                "gold": [index for index, label in enumerate(item.labels) if label],
                "kept": list(judged.pruned.kept),
                "texts": judged.pruned.texts,
                "context_tokens": judged.context_tokens,
                "prune_seconds": judged.pruned.seconds,
                "answer": asdict(answer) if isinstance(answer, Answer) else None,
                "error": answer.reason if isinstance(answer, Failure) else None,
                "metrics": dict(judged.metrics),
            }
            yield json.dumps(record) + "\n"
