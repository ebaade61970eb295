"""What earlier turns of a conversation do to ranking.

python benchmarks/conversations.py FILE --limit 60

README.md beside this file says more.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import click
import numpy as np
from report import POSITIVE, Row, markdown_table

from at2_rag import AT2Pruner, PruneResult
from at2_rag.data.bootstrap import Estimate, resample_means
from at2_rag.data.clusters import item_clusters
from at2_rag.data.examples import Example, read_examples
from at2_rag.model.hub import DEFAULT_MODEL
from at2_rag.progress import StepProgress
from at2_rag.training.fitting.cross_validation import ndcg_at_10

SEED = 0
WAYS = ("last turn alone", "history", "all as one query")
ABOUT = re.compile(
    r"(?P<head>(?:What|How|Why|Did|Was|Were|Summarize) .+?) (?P<word>about|of|on|regarding) "
    r"(?P<topic>\w.+?)\s*[?.]?"
)
"""A question with its topic at the end."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """What was said before, and the last question."""

    turns: tuple[str, ...]
    query: str


def conversations(query: str, other: str) -> dict[str, Conversation]:
    """Return conversations that end with a question, by kind; none if it isn't like `ABOUT`.

    In the second and the third the last turn is short. `other` is another question.
    """
    match = ABOUT.fullmatch(query)
    if match is None:
        return {}
    head, word, topic = match.group("head", "word", "topic")
    return {
        "whole question": Conversation((), query),
        "'it' for its topic": Conversation(
            (f"What was said about {topic}?",), f"{head} {word} it?"
        ),
        "'And about ...?'": Conversation((other,), f"And about {topic}?"),
        "whole, after another": Conversation((other,), query),
    }


@click.command("conversations", context_settings={"show_default": True})
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--model", default=DEFAULT_MODEL, help="Name, folder or hub id.")
@click.option("--head-weights", "presets", multiple=True, default=("best",))
@click.option("--limit", type=POSITIVE, default=60, help="Questions.")
def main(*, file: str, model: str, presets: tuple[str, ...], limit: int) -> None:
    """Rank by the last turn alone, with the turns before it, and by all turns as one query."""
    items = draw(read_examples(file), limit)
    if not items:
        raise click.UsageError("no question ends with its topic, as in 'What was said about it?'")
    clusters = item_clusters([example for example, _ in items])
    for preset in presets:
        pruner = AT2Pruner.from_pretrained(model, head_weights=preset)
        quality: dict[tuple[str, str], list[float]] = defaultdict(list)
        with StepProgress() as progress:
            for number, (example, by_kind) in enumerate(items, start=1):
                for key, result in ranked(pruner, example, by_kind).items():
                    quality[key].append(_ndcg(result, example))
                progress(f"ranking with {preset}", number, len(items))
        click.echo(markdown_table(f"nDCG@10, {preset}", list(rows(quality, clusters))))


def draw(examples: Sequence[Example], limit: int) -> list[tuple[Example, dict[str, Conversation]]]:
    """Return up to `limit` answerable questions, drawn at random, with their conversations.

    The other question of each is the one before it in the file, which is on the same document
    where the file is sorted by document.
    """
    items = []
    for index, example in enumerate(examples):
        by_kind = conversations(example.query, examples[index - 1].query)
        if by_kind and any(example.labels):
            items.append((example, by_kind))
    chosen = np.random.default_rng(SEED).permutation(len(items))[:limit]
    return [items[index] for index in np.sort(chosen)]


def ranked(
    pruner: AT2Pruner, example: Example, by_kind: Mapping[str, Conversation]
) -> dict[tuple[str, str], PruneResult]:
    """Return the results by kind and way."""
    requests: dict[tuple[str, str], tuple[str, tuple[str, ...]]] = {}
    for kind, conversation in by_kind.items():
        turns, query = conversation.turns, conversation.query
        requests[kind, WAYS[0]] = query, ()
        if turns:
            requests[kind, WAYS[1]] = query, turns
            requests[kind, WAYS[2]] = " ".join([*turns, query]), ()
    results = pruner.prune_batch(
        [(query, example.chunks, turns) for query, turns in requests.values()],
        top_k=1,
        max_overlap=None,
        multi_hop=False,
    )
    return dict(zip(requests, results, strict=True))


def rows(
    quality: Mapping[tuple[str, str], Sequence[float]], clusters: Sequence[int]
) -> Iterator[Row]:
    """Yield a row a kind, with the paired difference that the history makes."""
    for kind in dict.fromkeys(kind for kind, _ in quality):
        values = np.stack([quality[key] for key in quality if key[0] == kind], axis=1)
        draws = resample_means(values, clusters, rng=np.random.default_rng(SEED))
        ways = [way for name, way in quality if name == kind]
        row: dict[str, str | float] = {"conversation": kind, "questions": draws.n}
        for column, way in enumerate(ways):
            row[way] = float(draws.means[column])
        if len(ways) > 1:
            row["history less alone"] = _interval(draws.estimate(1, minus=0))
        yield row


def _ndcg(result: PruneResult, example: Example) -> float:
    chunks = sorted((*result.kept, *result.dropped), key=lambda chunk: chunk.index)
    scores = np.array([chunk.score for chunk in chunks])
    [value] = ndcg_at_10(scores, np.array(example.labels), np.array([len(scores)]))
    return float(value)


def _interval(estimate: Estimate) -> str:
    if estimate.low is None:
        return f"{estimate.mean:+.3f}"
    return f"{estimate.mean:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"


if __name__ == "__main__":
    main()
