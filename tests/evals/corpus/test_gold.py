"""Which chunks are gold, and what is retrieved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from at2_rag.text.chunks import Chunk
from at2_rag_evals.corpus.documents import Corpus
from at2_rag_evals.corpus.gold import Gold, GoldFinder
from at2_rag_evals.corpus.items import CorpusItem, corpus_item
from at2_rag_evals.corpus.questions import Question
from at2_rag_evals.corpus.retrieval import Retrieved, retrieve
from at2_rag_evals.rankers.rank_fusion import fused_ranks

TEXTS = {
    "a#1": "The limit is 20 files. More of them",
    "a#2": "are refused, unless the setting is changed.",
    "a#3": "",
    "b#1": "By default the limit is 30 files, as on page a.",
    "b#2": "The LIMIT  is 20 files; more of them",
    "c#1": "A quota of twenty is no quota.",
}


def corpus_of(texts: dict[str, str]) -> Corpus:
    chunks = tuple(Chunk(text, id=name) for name, text in texts.items())
    return Corpus("docs", chunks, tuple(name.partition("#")[0] for name in texts), {})


CORPUS = corpus_of(TEXTS)
NAMES = list(TEXTS)


def question(**fields: Any) -> Question:
    return Question("q", "docs", "What is the limit?", **fields)


def named(indices: Sequence[int] | frozenset[int]) -> list[str]:
    return [NAMES[index] for index in sorted(indices)]


@pytest.mark.parametrize(
    ("fields", "gold", "missing"),
    [
        ({"answers": ("20 files",)}, ["a#1", "b#2"], ()),
        ({"answers": ("20 file",)}, [], ()),  # whole words
        ({"answers": ("yes", "20 files")}, ["a#1", "b#2"], ()),
        ({"answers": ("yes",)}, [], ()),
        ({"quotes": ("limit is 30 files",), "answers": ("20 files",)}, ["b#1"], ()),
        ({"quotes": ("more of them are refused",)}, ["a#1", "a#2"], ()),  # over a chunk's end
        ({"quotes": ("the limit is 20 files", "no such text")}, ["a#1", "b#2"], ("no such text",)),
        ({"quotes": ("is changed. By default",)}, [], ("is changed. By default",)),
        ({"gold": ("c#1", "a#2")}, ["a#2", "c#1"], ()),
        ({"gold": ("b",)}, ["b#1", "b#2"], ()),
        ({"gold": ("b",), "answers": ("20 files",)}, ["b#2"], ()),
        ({"gold": ("b", "c#9"), "quotes": ("limit is 20 files",)}, ["b#2"], ("c#9",)),
        ({"answers": ("20 files",), "unanswerable": True}, [], ()),
    ],
)
def test_gold_is_found_by_quote_id_and_answer(
    fields: dict[str, Any], gold: list[str], missing: tuple[str, ...]
) -> None:
    found = GoldFinder(CORPUS).find(question(**fields))
    assert (named(found.chunks), found.missing) == (gold, missing)


def test_a_quote_is_found_wherever_a_text_is_cut() -> None:
    words = [f"w{number}" for number in range(12)]
    quote = " ".join(words[3:9])
    for cut in range(1, 12):
        for next_cut in range(cut + 1, 12):
            parts = [words[:cut], words[cut:next_cut], words[next_cut:]]
            corpus = corpus_of({f"a#{n}": " ".join(part) for n, part in enumerate(parts)})
            expected = {n for n, part in enumerate(parts) if set(part) & set(words[3:9])}
            assert GoldFinder(corpus).find(question(quotes=(quote,))) == Gold(frozenset(expected))


def test_near_identical_chunks_share_their_words_and_all_numbers() -> None:
    words = (
        "set pool size to 20 and restart worker before you add more nodes or disks to it or else"
    )
    assert len(words.split()) == 19
    corpus = corpus_of(
        {
            "a#1": words + " wait",
            "a#2": words.upper() + ", wait!",
            "a#3": words + " stop",  # 19 of the 21 words of both
            "a#4": words.replace("disks", "racks") + " stop",  # 18 of 22
            "a#5": words.replace("20", "30") + " wait",
        }
    )
    finder = GoldFinder(corpus)
    assert [finder.near_identical(0, other) for other in range(5)] == [
        *(True, True, True, False, False),
    ]


def item_of(fields: dict[str, Any], **by_retriever: Sequence[int]) -> CorpusItem:
    merged = tuple(dict.fromkeys(index for each in by_retriever.values() for index in each))
    brought = {name: tuple(indices) for name, indices in by_retriever.items()}
    return corpus_item(question(**fields), Retrieved(merged, brought), CORPUS, GoldFinder(CORPUS))


def test_copies_of_gold_are_gold_and_stand_once() -> None:
    # b#2 is a#1 in other letters.
    item = item_of({"gold": ("a#1", "a#2")}, bm25=[4, 0, 3], minilm=[1, 5])
    assert [chunk.id for chunk in item.example.chunks] == ["b#2", "b#1", "a#2", "c#1"]
    assert item.example.labels == (True, False, True, False)
    assert item.recall == {"bm25": 0.5, "minilm": 0.5, "merged": 1.0}
    assert item.outcome == "retrieved"


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({"gold": ("c#1",)}, "not retrieved"),
        ({"quotes": ("nowhere",)}, "not in the documents"),
        ({"gold": ("d",), "answers": ("20 files",)}, "not in the documents"),
        ({"answers": ("no",)}, "nothing tells its gold"),
        ({}, "nothing tells its gold"),
        ({"unanswerable": True}, "unanswerable"),
    ],
)
def test_what_becomes_of_questions_without_gold(fields: dict[str, Any], outcome: str) -> None:
    item = item_of(fields, bm25=[0, 3])
    assert item.outcome == outcome
    assert not any(item.example.labels)
    assert item.recall == ({"bm25": 0, "merged": 0} if outcome == "not retrieved" else {})


def test_the_best_of_each_retriever_are_merged_by_their_ranks() -> None:
    scores = {
        "bm25": np.array([3.0, -np.inf, 2.0, 1.0, -np.inf]),
        "minilm": np.array([0.1, 0.9, 0.2, 0.8, 0.3]),
    }
    retrievers = {name: lambda query, each=each: each for name, each in scores.items()}
    retrieved = retrieve("q", retrievers, 2)
    assert retrieved.by_retriever == {"bm25": (0, 2), "minilm": (1, 3)}
    # Ranks by bm25 1, 4.5, 2, 3, 4.5; by minilm 5, 1, 4, 2, 3.
    expected = [1 / 61 + 1 / 65, 1 / 64.5 + 1 / 61, 1 / 62 + 1 / 64, 1 / 63 + 1 / 62]
    assert fused_ranks(list(scores.values()))[:4].tolist() == pytest.approx(expected)
    assert retrieved.merged == (3, 1, 0, 2)
    assert retrieve("q", retrievers, 5).by_retriever["bm25"] == (0, 2, 3)
