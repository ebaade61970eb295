"""What the QA report says first, of figures made by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from at2_rag.data.bootstrap import Estimate
from at2_rag.report.verdict import Verdict
from at2_rag_evals.qa.chosen import Choice
from at2_rag_evals.qa.gold_position import PositionSummary
from at2_rag_evals.qa.run import CellName
from at2_rag_evals.qa.summary import CellTotals, GeneratorSummary
from at2_rag_evals.qa.verdict import position_verdict, qa_verdict

BASELINES = frozenset({"none", "closed_book", "oracle", "random_k", "bm25", "first_k"})
AT2_1, AT2_3 = CellName("at2", "top 1", "score"), CellName("at2", "top 3", "score")
BM25, NONE = CellName("bm25", "top 1", "score"), CellName("none")

Row = tuple[CellName, float, tuple[float, float], float]
"""A cell, its accuracy, the interval of that minus every chunk's, and the tokens of its prompts."""


def estimate(mean: float, low: float | None, high: float | None, n: int) -> Estimate:
    return Estimate(mean, low, high, n, n)


def totals(tokens: float) -> CellTotals:
    return CellTotals(tokens, tokens, 5, 0.5, None, None, tokens / 1000, 0, 0, 0, None, None, None)


def summary(
    rows: Sequence[Row], *, baseline: float | None = 0.4, whole: float = 1000, n: int = 500
) -> GeneratorSummary:
    """Return figures of cells beside every chunk; those between cells are within 5 points."""
    accuracy = {cell.label: mean for cell, mean, *_ in rows}
    cells = [cell for cell, *_ in rows]
    if baseline is not None:
        accuracy, cells = {"none": baseline, **accuracy}, [NONE, *cells]
    minus: dict[str, dict[str, Estimate]] = {
        ours.label: {
            other.label: estimate(
                difference := accuracy[ours.label] - accuracy[other.label],
                difference - 0.05,
                difference + 0.05,
                n,
            )
            for other in cells
            if other != ours
        }
        for ours in cells
        if ours.pruner not in BASELINES
    }
    if baseline is not None:
        minus["none"] = {
            cell.label: estimate(baseline - mean, -high, -low, n)
            for cell, mean, (low, high), _ in rows
        }
    tokens = {"none": whole, **{cell.label: size for cell, _, _, size in rows}}
    macro = {label: estimate(mean, mean - 0.04, mean + 0.04, n) for label, mean in accuracy.items()}
    return GeneratorSummary(
        name="g",
        cells=tuple(cells),
        by_source={"accuracy": {"macro": macro} if accuracy else {}},
        differences={ours: {"macro": others} for ours, others in minus.items()},
        equal_tokens={},
        mixtures={},
        by_position={},
        by_distractors={},
        context_tokens={"macro": {label: tokens[label] for label in accuracy}},
        totals={cell.label: totals(tokens[cell.label]) for cell in cells},
        unanswered={},
    )


def verdict(rows: Sequence[Row], **options: float | None) -> Verdict:
    return qa_verdict(summary(rows, **options), baselines=BASELINES)  # type: ignore[arg-type]


def test_more_right_answers_from_fewer_tokens() -> None:
    result = verdict([(AT2_1, 0.55, (0.11, 0.19), 160), (BM25, 0.52, (0.08, 0.16), 150)])
    assert result.question == "Does pruning help g?"
    assert result.statement == (
        "Yes: with at2 (top 1), 55.0 % of the answers are right instead of 40.0 % with every chunk "
        "(+15.0 points, 95 % interval +11.0 to +19.0), with 84 % fewer prompt tokens. It is not "
        "distinguishable from the best alternative, BM25 (top 1): +3.0 points, 95 % interval -2.0 "
        "to +8.0."
    )
    assert result.setting == "at2, top 1"
    assert [figure for figure, _ in result.figures] == ["55.0 %", "160", "0.66 s"]
    assert "picked from 2 on the questions that it is judged on; --chosen-on" in result.rule


def test_as_many_right_answers_from_fewer_tokens() -> None:
    result = verdict([(AT2_3, 0.404, (-0.009, 0.017), 290)])
    assert result.statement == (
        "Yes: pruning with at2 (top 3) does no harm: 40.4 % of the answers are right instead of "
        "40.0 % with every chunk (+0.4 points, 95 % interval -0.9 to +1.7), with 71 % fewer prompt "
        "tokens."
    )
    assert "picked from" not in result.rule  # one setting
    result = verdict([(AT2_3, 0.392, (-0.018, 0.002), 290)])
    assert result.statement.startswith("Yes: pruning with at2 (top 3) costs less than 2 points: ")


def test_fewer_right_answers() -> None:
    one = verdict([(AT2_1, 0.3, (-0.15, -0.05), 160)])
    assert one.statement.startswith("No: at2 (top 1) loses answers: 30.0 % of the answers")
    assert one.setting is None
    two = verdict([(AT2_1, 0.3, (-0.15, -0.05), 160), (AT2_3, 0.35, (-0.09, -0.01), 300)])
    assert two.statement.startswith(
        "No: every setting that was tried loses answers, at2 (top 3) the fewest: 35.0 %"
    )


