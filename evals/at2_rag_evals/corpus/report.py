"""What the corpus report says of retrieval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import get_args

from at2_rag.data.clusters import item_clusters
from at2_rag.report.verdict import Verdict
from at2_rag_evals.corpus.gold import SAME_WORDS
from at2_rag_evals.corpus.items import CorpusItem, Outcome
from at2_rag_evals.names import shown
from at2_rag_evals.report import INTERVAL_NOTE, grid
from at2_rag_evals.summary import Strata, as_matrix, estimates, with_macro
from at2_rag_evals.tables import Table

NOTES = (
    INTERVAL_NOTE,
    "A chunk is gold if it holds a quote of its question, has an id that the question names, or, "
    "where the question has neither, holds an answer.",
    f"Near-identical chunks share {100 * SAME_WORDS:.0f} % of their words and have the same "
    "numbers. Those of gold chunks are gold, and only the one that was retrieved first is judged.",
    "Questions without a gold chunk among those retrieved are left out of everything but "
    "retrieval: no pruner can keep what isn't there. They are in not_retrieved.jsonl. Unanswerable "
    "questions are judged by QA alone.",
)


def retrieval_verdict(items: Sequence[CorpusItem], count: int) -> Verdict:
    """Return how many questions have a gold chunk among the best `count` of the retrievers."""
    outcomes = Counter(item.outcome for item in items)
    answerable = [item for item in items if item.recall]
    retrievers = list(items[0].retrieved.by_retriever) if items else []
    each = " and ".join(
        f"{shown(name)} for {sum(item.recall[name] > 0 for item in answerable)}"
        for name in retrievers
    )
    reasons = [f"with its best {count} chunks {each}."]
    if missed := outcomes["not retrieved"]:
        reasons.append(
            "Left out of all other figures, since no pruner can keep what isn't retrieved: "
            f"{missed} (not_retrieved.jsonl)."
        )
    if absent := outcomes["not in the documents"]:
        reasons.append(f"Of {absent} more the documents hold no quote, id or answer.")
    if untold := outcomes["nothing tells its gold"]:
        reasons.append(f"Without a quote, id or answer that could be looked for: {untold}.")
    if partly := sum(bool(item.gold.missing) for item in answerable):
        reasons.append(f"With a quote or id, beside others, that isn't there: {partly}.")
    return Verdict(
        "Do the retrievers find the gold chunks?",
        f"For {outcomes['retrieved']} of {len(answerable)} questions",
        tuple(reasons),
    )


def retrieval_tables(items: Sequence[CorpusItem], *, seed: int) -> Iterator[Table]:
    """Yield what became of the questions, and the gold that each retriever brings."""
    names = get_args(Outcome)
    by_source: dict[str, Counter[str]] = {}
    for item in items:
        by_source.setdefault(item.example.source, Counter())[item.outcome] += 1
    rows = [
        [source, str(outcomes.total()), *(str(outcomes[name]) for name in names)]
        for source, outcomes in by_source.items()
    ]
    yield Table("Questions", ["source", "questions", *names], rows)
    judged = [item for item in items if item.recall]
    clusters = item_clusters([item.example for item in judged])
    sources = [item.example.source for item in judged]
    systems = list(judged[0].recall)
    recall = as_matrix([item.recall[name] for name in systems] for item in judged)
    for title, values in (
        ("Questions with some gold retrieved", recall > 0),
        ("Questions with all gold retrieved", recall == 1),
    ):
        samples = Strata(clusters, "retrieval", seed).sample(
            values.astype(float), sources, metric=title
        )
        yield grid(title, estimates(with_macro(samples), systems), systems)
