"""What `max_missed` keeps at several limits, on questions with labelled chunks.

python benchmarks/keeping_rules.py FILES... --limit 20 --scores scores.jsonl

Questions are drawn at random. With --weights-from and the files that the default weights were
fitted on, none is among those that they were fitted or calibrated on, or shares a gold passage with
one.
Each question is read once, and once more beside its best chunk. Probabilities, tokens and labels go
into the file of scores, from which a killed run continues; limits are judged on that file.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from report import Row, markdown_table
from scipy.stats import binomtest

from at2_rag.arrays import Floats, missed_shares
from at2_rag.data.examples import Example, draw_per_source, passage_keys, read_examples
from at2_rag.options import DEFAULT_MAX_MISSED, DEFAULT_TOP_K, UNSURE_BELOW, PruneOptions
from at2_rag.pruner import AT2Pruner
from at2_rag.readout.multi_hop import LIKELY
from at2_rag.results import PruneResult
from at2_rag.selection.select import select
from at2_rag.training.calibrating.examples import choose_examples
from at2_rag_evals.items import rankable_items

Ints = npt.NDArray[np.intp]
SEED = 0
FITTED, CALIBRATED = 170, 100  # questions of a source, drawn for head weights and calibration
LIMITS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
FLOORS = (None, 3, 5)
MOST_MISSED = 0.8  # relevant chunks, of a limit on their number
RESAMPLES = 2000
TARGET = 0.87  # share of the other sources' questions whose gold is all kept


@click.command("keeping_rules", context_settings={"show_default": True})
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--limit", type=click.IntRange(min=1), default=20, help="Questions of each source.")
@click.option(
    "--weights-from",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False),
    help="A file that the default weights were fitted on, all of them in the order of the model "
    "card; what was drawn from them is left out.",
)
@click.option("--scores", type=click.Path(path_type=Path), required=True, help="File of scores.")
def main(
    *, files: tuple[str, ...], limit: int, weights_from: tuple[str, ...], scores: Path
) -> None:
    """Judge limits on what is missed by the gold chunks and the tokens that they keep."""
    examples = without_fitted(read_examples(files), read_examples(weights_from))
    if not examples:
        raise click.UsageError("The weights were fitted on all questions of FILES; pass others.")
    items = drawn(rankable_items(examples).items, limit)
    known = _read(scores)
    states: dict[str, Any] = {}
    pruner = AT2Pruner.from_pretrained(chunk_cache=states)
    with scores.open("a", encoding="utf-8") as file:
        for item in items:
            if (item.source, item.id) not in known:
                record = known[item.source, item.id] = score(pruner, item)
                states.clear()
                file.write(json.dumps(record) + "\n")
                file.flush()
    records = [known[item.source, item.id] for item in items]
    click.echo(markdown_table("Sources", list(by_source(records))))
    click.echo(markdown_table("Limits", list(judged(records))))
    click.echo(markdown_table("Chosen without the source", list(left_out(records))))


def drawn(items: Sequence[Example], limit: int) -> list[Example]:
    """Return at most `limit` items of each source; more of them with a larger limit."""
    by_source = defaultdict(list)
    for item in items:
        by_source[item.source].append(item)
    return [one for some in by_source.values() for one in draw_per_source(some, limit, seed=SEED)]


def without_fitted(examples: Sequence[Example], trained_on: Sequence[Example]) -> list[Example]:
    """Return the examples of which neither question nor gold is in what weights were fitted on.

    The draws of the model card are made again: of all examples for the head weights, and of those
    that share no gold passage with them for the calibration.
    """
    fitted = draw_per_source(trained_on, FITTED, seed=SEED) if trained_on else []
    rest = _sharing_nothing(trained_on, fitted, questions=False)
    calibrated = choose_examples(rest, limit=CALIBRATED, seed=SEED).chosen if rest else ()
    return _sharing_nothing(examples, [*fitted, *calibrated], questions=True)


def _sharing_nothing(
    examples: Sequence[Example], others: Sequence[Example], *, questions: bool
) -> list[Example]:
    """Return the examples that share neither id nor gold passage with others, nor the question."""
    ids = {(other.source, other.id) for other in others}
    passages = {key for other in others for key in passage_keys(other.gold)}
    asked = {other.query for other in others} if questions else set()
    return [
        example
        for example in examples
        if (example.source, example.id) not in ids
        and example.query not in asked
        and passages.isdisjoint(passage_keys(example.gold))
    ]


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


def by_source(records: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    """Yield what a source's questions keep by the default, and by a limit on the number missed."""
    kept = _figures(records, lambda record: _kept(record, DEFAULT_MAX_MISSED, 3))
    before = _figures(records, _kept_by_number)
    for source, rows in kept.items():
        all_gold, tokens = map(float, rows.mean(axis=0))
        count = binomtest(round(all_gold * len(rows)), len(rows))
        interval = count.proportion_ci(method="wilson")
        yield {
            "source": source,
            "questions": len(rows),
            "all gold, by number": float(before[source][:, 0].mean()),
            "tokens, by number": float(before[source][:, 1].mean()),
            "all gold kept": all_gold,
            "interval": f"{interval.low:.2f} to {interval.high:.2f}",
            "tokens kept": tokens,
        }


