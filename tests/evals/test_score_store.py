"""Stored scores: found again, never stale, whole after a kill."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from at2_rag_evals.rankers import ChunkScores
from at2_rag_evals.record_store import settings_key
from at2_rag_evals.score_store import ScoredItem, ScoreStore
from tests.evals.labelled_items import CountingRanker

ITEMS = {
    f"key{place}": ScoredItem(ChunkScores((0.1 + 0.2, -1e-300, float("inf"))[:place], place), 0.25)
    for place in range(4)
}


def filled(folder: Path | None) -> ScoreStore:
    store = ScoreStore(CountingRanker(), folder)
    for key, item in ITEMS.items():
        store.add(key, item)
    return store


def found(store: ScoreStore) -> dict[str, ScoredItem]:
    return {key: store[key] for key in ITEMS if key in store}


def test_scores_come_back_exactly(tmp_path: Path) -> None:
    assert found(filled(tmp_path / "scores")) == ITEMS
    again = ScoreStore(CountingRanker(), tmp_path / "scores")
    assert found(again) == ITEMS
    assert len(again) == len(ITEMS)


def test_without_a_folder_scores_live_for_the_run(tmp_path: Path) -> None:
    assert found(filled(None)) == ITEMS
    assert found(ScoreStore(CountingRanker(), None)) == {}


def test_other_settings_and_other_systems_find_nothing(tmp_path: Path) -> None:
    filled(tmp_path)
    assert len(ScoreStore(CountingRanker(version=2), tmp_path)) == 0
    other = CountingRanker()
    other.name = "other"
    assert len(ScoreStore(other, tmp_path)) == 0
    assert settings_key(other) != settings_key(CountingRanker())


@pytest.mark.parametrize(
    "tail",
    [
        b'{"item": "key3", "sco',
        b'{"item": "key3", "scores": [1.0], "truncated": 0, "seconds": 0.1}',
        b'{"item": "key3"}\n',
        b"\x00\xff\x00\n",
        b"[]\n",
    ],
    ids=["torn", "no line end", "keys missing", "not text", "not an object"],
)
def test_a_torn_line_is_cut_off_and_scored_again(
    tmp_path: Path, tail: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    filled(tmp_path)
    [path] = tmp_path.iterdir()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + tail)
    with caplog.at_level(logging.WARNING):
        store = ScoreStore(CountingRanker(), tmp_path)
    assert "cut after 3 whole lines" in caplog.text
    assert "key3" not in store
    store.add("key3", ITEMS["key3"])
    assert found(ScoreStore(CountingRanker(), tmp_path)) == ITEMS
    assert path.read_bytes() == b"".join(lines)
