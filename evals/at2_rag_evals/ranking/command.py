"""What `at2-rag eval ranking` does: read, rank, rate, report."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from itertools import chain
from typing import TypeAlias

from at2_rag.data.clusters import clusters_by_id
from at2_rag.data.examples import read_examples
from at2_rag.errors import DataError
from at2_rag.progress import StepProgress
from at2_rag_evals.extras import import_extra
from at2_rag_evals.items import RANKABLE, ItemSet, none_usable, rankable_items
from at2_rag_evals.padding import DistractorPool, padded_set
from at2_rag_evals.rankers import Ranker, RankerOptions, make_ranker
from at2_rag_evals.ranking.rating import rate_systems
from at2_rag_evals.ranking.report import NOTES, item_records, summary_tables, verdict
from at2_rag_evals.ranking.request import RankingRequest
from at2_rag_evals.ranking.summary import summarise
from at2_rag_evals.report import Report, publish, run_record

MakeRanker: TypeAlias = Callable[[str, RankerOptions], Ranker]


def run_ranking(request: RankingRequest, *, as_json: bool, make: MakeRanker = make_ranker) -> None:
    """Run the ranking eval, print its report and write it to the output folder, if any."""
    publish(ranking_report(request, make=make), folder=request.output, as_json=as_json)


def ranking_report(request: RankingRequest, *, make: MakeRanker = make_ranker) -> Report:
    """Run the ranking eval; scores are stored in the output folder, if there is one.

    `make` makes a ranker of a name and options, perhaps one that scores elsewhere.
    """
    import_extra("ir_measures")
    sets = _item_sets(request)
    rankers = [make(name, RankerOptions.of(request)) for name in request.judged]
    with StepProgress() as progress:
        rated_sets = rate_systems(sets, rankers, path=request.store, progress=progress)
    clusters = clusters_by_id(sets[0].items)
    summaries = [summarise(rated, clusters, seed=request.seed) for rated in rated_sets]
    embeddings = [each.name for each in request.embeddings]
    settings = {
        "pad_to": sorted(set(request.pad_to)),
        "systems": {ranker.name: dict(ranker.settings) for ranker in rankers},
    }
    return Report(
        record=run_record("ranking", request, settings) | {"sets": list(map(asdict, summaries))},
        sections={summary.name: list(summary_tables(summary)) for summary in summaries},
        notes=NOTES,
        item_records=list(chain.from_iterable(map(item_records, rated_sets))),
        verdicts=[verdict(summary, embeddings=embeddings) for summary in summaries],
    )


def _item_sets(request: RankingRequest) -> list[ItemSet]:
    examples = read_examples(request.files)
    natural = rankable_items(examples, limit=request.limit)
    if not natural.items:
        raise none_usable(len(examples), natural.left_out, RANKABLE)
    sets = [natural]
    pool = DistractorPool(examples)
    for size in sorted(set(request.pad_to)):
        padded = padded_set(natural, pool, size, seed=request.seed)
        if not padded.items:
            raise DataError(
                f"no item can be padded to {size} chunks (left out: "
                f"{json.dumps(padded.left_out)}); pass a smaller --pad-to or more items"
            )
        sets.append(padded)
    return sets
