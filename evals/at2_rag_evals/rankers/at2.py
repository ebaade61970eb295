"""at2_rag itself: attention of the question's tokens, weighted by head, in several forms."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import torch

import at2_rag
from at2_rag.files import without_folder
from at2_rag.model.hub import DEFAULT_MODEL
from at2_rag.pruner import AT2Pruner
from at2_rag.reading.features import Reading
from at2_rag.readout.files import DESCRIPTION_FILE, WEIGHTS_FILE
from at2_rag.readout.head_weights import UNIFORM
from at2_rag.readout.shipped import load_head_weights, named_or_folder
from at2_rag.states.store import ChunkCache
from at2_rag.text.chunks import Chunk, Prior
from at2_rag_evals.model_record import model_record
from at2_rag_evals.provenance import files_sha256
from at2_rag_evals.rankers.base import ItemScores, Ranker
from at2_rag_evals.rankers.embedding import EmbeddingRanker

_MOST_CACHE_BYTES = 8 * 2**30


class AT2Ranker(Ranker):
    """The score of `AT2Pruner`, by default as it comes out of the box.

    Args:
        model: A known name, a folder or a hub id; None for the default model.
        name: What the report calls the form.
        head_weights: A folder, the name of shipped ones, or "uniform"; None for those shipped for
            the model.
        reading: The reading mode; None for that of the head weights.
        prior: The prior that MiniLM gives the pruner, as a retriever would: "score" for its ranks,
            "cosine" for its cosines; None for none.
        multi_hop: Whether the pruner asks again beside the best chunk.
        embedding_model: As of `EmbeddingRanker`; used with a prior alone.
        remember: Whether what is read of chunks is kept for other items that have the same ones.

    Attributes:
        scores_are_logits: Whether the softmax over an item's scores is what `top_p` adds up.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        name: str = "at2",
        head_weights: str | None = None,
        reading: Reading | None = None,
        prior: Prior | None = None,
        multi_hop: bool = False,
        embedding_model: str | None = None,
        remember: bool = True,
    ) -> None:
        self.name = name
        self.scores_are_logits = _scores_are_logits(head_weights)
        self._model, self._reading, self._head_weights = model, reading, head_weights
        self._remember = remember
        self._prior, self._multi_hop = prior, multi_hop
        self._retriever = EmbeddingRanker(embedding_model, remember=remember) if prior else None
        self.workers = 1 if prior else os.cpu_count() or 1
        self.settings = {
            **model_record(model),
            **head_weights_record(head_weights),
            "reading": reading,
            "prior": prior,
            "multi_hop": multi_hop,
            "minilm": self._retriever.settings if self._retriever else None,
        }

    def prepare(self) -> None:
        """Load the scoring model, its head weights and, for a prior, MiniLM."""
        if self._retriever:
            self._retriever.prepare()
        torch.set_num_threads(1)  # many items at a time read faster than many threads an item
        chunk_cache = shared_cache() if self._remember else ChunkCache(max_memory_bytes=0)
        self._pruner = load_pruner(
            self._model, self._head_weights, reading=self._reading, chunk_cache=chunk_cache
        )

    def score(self, query: str, chunks: Sequence[Chunk]) -> ItemScores:
        """Score the chunks with the pruner."""
        if self._retriever is None and not self._multi_hop:
            return ItemScores(tuple(chunk.score for chunk in self._pruner.score(query, chunks)))
        if self._retriever is not None:
            cosines = self._retriever.score(query, chunks).scores
            chunks = [
                replace(chunk, retrieval_score=cosine)
                for chunk, cosine in zip(chunks, cosines, strict=True)
            ]
        result = self._pruner.prune(  # drops none
            query,
            chunks,
            top_k=len(chunks),
            max_overlap=None,
            prior=self._prior,
            multi_hop=self._multi_hop or None,
        )
        scores = {chunk.index: chunk.score for chunk in (*result.kept, *result.dropped)}
        return ItemScores(tuple(scores[index] for index in range(len(chunks))))

    def score_sentences(self, query: str, chunks: Sequence[Chunk]) -> ItemScores:
        """Score the sentences of the chunks within their chunks, one score for each sentence."""
        sentences = self._pruner.score_sentences(query, chunks)
        return ItemScores(tuple(sentence.score for sentence in sentences))


def load_pruner(model: str | None, head_weights: str | None, **settings: Any) -> AT2Pruner:
    """Load a pruner; model and head weights as of `AT2Ranker`, `settings` as of `AT2Pruner`."""
    weights = named_or_folder(head_weights)
    return AT2Pruner.from_pretrained(model or DEFAULT_MODEL, head_weights=weights, **settings)


@cache
def shared_cache() -> ChunkCache:
    """Return the one cache of chunk states that all systems of the process share.

    Items of a data set share chunks, and a padded set is made of the same chunks again.
    """
    return ChunkCache(
        max_memory_bytes=min(psutil.virtual_memory().available // 2, _MOST_CACHE_BYTES)
    )


def head_weights_record(head_weights: str | None) -> dict[str, object]:
    """Return name and hash of head weights, as JSON-ready values; argument as of `AT2Ranker`."""
    return {
        "head_weights": "shipped" if head_weights is None else without_folder(head_weights),
        "head_weights_sha256": _weights_sha256(head_weights),
    }


def _scores_are_logits(head_weights: str | None) -> bool:
    if head_weights is None:  # shipped ones, which are fitted
        return True
    if head_weights == UNIFORM:
        return False
    return load_head_weights(named_or_folder(head_weights)).score_scale == "logit"


def _weights_sha256(head_weights: str | None) -> str | None:
    if head_weights == UNIFORM:
        return None
    spec = None if head_weights is None else named_or_folder(head_weights)
    folder = spec if isinstance(spec, Path) else Path(at2_rag.__file__).parent / "weights"
    try:
        return files_sha256(folder, [f"**/{WEIGHTS_FILE}", f"**/{DESCRIPTION_FILE}"])
    except FileNotFoundError:
        return None