def test_settings_lose_answers_only_where_all_do() -> None:
    lossy: Row = (AT2_1, 0.385, (-0.028, -0.002), 160)
    harmless: Row = (AT2_3, 0.384, (-0.018, -0.014), 1000)  # but saves nothing
    result = verdict([lossy, harmless], n=5000)
    assert result.statement.startswith("No: nothing is gained. With at2 (top 3), 38.4 % of the")


def test_the_interval_that_decides_is_the_one_that_is_shown() -> None:
    # 3 / 60 = 5 points on each side of the mean.
    result = verdict([(AT2_1, 0.44, (0.01, 0.07), 160)], n=60)
    assert result.statement.startswith("Yes: pruning with at2 (top 1) does no harm: ")
    assert "(+4.0 points, 95 % interval -1.0 to +9.0)" in result.statement
    assert "3 / clusters to each side of the mean (the rule of three)" in result.rule
    # 3 / 40 = 7.5 points, more than the 5 of a difference between two cells.
    result = verdict([(AT2_1, 0.6, (0.15, 0.25), 160), (BM25, 0.53, (0.1, 0.16), 150)], n=40)
    assert result.reasons[1] == (
        "It is not distinguishable from the best alternative, BM25 (top 1): +7.0 points, 95 % "
        "interval -0.5 to +14.5."
    )
    # 3 / 54 = 5.6 points: a loss without any chunk isn't excluded.
    closed: Row = (CellName("closed_book"), 0.4, (0.0, 0.0), 50)
    assert not verdict([closed, (AT2_1, 0.6, (0.15, 0.25), 160)], n=54).reasons[1:]


def test_as_many_right_answers_from_as_many_tokens_are_no_help() -> None:
    result = verdict([(AT2_3, 0.4, (-0.01, 0.01), 1000)])
    assert result.statement.startswith("No: nothing is gained. With at2 (top 3), 40.0 %")
    assert "with as many prompt tokens" in result.statement and result.setting is None


def test_too_few_questions_tell_nothing() -> None:
    result = verdict([(AT2_1, 0.45, (-0.06, 0.16), 160)], n=72)
    assert result.statement.startswith(
        "Can't tell from 72 questions: with at2 (top 1), 45.0 % of the answers are right instead "
        "of 40.0 % with every chunk (+5.0 points, 95 % interval -6.0 to +16.0), with 84 % fewer "
        "prompt tokens. A loss of 6.0 points can't be excluded; "
    )
    assert result.setting is None
    same = verdict([(AT2_1, 0.4, (0.0, 0.0), 160)], n=54)  # no answer changed
    assert "A loss of 5.6 points can't be excluded" in same.statement
    handful = verdict([(AT2_1, 1.0, (0.6, 0.6), 160)], n=5)
    assert handful.answer == "Can't tell from 5 questions"
    assert "fewer than 10 independent questions" in handful.statement


def test_the_cheapest_of_the_best_is_recommended() -> None:
    rows: list[Row] = [
        (CellName("first_k", "top 1"), 0.41, (-0.01, 0.03), 100),  # cheap, but 5 points below
        (AT2_1, 0.45, (0.01, 0.09), 160),
        (AT2_3, 0.46, (0.02, 0.1), 300),
        (CellName("at2_adaptive"), 0.47, (-0.03, 0.17), 120),  # may lose answers
    ]
    assert verdict(rows).setting == "at2, top 1"
    theirs = verdict([*rows, (BM25, 0.455, (0.01, 0.1), 150)])
    assert theirs.setting == "bm25, top 1"
    assert theirs.reasons[1] == (
        "at2's best setting, at2 without a limit, is not distinguishable from it: +1.5 points, "
        "95 % interval -3.5 to +6.5."
    )


@pytest.mark.parametrize("pruner", ["oracle", "random_k", "closed_book"])
def test_what_nobody_would_use_is_not_recommended(pruner: str) -> None:
    control: Row = (CellName(pruner), 0.9, (0.45, 0.55), 100)
    assert verdict([control]).statement == "No verdict: no pruner was run that anyone would use."
    assert verdict([control, (AT2_1, 0.45, (0.01, 0.09), 160)]).setting == "at2, top 1"


def test_answers_without_chunks_put_the_questions_in_doubt() -> None:
    closed: Row = (CellName("closed_book"), 0.4, (-0.01, 0.01), 50)
    result = verdict([closed, (AT2_1, 0.45, (0.01, 0.09), 160)])
    assert result.answer == "Yes"
    assert result.reasons[-1].startswith("But g does as well without any chunk")
    closed = (CellName("closed_book"), 0.2, (-0.25, -0.15), 50)
    assert not verdict([closed, (AT2_1, 0.45, (0.01, 0.09), 160)]).reasons[1:]


