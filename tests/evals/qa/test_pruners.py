"""Pruners: what each keeps, worked out by hand or by brute force."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
import torch

from at2_rag.data.examples import Example
from at2_rag.errors import InputError, ScoringError
from at2_rag.options import Order
from at2_rag.pruner import AT2Pruner
from at2_rag.readout.calibration import Calibration
from at2_rag.readout.multi_hop import MultiHop
from at2_rag.text.chunks import Chunk
from at2_rag_evals.named_weights import NamedWeights
from at2_rag_evals.qa.budgets import Budget
from at2_rag_evals.qa.pruners.base import Limit
from at2_rag_evals.qa.pruners.ranking import RankingPruner
from at2_rag_evals.qa.pruners.registry import PrunerOptions, known_pruners, make_pruners
from at2_rag_evals.rankers import ItemScores, RankerOptions
from tests.evals.labelled_items import CountingRanker, make_item, write_items


def words(text: str) -> int:
    return len(text.split())


def limit(
    *, top_k: int | None = None, max_tokens: int | None = None, order: Order = "score"
) -> Limit:
    return Limit(Budget(top_k, max_tokens), order, words)


def kept(name: str, item: Example, limit: Limit) -> tuple[int, ...]:
    [pruner] = make_pruners([name], PrunerOptions())
    assert pruner.name == name
    return pruner.prune(item, limit).kept


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("none", (0, 1, 2, 3, 4)),
        ("closed_book", ()),
        ("oracle", (1, 4)),
        ("first_k", (0, 1, 2)),
        ("last_k", (2, 3, 4)),
    ],
)
def test_what_is_kept_by_place(name: str, expected: tuple[int, ...]) -> None:
    item = make_item("a", "-g--g")
    assert kept(name, item, limit(top_k=3)) == expected
    [pruner] = make_pruners([name], PrunerOptions())
    assert pruner.budgeted == (name in ("first_k", "last_k"))


def test_an_oracle_without_gold_keeps_nothing() -> None:
    assert kept("oracle", make_item("a", "---"), limit(top_k=3)) == ()


def test_one_chunk_is_kept_by_every_ranking() -> None:
    item = make_item("a", "g")
    for name in ("first_k", "last_k", "random_k", "bm25"):
        assert kept(name, item, limit(top_k=3)) == (0,)


def test_random_k_draws_evenly_and_by_its_seed() -> None:
    items = [make_item(str(place), "----") for place in range(600)]
    drawn = Counter(frozenset(kept("random_k", item, limit(top_k=2))) for item in items)
    assert set(drawn) == set(map(frozenset, combinations(range(4), 2)))
    assert all(60 <= number <= 140 for number in drawn.values())  # 100 expected, sd 9
    other = PrunerOptions(RankerOptions(seed=1))
    [seeded] = make_pruners(["random_k"], other)
    again = [seeded.prune(item, limit(top_k=2)).kept for item in items]
    assert again == [
        make_pruners(["random_k"], other)[0].prune(item, limit(top_k=2)).kept for item in items
    ]
    assert Counter(map(frozenset, again)) != drawn


def test_orders_and_token_budgets_by_hand() -> None:
    texts = ("a b c", "d", "e f g h", "i j")  # lengths 3, 1, 4 and 2 words, longest first
    item = Example("x", "s", "q", tuple(Chunk(text) for text in texts), (False,) * 4)

    def of(
        top_k: int | None = None, max_tokens: int | None = None
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        pruner = RankingPruner(CountingRanker())
        orders: tuple[Order, Order] = ("score", "original")
        one, two = (
            pruner.prune(item, limit(top_k=top_k, max_tokens=max_tokens, order=order)).kept
            for order in orders
        )
        return one, two

    assert of(top_k=2) == ((2, 0), (0, 2))
    assert of(top_k=9) == ((2, 0, 3, 1), (0, 1, 2, 3))
    assert of(max_tokens=6) == ((2, 3), (2, 3))  # 4 words, 3 don't fit, 2 do, then nothing
    assert of(max_tokens=8) == ((2, 0, 1), (0, 1, 2))
    assert of(max_tokens=3) == ((), ())  # not even the best fits


def test_an_item_is_scored_once_for_all_budgets_and_runs(tmp_path: Path) -> None:
    item = make_item("a", "g---")
    ranker = CountingRanker()
    first = RankingPruner(ranker, folder=tmp_path)
    results = [first.prune(item, limit(top_k=k)).kept for k in (1, 2, 3)]
    assert (ranker.prepared, ranker.calls) == (1, 1)
    again = CountingRanker()
    second = RankingPruner(again, folder=tmp_path)
    assert [second.prune(item, limit(top_k=k)).kept for k in (1, 2, 3)] == results
    assert (again.prepared, again.calls) == (0, 0)
    other = CountingRanker(version=2)
    RankingPruner(other, folder=tmp_path).prune(item, limit(top_k=1))
    assert other.calls == 1


def test_unusable_scores_name_pruner_and_item() -> None:
    class ShortRanker(CountingRanker):
        def score(self, query: str, chunks: object) -> ItemScores:
            return ItemScores((1.0,))

    with pytest.raises(ScoringError, match="counting failed on item 'a' of novels: 1 scores for 4"):
        RankingPruner(ShortRanker()).prune(make_item("a"), limit(top_k=1))


def test_model_pruners_agree_with_the_pruner_itself(
    scoring_folder: Path, embedding_folder: Path, tmp_path: Path
) -> None:
    item = make_item("a", "g-----")
    train = write_items(tmp_path / "train.jsonl", [make_item(str(n), "-g--") for n in range(3)])
    options = PrunerOptions(
        RankerOptions(
            model=str(scoring_folder),
            head_weights="uniform",
            embedding_model=str(embedding_folder),
            weights=(NamedWeights("mine", "uniform"),),
            remember=False,
        ),
        train=[train],
    )
    names = ("minilm", "all_heads_mean", "at2", "mine", "heads_8", "heads_16")
    threads = torch.get_num_threads()
    found = {
        pruner.name: pruner.prune(item, limit(top_k=3)) for pruner in make_pruners(names, options)
    }
    assert torch.get_num_threads() == threads
    assert tuple(found) == names
    assert all(len(set(pruned.kept)) == 3 and pruned.seconds > 0 for pruned in found.values())
    own = AT2Pruner.from_pretrained(str(scoring_folder), head_weights="uniform")
    result = own.prune(item.query, item.chunks, top_k=3)
    expected = tuple(scored.index for scored in result.kept)
    for name in ("all_heads_mean", "at2", "mine"):
        assert found[name].kept == expected


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    options = PrunerOptions(RankerOptions(weights=(NamedWeights("mine", "uniform"),)))
    with pytest.raises(InputError, match="no pruner 'bm26'; the known ones are none, .*bm25.*mine"):
        make_pruners(["none", "bm26"], options)
    with pytest.raises(InputError, match="'none' is named twice"):
        make_pruners(["none", "none"], options)
    with pytest.raises(InputError, match="'heads_8' chooses its heads on .* pass --train"):
        make_pruners(["heads_8"], options)
    assert len(set(known_pruners(options))) == len(known_pruners(options))


@pytest.mark.parametrize("limits", [(None, None), (1, 1), (0, None), (None, 0)])
def test_a_budget_is_one_limit(limits: tuple[int | None, int | None]) -> None:
    with pytest.raises(InputError, match="exactly one of them"):
        Budget(*limits)
    assert Budget(top_k=3).label == "top 3" and Budget(max_tokens=256).label == "256 tokens"


def test_without_a_budget_calibrated_weights_decide(scoring_folder: Path, tmp_path: Path) -> None:
    folder = str(scoring_folder)
    plain = AT2Pruner.from_pretrained(folder, head_weights="uniform").head_weights
    spread = Calibration(plain.weight, 0.0, (0.0, 2.0, 0.0, 2.0), (0.0, 0.0, 1.0))
    again = MultiHop(-plain.weight[0], 0.0, (0.0, 1.0, 0.0, 1.0))
    calibrated = replace(plain, calibration=spread, score_scale="logit", multi_hop=again)
    calibrated.save(tmp_path / "weights")
    ours = AT2Pruner.from_pretrained(folder, head_weights=calibrated)
    item = make_item("a", "-g--g")
    options = PrunerOptions(
        RankerOptions(model=folder, head_weights=str(tmp_path / "weights"), remember=False),
        folder=tmp_path / "scores",
        max_missed=(1.5,),
    )
    names = ["at2_adaptive", *(f"at2_adaptive{own}_1.5" for own in ("", "_multi_hop", "_once"))]
    kinds = [(None, None), (1.5, None), (1.5, True), (1.5, False)]
    for pruner, (max_missed, asks) in zip(make_pruners(names, options), kinds, strict=True):
        expected = ours.prune(item.query, item.chunks, max_missed=max_missed, multi_hop=asks).kept
        assert 0 < len(expected) < 5
        one = pruner.prune(item, limit(top_k=1))
        assert one.kept == tuple(own.index for own in expected)
        in_order = pruner.prune(item, limit(top_k=1, order="original"))
        assert in_order.kept == tuple(sorted(one.kept))
        assert not pruner.budgeted and pruner.ordered
    before = {path: path.read_bytes() for path in (tmp_path / "scores").iterdir()}
    assert len(before) == 4
    for pruner in make_pruners(names, options):
        pruner.prune(item, limit(top_k=1))
    assert before == {path: path.read_bytes() for path in before}
