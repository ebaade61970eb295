"""Verdicts of hand-made differences, and what reports call things."""

from __future__ import annotations

import pytest
from rich.console import Console
from scipy.stats import binom

from at2_rag.data.bootstrap import Estimate
from at2_rag_evals.fidelity.request import HEAD_COUNTS, KNOWN_SYSTEMS
from at2_rag_evals.names import SYSTEMS, in_prose, shown
from at2_rag_evals.qa.budgets import adaptive_name
from at2_rag_evals.qa.request import DEFAULT_PRUNERS, MORE_PRUNERS
from at2_rag_evals.rankers import RANKERS
from at2_rag_evals.tables import Table, print_report
from at2_rag_evals.verdict import (
    MARGIN,
    doubt,
    effect,
    fewer,
    points,
    ranking_verdict,
    widened,
)


def estimate(
    mean: float, low: float | None, high: float | None, n: int = 1000, clusters: int | None = None
) -> Estimate:
    return Estimate(mean, low, high, n, n if clusters is None else clusters)


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        (estimate(0.15, 0.11, 0.19), "better"),
        (estimate(0.004, -0.009, 0.017), "unharmed"),
        (estimate(-0.012, -0.018, -0.006), "unharmed"),  # a loss, but within the margin
        (estimate(0.0, -0.02, 0.02), "unharmed"),
        (estimate(0.0, -0.021, 0.021), "unclear"),
        (estimate(-0.05, -0.08, -0.02), "worse"),
        (estimate(0.3, None, None), "unclear"),  # one cluster
        (estimate(1.0, 1.0, 1.0, n=9), "unclear"),  # nine questions
        (estimate(1.0, 1.0, 1.0, n=100, clusters=9), "unclear"),
        (estimate(0.0, 0.0, 0.0, n=72), "unclear"),  # no answer changed, which could be chance
        (estimate(0.0, 0.0, 0.0, n=150), "unharmed"),
        (estimate(0.02, 0.005, 0.06, n=50), "unclear"),  # one of fifty
    ],
)
def test_what_a_difference_of_shares_shows(difference: Estimate, expected: str) -> None:
    assert effect(widened(difference), margin=MARGIN) == expected


@pytest.mark.parametrize("n", [30, 150, 1000])
def test_a_loss_that_never_happened_may_still_be_as_frequent_as_the_rule_of_three_says(
    n: int,
) -> None:
    once = widened(estimate(0.0, 0.0, 0.0, n=n))
    assert once.interval is not None
    low, high = once.interval
    assert -low == high == pytest.approx(3 / n)
    assert widened(once) == once
    assert binom.cdf(0, n, high) == pytest.approx(0.05, abs=0.01)  # what 95 % leaves


def test_what_a_verdict_prints_is_what_it_rests_on() -> None:
    # 3 / 60 = 5 points on each side of 4, and 4 - 5 isn't above zero.
    share = widened(estimate(0.04, 0.01, 0.07, n=60))
    assert points(share) == "+4.0 points, 95 % interval -1.0 to +9.0"
    assert effect(share) == "unclear"
    # 3 / 200 = 1.5 points, so that the bootstrap's interval stays.
    share = widened(estimate(0.04, 0.01, 0.07, n=200))
    assert points(share) == "+4.0 points, 95 % interval +1.0 to +7.0"
    assert effect(share) == "better"
    few = widened(estimate(0.5, 0.5, 0.5, n=100, clusters=9))
    assert points(few) == "+50.0 points, without an interval" and effect(few) == "unclear"


def test_doubt_says_how_large_the_loss_may_be_and_how_many_questions_would_tell() -> None:
    # Half the width is 4 points; to reach -2 from 0 it has to halve, with four times as many.
    assert doubt(estimate(0.0, -0.04, 0.04, n=300)) == (
        "A loss of 4.0 points can't be excluded; if the difference stays as it is, about 1,200 "
        "questions like these would exclude one of more than 2 points."
    )
    assert "about 150 questions" in doubt(widened(estimate(0.0, 0.0, 0.0, n=54)))
    assert doubt(estimate(-0.03, -0.09, 0.03)) == "A loss of 9.0 points can't be excluded."
    few = "Nothing is concluded from fewer than 10 independent questions."
    assert doubt(estimate(0.2, None, None, n=40, clusters=1)) == few


def test_shares_and_differences_are_written_for_people() -> None:
    assert points(estimate(-0.0004, -0.01, 0.012)) == "-0.0 points, 95 % interval -1.0 to +1.2"
    assert points(estimate(0.5, None, None)) == "+50.0 points, without an interval"
    assert [fewer(*pair) for pair in ((29, 100), (103, 100), (100, 100), (0, 0))] == [
        *("71 % fewer", "3 % more", "as many", "as many"),
    ]


