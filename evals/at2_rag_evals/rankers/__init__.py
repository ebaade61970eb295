"""The systems that `at2-rag eval ranking` compares, one a file, all of them a `Ranker`.

Importing this loads none of them, nor what they need.
"""

from __future__ import annotations

from at2_rag_evals.rankers.base import ItemScores, Ranker
from at2_rag_evals.rankers.registry import RANKERS, RankerOptions, make_ranker

__all__ = ["RANKERS", "ItemScores", "Ranker", "RankerOptions", "make_ranker"]
