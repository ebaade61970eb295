"""Lists made without questions: a chunk's title is the query, others of its source the distractors.

A title is seldom a question, but most corpora have some. The lists don't show titles.
Sources share some passages: what a list of one source has as gold may be gold of another, so that
figures of sources left out are too good, if anything.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import click
import numpy as np

from at2_rag.data.examples import Example
from at2_rag.text.chunks import Chunk
from at2_rag_evals.rankers.bm25 import BM25Ranker

FEWEST_TITLES = 50  # of a source: fewer are names of pages or of the whole corpus
BESIDE = 19  # chunks that BM25 finds for a title, besides its own


def title_lists(examples: Sequence[Example], most: int) -> list[Example]:
    """Return up to `most` lists of each source whose chunks have titles, each title at most once.

    Gold is what has the title. Chunks are those of the source's examples.
    """
    chunks_of: dict[str, dict[str, Chunk]] = defaultdict(dict)
    for example in examples:
        chunks_of[example.source].update((chunk.text, chunk) for chunk in example.chunks)
    lists = []
    for source, by_text in sorted(chunks_of.items()):
        chunks = list(by_text.values())
        titles = [chunk.title for chunk in chunks]
        distinct = sorted({title for title in titles if title})
        if len(distinct) < FEWEST_TITLES:
            continue
        rng = np.random.default_rng(0)
        untitled = [replace(chunk, title="") for chunk in chunks]
        scores = BM25Ranker().index(untitled)
        for title in rng.permutation(distinct)[:most].tolist():
            titled = titles.index(title)
            ranked = np.argsort(-np.array(scores(title)), kind="stable").tolist()
            others = [index for index in ranked if index != titled][:BESIDE]
            indices = rng.permutation([titled, *others]).tolist()
            lists.append(
                Example(
                    id=f"{source}: {title}",
                    source=source,
                    query=title,
                    chunks=tuple(untitled[index] for index in indices),
                    labels=tuple(titles[index] == title for index in indices),
                )
            )
    if not lists:
        raise click.ClickException(f"no source's chunks have {FEWEST_TITLES} titles")
    return lists