def judged(records: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    """Yield the figures of each limit and floor: means over sources, and the worst source."""
    others = {
        f"at most {MOST_MISSED:g} missed": _kept_by_number,
        f"top_k={DEFAULT_TOP_K}": _best,
        "as few of the best as hold all gold": _just_enough,
    }
    for name, rule_of_all in others.items():
        yield {
            "limit": name,
            "keep_if_unsure": "None",
            **_macro(_figures(records, rule_of_all)),
        }
    for limit in LIMITS:
        for floor in FLOORS:
            rule = partial(_kept, limit=limit, floor=floor)
            yield {
                "limit": f"max_missed={limit:g}",
                "keep_if_unsure": str(floor),
                **_macro(_figures(records, rule)),
            }


def _figures(
    records: Sequence[Mapping[str, Any]], rule: Callable[[Mapping[str, Any]], tuple[float, float]]
) -> dict[str, Floats]:
    """Return for each source whether all gold is kept, and the share of the tokens, [Q, 2]."""
    rows = defaultdict(list)
    for record in records:
        rows[record["source"]].append(rule(record))
    return {source: np.array(figures) for source, figures in rows.items()}


def _macro(figures: Mapping[str, Floats]) -> Row:
    """Return means over sources, with 95 % intervals over the questions of each, and the worst."""
    rng = np.random.default_rng(SEED)
    means = np.array([rows.mean(axis=0) for rows in figures.values()])
    draws = np.array(
        [
            np.mean([rng.choice(rows, len(rows)).mean(axis=0) for rows in figures.values()], axis=0)
            for _ in range(RESAMPLES)
        ]
    )
    low, high = np.quantile(draws, (0.025, 0.975), axis=0)
    return {
        "all gold kept": float(means[:, 0].mean()),
        "gold interval": f"{low[0]:.2f} to {high[0]:.2f}",
        "least of a source": float(means[:, 0].min()),
        "tokens kept": float(means[:, 1].mean()),
        "tokens interval": f"{low[1]:.2f} to {high[1]:.2f}",
        "most of a source": float(means[:, 1].max()),
    }


def left_out(records: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
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
    likely = np.array(record["first"])
    ranked = np.sort(likely)[::-1]
    if ranked[0] >= max(LIKELY, UNSURE_BELOW) and missed_shares(ranked)[1] > limit:
        likely = np.array(record["second"])
    options = PruneOptions(max_missed=limit, keep_if_unsure=floor)
    return _gold_and_tokens(record, select(likely, options, probabilities=likely).kept)


def _kept_by_number(record: Mapping[str, Any]) -> tuple[float, float]:
    """Return the same if at most `MOST_MISSED` relevant chunks, not a share, may be missed."""
    likely = np.array(record["first"])
    if likely.sum() - likely.max() > MOST_MISSED:
        likely = np.array(record["second"])
    ranking = np.argsort(-likely, kind="stable")
    missed = np.cumsum(likely[ranking][::-1])[::-1]
    return _gold_and_tokens(record, ranking[: 1 + np.count_nonzero(missed[1:] > MOST_MISSED)])


def _best(record: Mapping[str, Any]) -> tuple[float, float]:
    """Return the same of a fixed number of chunks, for which the question isn't read again."""
    ranking = np.argsort(-np.array(record["first"]), kind="stable")
    return _gold_and_tokens(record, ranking[:DEFAULT_TOP_K])


def _just_enough(record: Mapping[str, Any]) -> tuple[float, float]:
    """Return the same where it is known how many of the best chunks are needed."""
    ranking = np.argsort(-np.array(record["second"]), kind="stable")
    needed = 1 + np.flatnonzero(np.array(record["gold"])[ranking]).max()
    return _gold_and_tokens(record, ranking[:needed])


def _gold_and_tokens(record: Mapping[str, Any], kept: Sequence[int] | Ints) -> tuple[float, float]:
    tokens, kept = np.array(record["tokens"]), list(kept)
    all_gold = set(np.flatnonzero(record["gold"])) <= set(kept)
    return float(all_gold), float(tokens[kept].sum() / tokens.sum())


def _read(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    records = map(json.loads, lines)
    return {(record["source"], record["id"]): record for record in records}


if __name__ == "__main__":
    main()
