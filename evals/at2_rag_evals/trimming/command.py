"""What `at2-rag eval trimming` does: read, prune, look for answers, report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from at2_rag.data.bootstrap import Estimate
from at2_rag.data.clusters import item_clusters
from at2_rag.data.examples import Example, read_examples
from at2_rag.progress import StepProgress
from at2_rag.report.verdict import Verdict
from at2_rag_evals.items import none_usable
from at2_rag_evals.model_record import model_record
from at2_rag_evals.rankers.at2 import head_weights_record, load_pruner, shared_cache
from at2_rag_evals.report import (
    INTERVAL_NOTE,
    Report,
    difference_cell,
    estimate_cell,
    items_table,
    publish,
    run_record,
)
from at2_rag_evals.summary import MACRO, Strata, as_matrix, with_macro
from at2_rag_evals.tables import Cell, Table
from at2_rag_evals.trimming.judging import Trimmed, judge_trimming, trimmable_items
from at2_rag_evals.trimming.request import Cut, TrimmingRequest
from at2_rag_evals.verdict import MARGIN, SHARE_RULE, doubt, effect, fewer, percent, points, widened

NOTES = (
    INTERVAL_NOTE,
    "A text holds an answer if the answer's normalised words follow each other in it.",
)


@dataclass(frozen=True, slots=True)
class TrimmingFigures:
    """How both ways of pruning did, by source and "macro"; see `Trimmed`.

    `difference` is sentences minus chunks, `changed` the number of items in which something kept
    isn't verbatim text of the chunks.
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
    """Run the trimming eval, print its report and write it to the output folder, if any."""
    examples = read_examples(request.files, labelled=False)
    items = trimmable_items(examples, limit=request.limit)
    if not items.items:
        raise none_usable(
            len(examples), items.left_out, "an item needs an answer that a chunk contains"
        )
    with StepProgress() as progress:
        progress("loading the model", 0, 1)
        pruner = load_pruner(request.model, request.head_weights, chunk_cache=shared_cache())
        progress("loading the model", 1, 1)
        trimmed = judge_trimming(
            pruner,
            items.items,
            top_k=tuple(dict.fromkeys(request.top_k)),
            cuts=request.cuts,
            multi_hop=request.multi_hop == "both",
            progress=lambda done, total: progress("pruning", done, total),
        )
    figures = [
        _figures(items.items, top_k, cut, results, seed=request.seed)
        for (top_k, cut), results in trimmed.items()
    ]
    settings = {
        "top_k": list(request.top_k),
        "cuts": [asdict(cut) for cut in request.cuts],
        "multi_hop": request.multi_hop,
        **model_record(request.model),
        **head_weights_record(request.head_weights),
    }
    counts = Counter(item.source for item in items.items)
    tables = [*map(_table, figures), items_table(items.name, counts, items.left_out)]
    report = Report(
        record=run_record("trimming", request, settings)
        | {"left_out": items.left_out, "figures": list(map(asdict, figures))},
        sections={"": tables},
        notes=NOTES,
        item_records=[
            {"source": item.source, "id": item.id, "top_k": top_k, "cut": cut.label}
            | asdict(result)
            for (top_k, cut), results in trimmed.items()
            for item, result in zip(items.items, results, strict=True)
        ],
        verdicts=[verdict(figures)],
    )
    publish(report, folder=request.output, as_json=as_json)


def verdict(figures: Sequence[TrimmingFigures]) -> Verdict:
    """Return what the figures, one or more, say of sentences against whole chunks."""
    differences = {id(each): widened(each.difference[MACRO]) for each in figures}
    effects = {key: effect(each, margin=MARGIN) for key, each in differences.items()}
    saving = [each for each in figures if each.sentence_tokens[MACRO] < each.chunk_tokens[MACRO]]
    kept = [each for each in saving if effects[id(each)] in ("better", "unharmed")]
    unclear = [each for each in saving if effects[id(each)] == "unclear"]
    answer = "Yes" if kept else "Can't tell" if unclear else "No"

    def share(each: TrimmingFigures) -> float:
        return each.sentence_tokens[MACRO] / max(1.0, each.chunk_tokens[MACRO])

    best = min(kept, key=share) if kept else None
    best = best or max(unclear or figures, key=lambda each: each.difference[MACRO].mean)
    difference = differences[id(best)]
    whole = "the best chunk holds" if best.top_k == 1 else f"the best {best.top_k} chunks hold"
    reasons = [
        f"sentences ({best.cut}) hold the answer to {percent(best.in_sentences[MACRO].mean)} of "
        f"the questions, {whole} it for {percent(best.in_chunks[MACRO].mean)} "
        f"({points(difference)}); the sentences have "
        f"{fewer(best.sentence_tokens[MACRO], best.chunk_tokens[MACRO])} tokens."
    ]
    if answer == "Can't tell":
        answer += f" from {difference.n:,} questions"
        reasons.append(doubt(difference))
    if changed := max(each.changed for each in figures):
        reasons.append(f"In {changed} items, kept text isn't verbatim text of the chunks.")
    rule = (
        "Yes, if the 95 % interval of the paired difference excludes a loss of more than 2 points "
        "for a setting that saves tokens; of several, the one that saves the largest share counts. "
        f"{SHARE_RULE}"
    )
    return Verdict("Do sentences keep the answers in fewer tokens?", answer, tuple(reasons), rule)


def _figures(
    items: Sequence[Example], top_k: int, cut: Cut, trimmed: Sequence[Trimmed], *, seed: int
) -> TrimmingFigures:
    values = as_matrix(
        (each.in_chunks, each.in_sentences, each.chunk_tokens, each.sentence_tokens)
        for each in trimmed
    )
    strata = Strata(item_clusters(items), f"top {top_k}", seed)
    sources = [item.source for item in items]
    samples = with_macro(strata.sample(values, sources, metric="containment"))
    return TrimmingFigures(
        top_k=top_k,
        cut=cut.label,
        in_chunks={name: sample.estimate(0) for name, sample in samples.items()},
        in_sentences={name: sample.estimate(1) for name, sample in samples.items()},
        difference={name: sample.estimate(1, minus=0) for name, sample in samples.items()},
        chunk_tokens={name: float(sample.means[2]) for name, sample in samples.items()},
        sentence_tokens={name: float(sample.means[3]) for name, sample in samples.items()},
        changed=sum(not each.verbatim for each in trimmed),
    )


def _table(figures: TrimmingFigures) -> Table:
    header = ["items", "n/clusters", "chunks hold it", "tokens"]
    header += ["sentences hold it", "tokens", "difference"]
    rows: list[list[Cell | str]] = [
        [
            name,
            f"{estimate.n}/{estimate.clusters}",
            estimate_cell(estimate),
            f"{figures.chunk_tokens[name]:,.0f}",
            estimate_cell(figures.in_sentences[name]),
            f"{figures.sentence_tokens[name]:,.0f}",
            difference_cell(figures.difference[name]),
        ]
        for name, estimate in figures.in_chunks.items()
    ]
    best = "best chunk" if figures.top_k == 1 else f"best {figures.top_k} chunks"
    changed = "all kept text verbatim" if not figures.changed else f"{figures.changed} changed"
    title = f"Answer kept: {best}, or sentences ({figures.cut}); {changed}"
    return Table(title, header, rows)
