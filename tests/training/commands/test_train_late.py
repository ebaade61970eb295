"""`at2-rag train` for late reading: few key heads, then a shortlist that they choose."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from at2_rag import HeadWeights
from at2_rag.data.examples import Example, read_files
from tests.training.commands.train_runs import (
    CHUNKS,
    FILES,
    QUERY,
    last_line,
    pruner,
    record,
    train,
    trained,
)

LATE = ("--features", "log:late", "--depth", 2)
ALL = ("--features", "log:late+together+apart", "--depth", 2)


@pytest.fixture(scope="module")
def late(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("late")
    return trained(data, *LATE, "--key-heads", 2, output=output)


@pytest.fixture(scope="module")
def shortlisting(data: Path, late: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("shortlisting") / "out"
    return trained(data, *ALL, "--shortlist", late, output=output)


def examples_of(data: Path) -> list[Example]:
    return [*chain.from_iterable(read_files([str(data / name) for name in FILES]))]


def test_at_most_so_many_key_heads_have_weights(data: Path, late: Path) -> None:
    weights = HeadWeights.load(late)
    assert weights.spec.passes == ("late",) and weights.weight.shape == (1, 2, 4)
    used = {(layer, head // 2) for _, layer, head in np.argwhere(weights.weight).tolist()}
    assert set(weights.key_heads(2)) == used and len(used) == 2
    cache: dict[str, Any] = {}
    scores = [one.score for one in pruner(data, late, chunk_cache=cache).score(QUERY, CHUNKS)]
    assert len(cache) == 2 and np.isfinite(scores).all()
    assert all(len(kept.levels) == 2 for kept in cache.values())
    assert record(late)["settings"]["key_heads"] == 2


def test_shortlisted_weights_have_the_scores_that_were_fitted(
    data: Path, late: Path, shortlisting: Path
) -> None:
    weights, chosen = HeadWeights.load(shortlisting), HeadWeights.load(late)
    assert weights.shortlist is not None
    assert np.array_equal(weights.shortlist.weight, chosen.weight[0])
    assert weights.shortlist.bias == chosen.bias
    assert record(shortlisting)["settings"]["shortlist"] == late.name
    first = {tuple(key) for key in np.argwhere(chosen.weight[0]).tolist()}
    assert {tuple(key) for key in np.argwhere(weights.weight[0]).tolist()} <= first
    ranks = pruner(data, shortlisting)
    by_late = pruner(data, late)
    gold_first, beside_it = [], 0
    for example in examples_of(data):
        scores = np.array([one.score for one in ranks.score(example.query, example.chunks)])
        late_scores = np.array([one.score for one in by_late.score(example.query, example.chunks)])
        list_of = weights.shortlist.chosen(late_scores)
        beside = weights.shortlist.slope * late_scores + weights.shortlist.constant
        beside_it += int((~list_of).sum())
        assert scores[~list_of] == pytest.approx(beside[~list_of], abs=1e-4)
        gold_first.append(bool(example.labels[int(scores.argmax())]))
    assert beside_it > 0 and np.mean(gold_first) > 0.8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([*ALL, "--key-heads", 2], "key_heads is 2, which only late features can be limited to"),
        ([*LATE, "--shortlist", "LATE"], "a shortlist is for the log of late and other passes"),
        (
            ["--features", "mass:late+apart", "--depth", 2, "--shortlist", "LATE"],
            "a shortlist is for the log of late and other passes",
        ),
        (
            ["--features", "log:late+apart", "--depth", 3, "--shortlist", "LATE"],
            "depth is 3; pass 2, the layers of the shortlist's weights",
        ),
        (
            ["--features", "log:late+apart", "--depth", 1, "--shortlist", "LATE"],
            "depth is 1; pass 2, the layers of the shortlist's weights",
        ),
        ([*ALL, "--shortlist", "ALL"], "these weights are for the log of late, together, apart"),
    ],
)
def test_what_does_not_go_together_is_refused(
    data: Path, late: Path, shortlisting: Path, tmp_path: Path, options: list[Any], message: str
) -> None:
    named = {"LATE": late, "ALL": shortlisting}
    line = last_line(train(data, *(named.get(one, one) for one in options), output=tmp_path / "o"))
    assert message in line
    assert not (tmp_path / "o" / "features").exists()
