"""What `max_missed` keeps at several limits, on questions with labelled chunks.

python benchmarks/keeping_rules.py FILES... --limit 20 --scores scores.jsonl

Each question is read once, and once more beside its best chunk. Probabilities, tokens and labels go
into the file of scores, from which a killed run continues; limits are judged on that file.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from report import markdown_table

from at2_rag.arrays import missed_shares
from at2_rag.data.examples import Example, read_examples
from at2_rag.options import UNSURE_BELOW, PruneOptions
from at2_rag.pruner import AT2Pruner
from at2_rag.readout.multi_hop import LIKELY
from at2_rag.results import PruneResult
from at2_rag.selection.select import select
from at2_rag_evals.items import rankable_items

LIMITS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
FLOORS = (None, 3, 5)
TARGET = 0.87  # share of the other sources' questions whose gold is all kept


@click.command("keeping_rules", context_settings={"show_default": True})
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--limit", type=click.IntRange(min=1), default=20, help="Questions of each source.")
@click.option("--scores", type=click.Path(path_type=Path), required=True, help="File of scores.")
def main(*, files: tuple[str, ...], limit: int, scores: Path) -> None:
    """Judge limits on what is missed by the gold chunks and the tokens that they keep."""
    items = rankable_items(read_examples(files), limit=limit).items
    known = _read(scores)
    pruner = AT2Pruner.from_pretrained()
    with scores.open("a", encoding="utf-8") as file:
        for item in items:
            if (item.source, item.id) not in known:
                record = known[item.source, item.id] = score(pruner, item)
                file.write(json.dumps(record) + "\n")
                file.flush()
    records = [known[item.source, item.id] for item in items]
    click.echo(markdown_table("Limits", list(judged(records))))
    click.echo(markdown_table("Chosen without the source", list(left_out(records))))


def score(pruner: AT2Pruner, item: Example) -> dict[str, Any]:
    """Return an item's probabilities at both readings, its chunks' tokens and labels."""
    every = {"top_k": len(item.chunks), "max_overlap": None}
    first, second = (
        _likely(pruner.prune(item.query, item.chunks, **every, multi_hop=hop))  # type: ignore[arg-type]
        for hop in (False, True)
    )
    unscored = {"top_k": 1, "skip_below_tokens": 10**9}
    tokens = [pruner.prune("?", [chunk], **unscored).tokens_before for chunk in item.chunks]  # type: ignore[arg-type]
    return {
        "source": item.source,
        "id": item.id,
        "gold": item.labels,
        "tokens": tokens,
        "first": first,
        "second": second,
    }


def _likely(result: PruneResult) -> list[float | None]:
    return [each.probability for each in sorted(result.kept, key=lambda each: each.index)]


def judged(records: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, float | str]]:
    """Yield the figures of each limit and floor: means over sources, and the worst source."""
    for limit in LIMITS:
        for floor in FLOORS:
            by_source = defaultdict(list)
            for record in records:
                by_source[record["source"]].append(_kept(record, limit, floor))
            means = np.array([np.mean(rows, axis=0) for rows in by_source.values()])
            yield {
                "max_missed": f"{limit:g}",
                "keep_if_unsure": str(floor),
                "all gold kept": float(means[:, 0].mean()),
                "least of a source": float(means[:, 0].min()),
                "tokens kept": float(means[:, 1].mean()),
                "most of a source": float(means[:, 1].max()),
            }


def left_out(records: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, float | str]]:
    """Yield for each source the largest limit that serves the others, and what it keeps there."""
    kept: dict[str, dict[float, Any]] = defaultdict(dict)
    for source in dict.fromkeys(record["source"] for record in records):
        for limit in LIMITS:
            rows = [_kept(record, limit, 3) for record in records if record["source"] == source]
            kept[source][limit] = np.mean(rows, axis=0)
    for source, figures in kept.items():
        others = [kept[other] for other in kept if other != source] or [figures]
        serve = [limit for limit in LIMITS if np.mean([one[limit][0] for one in others]) >= TARGET]
        limit = max(serve, default=LIMITS[0])
        all_gold, tokens = map(float, figures[limit])
        yield {
            "source": source,
            "max_missed": f"{limit:g}",
            "all gold kept": all_gold,
            "tokens kept": tokens,
        }


def _kept(record: Mapping[str, Any], limit: float, floor: int | None) -> tuple[float, float]:
    """Return whether all gold is kept, and the share of the tokens that is."""
    likely, tokens = np.array(record["first"]), np.array(record["tokens"])
    ranked = np.sort(likely)[::-1]
    if ranked[0] >= max(LIKELY, UNSURE_BELOW) and missed_shares(ranked)[1] > limit:
        likely = np.array(record["second"])
    options = PruneOptions(max_missed=limit, keep_if_unsure=floor)
    kept = list(select(likely, options, probabilities=likely).kept)
    all_gold = set(np.flatnonzero(record["gold"])) <= set(kept)
    return float(all_gold), float(tokens[kept].sum() / tokens.sum())


def _read(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    records = map(json.loads, lines)
    return {(record["source"], record["id"]): record for record in records}


if __name__ == "__main__":
    main()
