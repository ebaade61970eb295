"""Prune retrieved documents in Haystack.

    >>> from haystack_integrations.components.rankers.at2_rag import AT2Ranker

`AT2Ranker` goes into a pipeline wherever a ranker does.
"""

from __future__ import annotations

try:
    from haystack_integrations.components.rankers.at2_rag.ranker import AT2Ranker
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "haystack":
        raise
    raise ImportError(
        'AT2Ranker needs haystack-ai, which isn\'t installed; run: pip install "at2-rag[haystack]"'
    ) from error

__all__ = ["AT2Ranker"]
