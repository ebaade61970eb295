"""What `at2-rag eval keeping` does: read, prune without any option, look for the gold, report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from at2_rag.data.clusters import item_clusters
from at2_rag.data.examples import Example, read_examples
from at2_rag.progress import StepProgress
from at2_rag.pruner import AT2Pruner
from at2_rag.report.verdict import Verdict
from at2_rag_evals.items import RANKABLE, none_usable, rankable_items
from at2_rag_evals.keeping.attacks import attacked, victims
from at2_rag_evals.keeping.request import KeepingRequest
from at2_rag_evals.model_record import model_record
from at2_rag_evals.names import shown
from at2_rag_evals.rankers.at2 import head_weights_record, load_pruner, shared_cache
from at2_rag_evals.rankers.base import Ranker
from at2_rag_evals.rankers.registry import RankerOptions, make_ranker
from at2_rag_evals.report import (
    INTERVAL_NOTE,
    Report,
    estimate_cell,
    items_table,
    publish,
    run_record,
)
from at2_rag_evals.summary import MACRO, OURS, Strata, as_matrix, with_macro
from at2_rag_evals.tables import Cell, Table
from at2_rag_evals.verdict import SHARE_RULE, percent, points, widened

NO_ATTACK = "none"
NOTES = (
    INTERVAL_NOTE,
    "at2 prunes without any option; a baseline keeps as many of its best chunks as at2 did.",
)


@dataclass(frozen=True, slots=True)
class Kept:
    """What a system keeps of an item.

    Attributes:
        all_gold: Whether every gold chunk is kept.
        gold_first: Whether the best chunk is gold.
        tokens: Share of the tokens that are kept; None for a baseline.
        answerable: The probability that a chunk holds the answer; None for a baseline.
    """

    all_gold: bool
    gold_first: bool
    tokens: float | None = None
    answerable: float | None = None


def run_keeping(request: KeepingRequest, *, as_json: bool) -> None:
    """Run the keeping eval, print its report and write it to the output folder, if any."""
    publish(keeping_report(request), folder=request.output, as_json=as_json)


def keeping_report(request: KeepingRequest) -> Report:
    """Run the keeping eval."""
    examples = read_examples(request.files)
    items = rankable_items(examples, limit=request.limit)
    if not items.items:
        raise none_usable(len(examples), items.left_out, RANKABLE)
    rankers = [make_ranker(name, RankerOptions.of(request)) for name in request.judged]
    for ranker in rankers:
        ranker.prepare()
    sets = list(_sets(items.items, request.attacks))
    with StepProgress() as progress:
        progress("loading the model", 0, 1)
        pruner = load_pruner(request.model, request.head_weights, chunk_cache=shared_cache())
        progress("loading the model", 1, 1)
        kept = judge_keeping(
            pruner, rankers, sets, lambda done, total: progress("pruning", done, total)
        )
    strata = {name: Strata(item_clusters(items.items), name, request.seed) for name, _ in sets}
    tables = [
        _table(name, system, strata[name], items.items, results)
        for (name, system), results in kept.items()
    ]
    counts = Counter(item.source for item in items.items)
    tables.append(items_table(items.name, counts, items.left_out))
    settings = {**model_record(request.model), **head_weights_record(request.head_weights)}
    settings |= {"attacks": list(request.attacks), "systems": list(request.judged)}
    return Report(
        record=run_record("keeping", request, settings) | {"left_out": items.left_out},
        sections={"": tables},
        notes=NOTES,
        item_records=[
            {"source": item.source, "id": item.id, "attack": attack, "system": system}
            | asdict(result)
            for (attack, system), results in kept.items()
            for item, result in zip(items.items, results, strict=True)
        ],
        verdicts=[verdict(strata, items.items, kept)],
    )


def _sets(
    items: Sequence[Example], attacks: Sequence[str]
) -> Iterator[tuple[str, Sequence[Example]]]:
    yield NO_ATTACK, items
    known = victims(list(items))
    for attack in dict.fromkeys(attacks):
        yield attack, [attacked(*pair, attack) for pair in zip(items, known, strict=True)]


def judge_keeping(
    pruner: AT2Pruner,
    rankers: Sequence[Ranker],
    sets: Sequence[tuple[str, Sequence[Example]]],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[tuple[str, str], list[Kept]]:
    """Return what is kept of each item, by the set's name and the system's.

    The sets have the same items in the same order; `progress` is called with the prunings done and
    in all.
    """
    names = [OURS, *(ranker.name for ranker in rankers)]
    kept: dict[tuple[str, str], list[Kept]] = {
        (name, system): [] for name, _ in sets for system in names
    }
    total, done = sum(len(items) for _, items in sets), 0
    progress(0, total)
    for versions in zip(*(items for _, items in sets), strict=True):
        for (name, _), item in zip(sets, versions, strict=True):
            result = pruner.prune(item.query, item.chunks)
            scores = {each.index: each.score for each in (*result.kept, *result.dropped)}
            best = max(scores, key=scores.__getitem__)
            kept[name, OURS].append(
                Kept(
                    all_gold={each.index for each in result.kept} >= _gold(item),
                    gold_first=item.labels[best],
                    tokens=result.tokens_after / max(1, result.tokens_before),
                    answerable=result.answerable,
                )
            )
            for ranker in rankers:
                ranking = np.argsort(
                    -np.array(ranker.score(item.query, item.chunks).scores), kind="stable"
                ).tolist()
                kept[name, ranker.name].append(
                    Kept(
                        all_gold=set(ranking[: len(result.kept)]) >= _gold(item),
                        gold_first=item.labels[ranking[0]],
                    )
                )
            done += 1
            progress(done, total)
    return kept


def _gold(item: Example) -> set[int]:
    return {index for index, is_gold in enumerate(item.labels) if is_gold}


def verdict(
    strata: Mapping[str, Strata],
    items: Sequence[Example],
    kept: Mapping[tuple[str, str], Sequence[Kept]],
) -> Verdict:
    """Return how often all gold is kept, as it is, under the worst attack and by baselines."""
    systems = list(dict.fromkeys(system for _, system in kept))
    macros = {}
    for name, of_set in strata.items():
        columns = [[float(each.all_gold) for each in kept[name, system]] for system in systems]
        columns.append([each.tokens or 0.0 for each in kept[name, OURS]])
        values = as_matrix(zip(*columns, strict=True))
        sources = [item.source for item in items]
        macros[name] = with_macro(of_set.sample(values, sources, metric="verdict"))[MACRO]
    plain = macros[NO_ATTACK]
    share = widened(plain.estimate(0))
    interval = ""
    if share.interval is not None:
        low, high = (min(1.0, max(0.0, end)) for end in share.interval)
        interval = f" (95 % interval {100 * low:.1f} to {percent(high)})"
    reasons = [f"all of them are kept{interval}, with {percent(plain.means[-1])} of the tokens."]
    for column, system in enumerate(systems[1:], start=1):
        difference = widened(plain.estimate(0, minus=column))
        reasons.append(
            f"With as many chunks, {shown(system)} keeps all of them in "
            f"{percent(plain.means[column])} (at2 minus it: {points(difference)})."
        )
    attacks = {name: macro.means[0] for name, macro in macros.items() if name != NO_ATTACK}
    if attacks:
        worst = min(attacks, key=attacks.__getitem__)
        reasons.append(
            f"Under the worst attack, {worst}, at2 keeps all of them in {percent(attacks[worst])}."
        )
    return Verdict(
        "Does pruning without any option keep the gold chunks?",
        f"In {percent(share.mean)} of {share.n:,} questions",
        tuple(reasons),
        SHARE_RULE,
    )


def _table(
    attack: str, system: str, strata: Strata, items: Sequence[Example], results: Sequence[Kept]
) -> Table:
    figures: Mapping[str, list[float | None]] = {
        "all gold kept": [result.all_gold for result in results],
        "gold first": [result.gold_first for result in results],
        "tokens kept": [result.tokens for result in results],
        "answerable": [result.answerable for result in results],
    }
    known = {name: column for name, column in figures.items() if None not in column}
    sources = [item.source for item in items]
    samples = with_macro(
        strata.sample(as_matrix(zip(*known.values(), strict=True)), sources, metric=system)
    )
    rows: list[list[Cell | str]] = []
    for source, sample in samples.items():
        estimates = [sample.estimate(column) for column in range(len(known))]
        size = f"{sample.n}/{sample.clusters}"
        rows.append([source, size, *map(estimate_cell, estimates)])
    title = system if attack == NO_ATTACK else f"{system}, attack: {attack}"
    return Table(title, ["items", "n/clusters", *known], rows)
