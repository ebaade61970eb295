"""Verdicts of evals, from paired differences and their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

from at2_rag.data.bootstrap import FEWEST_CLUSTERS, Estimate
from at2_rag.report.verdict import Verdict
from at2_rag_evals.names import shown
from at2_rag_evals.summary import OURS
from at2_rag_evals.tables import decimal

MARGIN = 0.02
"""Largest loss that counts as none: two points of a share of questions."""

FEW_RULE = "Fewer than ten clusters of questions have no interval."
SHARE_RULE = (
    "Intervals reach at least 3 / clusters to each side of the mean (the rule of three). "
    f"{FEW_RULE}"
)
"""How the intervals of verdicts on shares of questions are made."""

GUARD_NOTE = (
    "A verdict concludes nothing from fewer than ten clusters. Its intervals of shares of "
    "questions, unlike those of the tables, reach at least 3 / clusters to each side of the mean, "
    "since a bootstrap can't draw what never happened: by the rule of three that may still be as "
    "frequent as 3 / n."
)

Effect: TypeAlias = Literal["better", "unharmed", "worse", "unclear"]


def widened(difference: Estimate) -> Estimate:
    """Return a share of questions, or a difference of two, with the interval of a verdict on it.

    It reaches at least 3 / clusters to each side of the mean (J. A. Hanley and A. Lippman-Hand, "If
    Nothing Goes Wrong, Is Everything All Right?", JAMA 249(13), 1983). Not for other figures: the
    rule is one of events that happen or don't.
    """
    if difference.low is None or difference.high is None:
        return difference
    unseen = 3 / difference.clusters
    return replace(
        difference,
        low=min(difference.low, difference.mean - unseen),
        high=max(difference.high, difference.mean + unseen),
    )


def effect(difference: Estimate, *, margin: float = 0.0) -> Effect:
    """Tell what a difference in something that is good shows; one of shares has to be `widened`.

    "unharmed" excludes a loss beyond the margin, "worse" excludes that there is no loss.
    """
    if difference.interval is None:
        return "unclear"
    low, high = difference.interval
    if low > 0:
        return "better"
    if low >= -margin:
        return "unharmed"
    return "worse" if high < 0 else "unclear"


def percent(share: float) -> str:
    """Show a share: "35.7 %"."""
    return f"{100 * share:.1f} %"


def points(difference: Estimate) -> str:
    """Show a difference of shares: "+15.0 points, 95 % interval +11.1 to +19.3"."""
    mean = f"{100 * difference.mean + 0.0:+.1f} points"
    if difference.interval is None:
        return f"{mean}, without an interval"
    low, high = (f"{100 * end:+.1f}" for end in difference.interval)
    return f"{mean}, 95 % interval {low} to {high}"


def doubt(difference: Estimate, *, margin: float = MARGIN) -> str:
    """Say why a `widened` difference shows nothing, and how many questions would show something."""
    if difference.interval is None:
        return f"Nothing is concluded from fewer than {FEWEST_CLUSTERS} independent questions."
    low, _ = difference.interval
    sentence = f"A loss of {percent(-low).replace(' %', ' points')} can't be excluded"
    reach = (difference.mean - low) / (difference.mean + margin) if difference.mean > -margin else 0
    if reach <= 1:
        return f"{sentence}."
    # The interval narrows as the root of the number; the rule of three as the number.
    unseen = math.isclose(difference.mean - low, 3 / difference.clusters)
    needed = difference.n * reach ** (1 if unseen else 2)
    digits = 10 ** max(0, math.floor(math.log10(needed)) - 1)
    enough = math.ceil(needed / digits) * digits
    return (
        f"{sentence}; if the difference stays as it is, about {enough:,} questions like these "
        f"would exclude one of more than {100 * margin:g} points."
    )


def fewer(part: float, whole: float) -> str:
    """Show how much less a number is: "84 % fewer", "3 % more" or "as many"."""
    change = round(100 * (1 - part / whole)) if whole else 0
    if change:
        return f"{abs(change)} % {'fewer' if change > 0 else 'more'}"
    return "as many"


def ranking_verdict(
    question: str,
    metric: str,
    figures: Mapping[str, Estimate],
    differences: Mapping[str, Estimate],
    *,
    rivals: Sequence[str],
    ours: str = OURS,
) -> Verdict:
    """Tell whether our system is better than its rivals by a metric.

    Args:
        question: What is answered.
        metric: What a system has, before its figure: "an nDCG@10 of".
        figures: System -> its mean.
        differences: Other system -> ours minus it, paired.
        rivals: Systems worth being compared with; those that weren't run don't count.
        ours: Our system.
    """
    judged = [name for name in rivals if name in differences]
    if ours not in figures:
        return Verdict(question, "No verdict", (f"{ours} wasn't judged.",))
    if not judged:
        run = " or ".join(rivals[:2])
        reason = f"no alternative was judged beside it; run the eval with --system {run}, too."
        return Verdict(question, "No verdict", (reason,))
    effects = [effect(differences[name]) for name in judged]
    count = figures[ours].n
    answer = "Can't tell"
    if "worse" in effects:
        answer = "No"
    elif set(effects) == {"better"}:
        answer = "Yes"
    words = {"better": "ahead of", "worse": "behind"}
    against = [
        f"{words.get(how, 'not distinguishable from')} {shown(name)} with "
        f"{decimal(figures[name].mean)} ({_difference(differences[name])})"
        for name, how in zip(judged, effects, strict=True)
    ]
    listed = ", ".join(against[:-1]) + " and " * (len(against) > 1) + against[-1]
    mean = decimal(figures[ours].mean)
    reason = f"{ours} has {metric} {mean}, {listed}."
    rule = (
        f"Yes, if {ours} is ahead of every alternative, with a 95 % interval of the paired "
        f"difference that excludes zero; no, if it is behind one of them in this way. {FEW_RULE}"
    )
    if answer == "Can't tell":
        answer += f" from {count:,} questions"
    return Verdict(question, answer, (reason,), rule)


def _difference(difference: Estimate) -> str:
    mean = decimal(difference.mean, "+")
    if difference.interval is None:
        return f"{mean}, without an interval"
    low, high = (decimal(end, "+") for end in difference.interval)
    return f"{mean}, 95 % interval {low} to {high}"
