"""From an answer to its metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from at2_rag.data.examples import Example
from at2_rag_evals.qa.generators.base import Answer, Failure
from at2_rag_evals.qa.items import kind_of
from at2_rag_evals.qa.metrics import abstains, answer_contained, exact_match, gold_recall, token_f1
from at2_rag_evals.qa.pruners.base import Pruned

PRIMARY = "accuracy"
METRIC_TITLES: Mapping[str, str] = MappingProxyType(
    {
        PRIMARY: "Accuracy (answer contained)",
        "exact_match": "Exact match",
        "f1": "Token F1",
        "long_form_f1": "Token F1 of long-form answers",
        "abstention": "Abstention on unanswerable items",
        "false_abstention": "Abstention on answerable items",
        "gold_recall": "Gold recall among kept chunks",
    }
)


@dataclass(frozen=True, slots=True)
class Judged:
    """How one item went in one cell.

    Attributes:
        pruned: What was kept.
        context_tokens: Tokens of the kept chunks as one context, by the generator's tokenizer.
        result: The answer, or why there is none.
        metrics: Metric -> value; None if it isn't defined for the item, or there is no answer.
    """

    pruned: Pruned
    context_tokens: int
    result: Answer | Failure
    metrics: Mapping[str, float | None]


def judge(item: Example, pruned: Pruned, context_tokens: int, result: Answer | Failure) -> Judged:
    """Judge an item's answer by the metrics of the item's kind."""
    metrics: dict[str, float | None] = dict.fromkeys(METRIC_TITLES)
    metrics["gold_recall"] = gold_recall(pruned.kept, item.labels)
    if isinstance(result, Answer):
        text, kind = result.text, kind_of(item)
        metrics["abstention" if kind == "unanswerable" else "false_abstention"] = abstains(text)
        if kind == "long_form":
            metrics["long_form_f1"] = token_f1(text, item.answers)
        elif kind == "short":
            metrics[PRIMARY] = answer_contained(text, item.answers)
            metrics["exact_match"] = exact_match(text, item.answers)
            metrics["f1"] = token_f1(text, item.answers)
    return Judged(pruned, context_tokens, result, metrics)
