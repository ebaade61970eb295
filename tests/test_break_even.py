"""What pruning cost and saved, by hand, and contexts that are too small to prune."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from at2_rag import AT2Pruner, PruneResult
from at2_rag.cli.group import main
from at2_rag.errors import InputError
from at2_rag.results import BreakEven
from tests.tiny_weights import tiny_pruner

QUERY = "Who wrote Emma?"
CHUNKS = ["The river flows to the sea.", "Jane Austen wrote Emma.", "The bridge spans the harbour."]


@pytest.fixture(scope="module")
def pruner() -> AT2Pruner:
    return tiny_pruner(token_counter=lambda text: len(text.split()))


def result(before: int, after: int, seconds: float) -> PruneResult:
    return PruneResult(QUERY, (), (), before, after, timings={"count": 0.1, "total": seconds})


def test_rates_by_hand() -> None:
    gain = result(2500, 500, 0.9).break_even(tokens_per_second=1000, price_per_million=3)
    assert gain == BreakEven(
        tokens_saved=2000,
        seconds_spent=0.9,
        seconds_saved=2.0,
        money_saved=pytest.approx(0.006),  # type: ignore[arg-type]
    )
    assert gain.seconds_gained == pytest.approx(1.1)


def test_without_rates_only_tokens_and_time_are_known() -> None:
    gain = result(300, 200, 0.5).break_even()
    assert gain == BreakEven(100, 0.5, None, None)
    assert gain.seconds_gained is None
    assert result(300, 200, 0.5).break_even(price_per_million=1).money_saved == 1e-4
    assert result(300, 200, 0.5).break_even(tokens_per_second=1e3).seconds_gained == -0.4


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"tokens_per_second": 0}, "tokens_per_second is 0; pass a finite number above 0, or None"),
        ({"tokens_per_second": math.nan}, "tokens_per_second is nan"),
        ({"price_per_million": -1}, "price_per_million is -1; pass a finite number of at least 0"),
        ({"price_per_million": "2"}, "price_per_million is '2'"),
        ({"price_per_million": math.inf}, "price_per_million is inf"),
        ({"price_per_million": True}, "price_per_million is True"),
    ],
)
def test_rates_that_are_none(rates: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        result(2, 1, 0.5).break_even(**rates)


def test_a_small_context_is_kept_as_it_is(pruner: AT2Pruner) -> None:
    total = 15  # words
    for limit in (total, total + 1):
        pruned = pruner.prune(QUERY, CHUNKS, top_k=1, skip_below_tokens=limit)
        assert [one.chunk for one in pruned.kept] == CHUNKS and pruned.dropped == ()
        assert all(math.isnan(one.score) for one in pruned.kept)
        assert pruned.skipped and not pruned.scored and pruned.error is None
        assert pruned.tokens_before == pruned.tokens_after == total
        assert set(pruned.timings) == {"count", "total"}
        assert pruned.notes == (
            f"The context has 15 tokens, at most skip_below_tokens={limit}, and was kept as it is, "
            "without scoring.",
        )
        assert json.loads(pruned.to_json())["skipped"] is True


def test_a_larger_one_is_pruned(pruner: AT2Pruner) -> None:
    expected = pruner.prune(QUERY, CHUNKS, top_k=1)
    pruned = pruner.prune(QUERY, CHUNKS, top_k=1, skip_below_tokens=14)
    assert pruned.kept == expected.kept and pruned.scored and pruned.notes == ()


def test_max_tokens_holds_all_the_same(pruner: AT2Pruner) -> None:
    pruned = pruner.prune(QUERY, CHUNKS, max_tokens=12, skip_below_tokens=100)
    assert pruned.scored and pruned.tokens_after <= 12
    assert pruner.prune(QUERY, CHUNKS, max_tokens=15, skip_below_tokens=100).skipped


def test_the_command_says_both(tmp_path: Path, model_folder: Path) -> None:
    corpus = tmp_path / "corpus.json"
    corpus.write_text(json.dumps(CHUNKS))

    def output(*arguments: str) -> str:
        loading = ["--model", str(model_folder), "--head-weights", "uniform", "--no-chunk-cache"]
        command = ["prune", "-q", QUERY, "--top-k", "1", str(corpus), *loading, *arguments]
        ran = CliRunner().invoke(main, command)
        assert ran.exit_code == 0, ran.stderr
        return " ".join(ran.stdout.split())

    small = output("--skip-below-tokens", "9999")
    assert "Kept 3 of 3 chunks" in small and "nan" not in small
    assert "was kept as it is, without scoring." in small
    assert "Saved" not in small
    line = re.search(
        r"Saved the generator (\d+) tokens, ([\d.]+) s \(less [\d.]+ s for pruning\), "
        r"([\d.e-]+) of the price's currency\.",
        output("--tokens-per-second", "10", "--price", "2"),
    )
    assert line is not None
    tokens, seconds, money = map(float, line.groups())
    assert seconds == pytest.approx(tokens / 10, abs=0.01)
    assert money == pytest.approx(tokens * 2e-6, rel=0.01)
