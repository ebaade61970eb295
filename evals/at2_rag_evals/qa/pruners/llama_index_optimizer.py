"""LlamaIndex's shortening of nodes by sentence embeddings, over the model of `minilm`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.postprocessor import SentenceEmbeddingOptimizer
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from at2_rag.text.chunks import Chunk, replace_surrogates
from at2_rag.text.sentences import sentence_spans
from at2_rag_evals.provenance import code_version
from at2_rag_evals.rankers.minilm import MiniLMRanker

PERCENTILE_CUTOFF = 0.5  # share of a chunk's sentences that is kept, rounded down, at least one


class MiniLMEmbedding(BaseEmbedding):
    """The embeddings of `minilm` as LlamaIndex asks for them."""

    _embedder: MiniLMRanker = PrivateAttr()

    def __init__(self, embedder: MiniLMRanker) -> None:
        super().__init__(model_name=str(embedder.settings["model"]))
        self._embedder = embedder

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return [list(map(float, row)) for row in self._embedder.embed(texts)]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


class LlamaIndexOptimizer:
    """Keeps the half of each chunk's sentences that is most like the question.

    LlamaIndex, `llama_index.core.postprocessor.SentenceEmbeddingOptimizer`. It orders the sentences
    it keeps by similarity. By default it also adds the neighbours of each, which repeats sentences
    and can make a text longer than it was; here that is switched off. A node is a chunk's text; its
    title isn't shortened and stays above it. Sentences are those of `at2_rag.text.sentences`, since
    LlamaIndex's splitter may download data of NLTK.
    """

    name = "llama_index_optimizer"

    def __init__(self, embedder: MiniLMRanker) -> None:
        self._embedder = embedder
        self._optimizer = SentenceEmbeddingOptimizer(
            embed_model=MiniLMEmbedding(embedder),
            percentile_cutoff=PERCENTILE_CUTOFF,
            tokenizer_fn=_sentences,
            context_before=0,
            context_after=0,
        )
        self.settings: Mapping[str, object] = {
            **embedder.settings,
            "llama-index-core": version("llama-index-core"),
            "percentile_cutoff": PERCENTILE_CUTOFF,
            "pruner": code_version(Path(__file__).parent),
            "at2-rag": code_version(),  # whose sentences these are
        }

    def prepare(self) -> None:
        """Load the embedding model."""
        self._embedder.prepare()

    def trim(self, query: str, chunks: Sequence[Chunk]) -> list[str]:
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
