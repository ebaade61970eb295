"""The systems that `at2-rag eval ranking` compares, one a file, all of them a `Ranker`."""

from __future__ import annotations

from at2_rag_evals.rankers.base import ItemScores, Ranker
from at2_rag_evals.rankers.registry import SYSTEMS, RankerOptions, make_ranker

__all__ = ["SYSTEMS", "ItemScores", "Ranker", "RankerOptions", "make_ranker"]
