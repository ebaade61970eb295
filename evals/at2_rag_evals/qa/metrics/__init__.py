"""Metrics of one item's answer or of what was kept for it, one a file; each is between 0 and 1."""

from __future__ import annotations

from at2_rag_evals.qa.metrics.abstention import abstains
from at2_rag_evals.qa.metrics.containment import answer_contained
from at2_rag_evals.qa.metrics.exact_match import exact_match
from at2_rag_evals.qa.metrics.gold_recall import gold_recall
from at2_rag_evals.qa.metrics.token_f1 import token_f1

__all__ = ["abstains", "answer_contained", "exact_match", "gold_recall", "token_f1"]