FIGURES = {name: estimate(mean, None, None) for name, mean in (("at2", 0.957), ("bm25", 0.93))}


@pytest.mark.parametrize(
    ("differences", "answer"),
    [
        ({"bm25": estimate(0.03, 0.02, 0.04), "minilm": estimate(0.04, 0.03, 0.05)}, "Yes"),
        (
            {"bm25": estimate(0.01, -0.01, 0.03), "minilm": estimate(0.04, 0.03, 0.05)},
            "Can't tell from 1,000 questions",
        ),
        ({"bm25": estimate(-0.03, -0.04, -0.02), "minilm": estimate(0.04, 0.03, 0.05)}, "No"),
        ({"random": estimate(0.4, 0.3, 0.5)}, "No verdict"),
    ],
)
def test_at2_is_better_only_if_it_is_ahead_of_every_alternative(
    differences: dict[str, Estimate], answer: str
) -> None:
    figures = {**FIGURES, "minilm": estimate(0.917, None, None), "random": FIGURES["bm25"]}
    rivals = ("bm25", "minilm")
    verdict = ranking_verdict("?", "an nDCG@10 of", figures, differences, rivals=rivals)
    assert verdict.answer == answer


def test_a_ranking_is_compared_with_what_was_judged() -> None:
    differences = {"bm25": estimate(0.027, 0.019, 0.036), "random": estimate(0.4, 0.3, 0.5)}
    metric, rivals = "an nDCG@10 of", ("bm25", "minilm")
    verdict = ranking_verdict("?", metric, FIGURES, differences, rivals=rivals)
    assert verdict.statement == (
        "Yes: at2 has an nDCG@10 of .957, ahead of BM25 with .930 (+.027, 95 % interval +.019 to "
        "+.036)."
    )
    without = ranking_verdict("?", metric, {"bm25": FIGURES["bm25"]}, {}, rivals=rivals)
    assert without.statement == "No verdict: at2 wasn't judged."


@pytest.mark.parametrize(
    ("difference", "statement"),
    [
        (
            estimate(0.04, 0.01, 0.07, n=60),
            "Yes: at2 has an nDCG@10 of .957, ahead of BM25 with .930 (+.040, 95 % interval +.010 "
            "to +.070).",
        ),
        (
            estimate(0.04, -0.01, 0.07, n=60),
            "Can't tell from 1,000 questions: at2 has an nDCG@10 of .957, not distinguishable from "
            "BM25 with .930 (+.040, 95 % interval -.010 to +.070).",
        ),
        (
            estimate(0.04, 0.01, 0.07, n=60, clusters=9),
            "Can't tell from 1,000 questions: at2 has an nDCG@10 of .957, not distinguishable from "
            "BM25 with .930 (+.040, without an interval).",
        ),
    ],
)
def test_a_ranking_follows_from_the_interval_that_is_shown(
    difference: Estimate, statement: str
) -> None:
    """NDCG is no share of questions, so the rule of three says nothing about it."""
    verdict = ranking_verdict("?", "an nDCG@10 of", FIGURES, {"bm25": difference}, rivals=["bm25"])
    assert verdict.statement == statement
    assert "rule of three" not in verdict.rule and "Fewer than ten clusters" in verdict.rule


def test_reports_call_everything_by_a_name_for_people() -> None:
    names = {*RANKERS, *DEFAULT_PRUNERS, *MORE_PRUNERS, *HEAD_COUNTS, *KNOWN_SYSTEMS}
    assert set(SYSTEMS) == names
    assert not [name for name in map(shown, names) if "_" in name]
    assert len({shown(name) for name in names}) == len(names)
    assert shown("bm25, top 3, original order") == "BM25, top 3, original order"
    assert in_prose("bm25, top 3, original order") == "BM25 (top 3, original order)"
    assert in_prose("none") == "every chunk" and shown("my-weights") == "my-weights"
    name = adaptive_name(0.05, multi_hop=True)
    assert shown(name) == "at2 without a limit, always multi-hop, max_missed 0.05"


def test_a_terminal_shows_the_verdict_last(capsys: pytest.CaptureFixture[str]) -> None:
    assert not Console().is_terminal
    table = Table("Figures", ["system", "nDCG"], [["at2", ".9"]])
    print_report([table], ["A note."], [("Is it \x1b[31mbetter?", "Yes: by far.")])
    printed = capsys.readouterr().out
    assert printed.splitlines()[-2:] == ["Is it \ufffd[31mbetter?", "Yes: by far."]
    assert printed.index("A note.") < printed.index("Yes")