def test_without_every_chunk_or_short_answers_there_is_no_verdict() -> None:
    rows: list[Row] = [(AT2_1, 0.45, (0.01, 0.09), 160), (BM25, 0.5, (0.01, 0.09), 160)]
    assert verdict(rows, baseline=None).statement == (
        "No verdict: answers from every chunk are missing, so there is nothing to compare with; "
        "run the eval with --pruner none, too. Of what was run, BM25 (top 1) has the most right "
        "answers (50.0 %)."
    )
    figures = summary(rows)
    nothing = GeneratorSummary(
        **{name: getattr(figures, name) for name in figures.__slots__}
        | {"by_source": {"accuracy": {}}, "differences": {}}
    )
    result = qa_verdict(nothing, baselines=BASELINES)
    assert result.answer == "No verdict" and "no question with a short answer" in result.statement


def test_a_setting_chosen_before_is_the_only_one_considered() -> None:
    figures = summary([(AT2_1, 0.55, (0.11, 0.19), 160), (AT2_3, 0.42, (-0.04, 0.08), 300)])
    chosen = [Choice("g", AT2_3, figures.macro("accuracy")["at2, top 3"])]
    options = {"baselines": BASELINES, "choices": chosen, "chosen_on": Path("train-qa")}
    result = qa_verdict(figures, **options)  # type: ignore[arg-type]
    assert result.answer == "Can't tell from 500 questions"
    assert "with at2 (top 3), 42.0 %" in result.statement
    considered = "Only settings chosen on train-qa, and those without a budget, are considered."
    assert result.rule.endswith(considered)
    other = qa_verdict(
        figures, baselines=BASELINES, choices=[Choice("h", AT2_3, chosen[0].accuracy)]
    )
    assert other.setting == "at2, top 1"


def test_settings_without_a_budget_are_considered_beside_those_chosen_before() -> None:
    random, adaptive = CellName("random_k", "top 1", "score"), CellName("at2_adaptive")
    control: Row = (random, 0.3, (-0.15, -0.05), 160)
    rows: list[Row] = [control, (adaptive, 0.55, (0.11, 0.19), 300), (AT2_1, 0.6, (0.1, 0.3), 160)]
    chosen = [Choice("g", random, estimate(0.3, 0.2, 0.4, 99))]
    options = {"baselines": BASELINES, "choices": chosen, "chosen_on": Path("train-qa")}
    result = qa_verdict(summary(rows), **options)  # type: ignore[arg-type]
    assert result.answer == "Yes" and result.setting == "at2_adaptive"
    chosen.append(Choice("g", AT2_1, estimate(0.6, 0.5, 0.7, 99)))
    result = qa_verdict(summary(rows), **options)  # type: ignore[arg-type]
    assert result.setting == "at2, top 1"
    assert result.rule.endswith("picked from 2 on the questions that it is judged on.")
    del chosen[1]
    result = qa_verdict(summary([control, rows[2]]), **options)  # type: ignore[arg-type]
    assert result.statement == (
        "No verdict: no budget of a pruner that anyone would use was chosen on train-qa; run the "
        "same pruners there, too."
    )


def positions(minus_first: Mapping[str, Mapping[str, Estimate]]) -> PositionSummary:
    return PositionSummary("g", {"macro": {}}, {"macro": minus_first})


def test_the_position_of_the_gold_chunk_matters_if_a_difference_excludes_zero() -> None:
    small, large = estimate(-0.1, -0.25, 0.05, 40), estimate(-0.3, -0.6, 0.0, 40)
    result = position_verdict(positions({"middle": {"none": large, "at2, top 1": small}}))
    assert result.statement == (
        "Can't tell from 40 questions: with every chunk, moving the gold chunk from the beginning "
        "to the middle changes the share of right answers by -30.0 points, 95 % interval -60.0 to "
        "+0.0, the largest difference, which may be chance."
    )
    clear = estimate(0.2, 0.1, 0.3, 40)
    cells = {"middle": {"none": large}, "three-quarter": {"at2, top 1": clear}}
    assert position_verdict(positions(cells)).statement == (
        "Yes: with at2 (top 1), moving the gold chunk from the beginning to three quarters of the "
        "way down changes the share of right answers by +20.0 points, 95 % interval +10.0 to "
        "+30.0, the largest significant difference."
    )
    # 3 / 40 = 7.5 points on each side of the mean.
    result = position_verdict(positions({"last": {"none": estimate(0.05, 0.02, 0.08, 40)}}))
    assert result.answer == "Can't tell from 40 questions"
    assert "+5.0 points, 95 % interval -2.5 to +12.5" in result.statement
    assert "rule of three" in result.rule


def test_without_short_answers_the_position_has_no_verdict() -> None:
    result = position_verdict(PositionSummary("g", {}, {}))
    assert result.answer == "No verdict" and "no question with a short answer" in result.statement
