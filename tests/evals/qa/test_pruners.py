"""Pruners: what each keeps, worked out by hand or by brute force."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch

from at2_rag.data.examples import Example
from at2_rag.errors import InputError
from at2_rag.options import Order
from at2_rag.pruner import AT2Pruner
from at2_rag.readout.calibration import Calibration
from at2_rag.readout.multi_hop import MultiHop
from at2_rag.text.chunks import Chunk
from at2_rag_evals.named_systems import NamedSystem
from at2_rag_evals.qa.budgets import Budget
from at2_rag_evals.qa.pruners.base import Limit, Pruner
from at2_rag_evals.qa.pruners.ranking import RankingPruner
from at2_rag_evals.qa.pruners.registry import make_pruners
from at2_rag_evals.qa.request import QARequest
from tests.evals.labelled_items import CountingRanker, make_item, write_items


def limit(
    *, top_k: int | None = None, max_tokens: int | None = None, order: Order = "score"
) -> Limit:
    return Limit(Budget(top_k, max_tokens), order, lambda text: len(text.split()))


def make(folder: Path, *names: str, **options: Any) -> list[Pruner]:
    return make_pruners(QARequest(output=folder, pruners=names, **options))


def test_what_is_kept_by_position_or_label(tmp_path: Path) -> None:
    pruners = make(tmp_path, "none", "closed_book", "oracle", "first_k", "last_k")
    kept = [pruner.prune(make_item("a", "-g--g"), limit(top_k=3)).kept for pruner in pruners]
    assert kept == [(0, 1, 2, 3, 4), (), (1, 4), (0, 1, 2), (2, 3, 4)]
    assert [pruner.budgeted for pruner in pruners] == [False, False, False, True, True]


def test_random_k_draws_evenly_and_by_its_seed(tmp_path: Path) -> None:
    items = [make_item(str(number), "----") for number in range(400)]

    def drawn(seed: int, folder: str) -> list[tuple[int, ...]]:
        [pruner] = make(tmp_path / folder, "random_k", seed=seed)
        return [pruner.prune(item, limit(top_k=2)).kept for item in items]

    first = drawn(0, "a")
    counts = Counter(map(frozenset, first))
    assert set(counts) == set(map(frozenset, combinations(range(4), 2)))
    assert all(35 <= number <= 100 for number in counts.values())  # 67 expected, sd 7.5
    assert first == drawn(0, "b") != drawn(1, "a")


def test_orders_and_token_budgets_by_hand() -> None:
    texts = ("a b c", "d", "e f g h", "i j")  # lengths 3, 1, 4 and 2 words, longest first
    item = Example("x", "s", "q", tuple(Chunk(text) for text in texts), (False,) * 4)

    def kept(**budget: int) -> list[tuple[int, ...]]:
        pruner = RankingPruner(CountingRanker())
        orders: tuple[Order, Order] = ("score", "original")
        return [pruner.prune(item, limit(**budget, order=order)).kept for order in orders]

    assert kept(top_k=2) == [(2, 0), (0, 2)]
    assert kept(max_tokens=6) == [(2, 3), (2, 3)]  # 4 words, 3 don't fit, 2 do, then nothing
    assert kept(max_tokens=3) == [(0,), (0,)]  # the best doesn't fit, 3 words do


def test_an_item_is_scored_once_for_all_budgets_and_runs(tmp_path: Path) -> None:
    item, store = make_item("a", "g---"), tmp_path / "store.sqlite"
    rankers = [CountingRanker(), CountingRanker(), CountingRanker(version=2)]
    results = [
        [RankingPruner(ranker, store=store).prune(item, limit(top_k=k)).kept for k in (1, 2, 3)]
        for ranker in rankers
    ]
    assert results[0] == results[1] == results[2]
    assert [(ranker.prepared, ranker.calls) for ranker in rankers] == [(1, 1), (0, 0), (1, 1)]


def test_model_pruners_agree_with_the_pruner_itself(
    scoring_folder: Path, embedding_folder: Path, tmp_path: Path
) -> None:
    item = make_item("a", "g-----")
    train = write_items(tmp_path / "train.jsonl", [make_item(str(n), "-g--") for n in range(3)])
    threads = torch.get_num_threads()
    pruners = make(
        tmp_path,
        *("minilm", "all_heads_mean", "at2", "heads_8", "heads_16"),
        model=str(scoring_folder),
        head_weights="uniform",
        embedding_model=str(embedding_folder),
        weights=(NamedSystem("mine", "uniform"),),
        embeddings=(NamedSystem("other", str(embedding_folder)),),
        train=(train,),
    )
    results = {pruner.name: pruner.prune(item, limit(top_k=3)) for pruner in pruners}
    assert torch.get_num_threads() == threads
    assert tuple(results) == (
        *("minilm", "other", "all_heads_mean", "at2", "mine", "heads_8", "heads_16"),
    )
    assert results["other"].kept == results["minilm"].kept
    assert all(len(set(pruned.kept)) == 3 and pruned.seconds > 0 for pruned in results.values())
    direct = AT2Pruner.from_pretrained(str(scoring_folder), head_weights="uniform")
    kept = direct.prune(item.query, item.chunks, top_k=3).kept
    for name in ("all_heads_mean", "at2", "mine"):
        assert results[name].kept == tuple(chunk.index for chunk in kept)


def test_pruners_that_cannot_be_made(tmp_path: Path) -> None:
    weights = (NamedSystem("mine", "uniform"),)
    with pytest.raises(InputError, match="no pruner 'bm26'; the known ones are none, .*bm25.*mine"):
        make(tmp_path, "none", "bm26", weights=weights)
    with pytest.raises(InputError, match="chosen on training items; pass --train"):
        make(tmp_path, "heads_8")


def test_without_a_budget_calibrated_weights_decide(scoring_folder: Path, tmp_path: Path) -> None:
    folder = str(scoring_folder)
    plain = AT2Pruner.from_pretrained(folder, head_weights="uniform").head_weights
    chunk, call = (0.0, 2.0, 0.0, 2.0), (0.0, 0.0, 0.0, 0.0, 9.0)
    spread = Calibration(plain.weight, 0.0, chunk, call, unread=1.0)
    again = MultiHop(-plain.weight[0], 0.0, (0.0, 1.0, 1.0))
    calibrated = replace(plain, calibration=spread, score_scale="logit", multi_hop=again)
    calibrated.save(tmp_path / "weights")
    direct = AT2Pruner.from_pretrained(folder, head_weights=calibrated)
    item = make_item("a", "-g--g")
    options: dict[str, Any] = {"model": folder, "head_weights": str(tmp_path / "weights")}
    overrides: dict[str, dict[str, Any]] = {
        "at2_adaptive": {},
        "at2_adaptive_multi_hop_0.4": {"max_missed": 0.4, "multi_hop": True},
        "at2_adaptive_once_0.4": {"max_missed": 0.4, "multi_hop": False},
    }
    for name, override in overrides.items():
        [pruner] = make(tmp_path, name, **options, max_missed=(0.4,))[:1]
        expected = direct.prune(item.query, item.chunks, **override).kept
        assert 0 < len(expected) <= 5 and not pruner.budgeted and pruner.ordered
        first = pruner.prune(item, limit(top_k=1))
        assert first.kept == tuple(chunk.index for chunk in expected)
        in_order = pruner.prune(item, limit(top_k=1, order="original"))
        assert in_order.kept == tuple(sorted(first.kept))
        [again_made] = make(tmp_path, name, **options, max_missed=(0.4,))[:1]
        assert again_made.prune(item, limit(top_k=1)) == first  # with its seconds: stored
