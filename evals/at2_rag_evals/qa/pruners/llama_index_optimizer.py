"""LlamaIndex's shortening of nodes by sentence embeddings, over the model of `minilm`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.postprocessor import SentenceEmbeddingOptimizer
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from at2_rag.data.examples import Example
from at2_rag.text.chunks import Chunk, replace_surrogates
from at2_rag.text.sentences import sentence_spans
from at2_rag_evals.items import content_hash
from at2_rag_evals.provenance import code_version
from at2_rag_evals.qa.pruners.base import Limit, Pruned
from at2_rag_evals.qa.pruners.ranking import RankingPruner, best_within
from at2_rag_evals.rankers.embedding import EmbeddingRanker
from at2_rag_evals.store import Store, settings_key

PERCENTILE_CUTOFF = 0.5  # share of a chunk's sentences that is kept, rounded down, at least one


class MiniLMEmbedding(BaseEmbedding):
    """The embeddings of `minilm` as LlamaIndex asks for them."""

    _embedder: EmbeddingRanker = PrivateAttr()

    def __init__(self, embedder: EmbeddingRanker) -> None:
        super().__init__(model_name=str(embedder.settings["model"]))
        self._embedder = embedder

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return [list(map(float, row)) for row in self._embedder.embed(texts)]

    def _get_query_embedding(self, query: str) -> list[float]:
        return list(map(float, self._embedder.embed([query], queries=True)[0]))

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return list(map(float, self._embedder.embed([query], queries=True)[0]))


@dataclass(frozen=True, slots=True)
class _TrimmedText:
    text: str  # title and what is left of the chunk's text
    seconds: float


class LlamaIndexPruner:
    """Keeps the best chunks of `minilm`, and of each the half most like the question.

    LlamaIndex, `llama_index.core.postprocessor.SentenceEmbeddingOptimizer`. It orders the sentences
    it keeps by similarity. By default it also adds the neighbours of each, which repeats sentences
    and can make a text longer than it was; here that is switched off. A node is a chunk's text; its
    title isn't shortened and stays above it. Sentences are those of `at2_rag.text.sentences`, since
    LlamaIndex's splitter may download data of NLTK.

    With a number of chunks as budget, only those kept are trimmed; with one of tokens all are, and
    trimmed texts fill it. Scores and texts are stored as they are made.

    Args:
        embedder: What scores and embeds.
        store: The file of stored scores and texts; None to remember them for this run only.
    """

    name = "llama_index_optimizer"
    budgeted = True
    ordered = True

    def __init__(self, embedder: EmbeddingRanker, *, store: Path | None) -> None:
        self._optimizer = SentenceEmbeddingOptimizer(
            embed_model=MiniLMEmbedding(embedder),
            percentile_cutoff=PERCENTILE_CUTOFF,
            tokenizer_fn=_sentences,
            context_before=0,
            context_after=0,
        )
        self.settings: Mapping[str, object] = {
            "ranking": {"name": embedder.name, **embedder.settings},
            **embedder.settings,
            "llama-index-core": version("llama-index-core"),
            "percentile_cutoff": PERCENTILE_CUTOFF,
            "pruner": code_version(Path(__file__).parent),
            "at2-rag": code_version(),  # whose sentences these are
        }
        self._embedder, self._ready = embedder, False
        self._ranking = RankingPruner(embedder, store=store)
        self._store = Store(store, settings_key(self), _TrimmedText)

    def prune(self, item: Example, limit: Limit) -> Pruned:
        """Keep the best chunks within the limit, by the tokens of what is passed on of them."""
        scored = self._ranking.scored(item)
        indices = tuple(range(len(item.chunks)))
        if limit.budget.max_tokens is None:
            indices = best_within(limit, scored.scores, [chunk.rendered for chunk in item.chunks])
        trimmed = self._trimmed(item, indices)
        start = time.perf_counter()
        texts = {index: left.text for index, left in trimmed.items()}
        kept = best_within(limit, scored.scores, texts)
        seconds = scored.seconds + sum(left.seconds for left in trimmed.values())
        seconds += time.perf_counter() - start
        return Pruned(kept, seconds, tuple(texts[index] for index in kept))

    def _trimmed(self, item: Example, indices: Sequence[int]) -> dict[int, _TrimmedText]:
        """Return what is left of the chunks at these indices, by index."""
        keys = {index: content_hash(item.query, (item.chunks[index],)) for index in indices}
        missing = {key: index for index, key in keys.items() if key not in self._store}
        if missing:
            if not self._ready:
                self._embedder.prepare()
                self._ready = True
            start = time.perf_counter()
            texts = self._trim(item.query, [item.chunks[index] for index in missing.values()])
            seconds = (time.perf_counter() - start) / len(missing)
            for key, text in zip(missing, texts, strict=True):
                self._store[key] = _TrimmedText(text, seconds)
        return {index: self._store[key] for index, key in keys.items()}

    def _trim(self, query: str, chunks: Sequence[Chunk]) -> list[str]:
        """Return each chunk's title and what the optimizer leaves of its text."""
        nodes = [
            NodeWithScore(node=TextNode(text=replace_surrogates(chunk.text))) for chunk in chunks
        ]
        left = self._optimizer.postprocess_nodes(nodes, QueryBundle(replace_surrogates(query)))
        return [
            replace(chunk, text=shortened.node.get_content()).rendered
            for chunk, shortened in zip(chunks, left, strict=True)
        ]


def _sentences(text: str) -> list[str]:
    """Split a text; one without a sentence, which the optimizer can't take, stays whole."""
    return [text[start:end] for start, end in sentence_spans(text)] or [text]
