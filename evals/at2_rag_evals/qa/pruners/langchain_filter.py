"""LangChain's compressor by embeddings, over the model of `minilm`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from langchain_classic.retrievers.document_compressors import EmbeddingsFilter
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings

from at2_rag.text.chunks import Chunk
from at2_rag_evals.provenance import code_version
from at2_rag_evals.rankers.base import ItemScores, Ranker, readable
from at2_rag_evals.rankers.embedding import EmbeddingRanker

_PACKAGES = ("langchain-classic", "langchain-community", "langchain-core")


class MiniLMEmbeddings(Embeddings):
    """The embeddings of `minilm` as LangChain asks for them."""

    def __init__(self, embedder: EmbeddingRanker) -> None:
        self._embedder = embedder

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return one embedding a text."""
        return [list(map(float, row)) for row in self._embedder.embed(texts)]

    def embed_query(self, text: str) -> list[float]:
        """Return the embedding of a question."""
        return list(map(float, self._embedder.embed([text], queries=True)[0]))


class LangChainFilterRanker(Ranker):
    """Ranks the chunks as `EmbeddingsFilter.compress_documents` returns them.

    LangChain, `langchain_classic.retrievers.document_compressors.EmbeddingsFilter`. A chunk is a
    `Document` of title and text. The filter orders documents by cosine and returns the first k, so
    that its order of all documents says what it keeps at every k. Scores are ranks in that order,
    counted from the end, since the filter's order of ties is unspecified.
    """

    name = "langchain_filter"

    def __init__(self, embedder: EmbeddingRanker) -> None:
        self._embedder = embedder
        self.settings = {
            **embedder.settings,
            **{name: version(name) for name in _PACKAGES},
            "pruner": code_version(Path(__file__).parent),
        }

    def prepare(self) -> None:
        """Load the embedding model."""
        self._embedder.prepare()

    def score(self, query: str, chunks: Sequence[Chunk]) -> ItemScores:
        """Score the first that the filter returns highest."""
        documents = [
            Document(page_content=readable(chunk.rendered), metadata={"index": index})
            for index, chunk in enumerate(chunks)
        ]
        compressor = EmbeddingsFilter(embeddings=MiniLMEmbeddings(self._embedder), k=len(documents))
        returned = compressor.compress_documents(documents, readable(query))
        ranks = {document.metadata["index"]: rank for rank, document in enumerate(returned)}
        return ItemScores(tuple(float(len(chunks) - ranks[n]) for n in range(len(chunks))))
