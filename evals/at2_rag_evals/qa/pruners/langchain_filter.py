"""LangChain's own compressor by embeddings, over the model of `minilm`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from langchain_classic.retrievers.document_compressors import EmbeddingsFilter
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings

from at2_rag.text.chunks import Chunk
from at2_rag_evals.provenance import files_sha256
from at2_rag_evals.rankers.base import ItemScores, readable
from at2_rag_evals.rankers.minilm import MiniLMRanker

_PACKAGES = ("langchain-classic", "langchain-community", "langchain-core")


class MiniLMEmbeddings(Embeddings):
    """The embeddings of `minilm` as LangChain asks for them.

    Args:
        embedder: What embeds; its model must be loaded by then.
    """

    def __init__(self, embedder: MiniLMRanker) -> None:
        self._embedder = embedder

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return one embedding a text."""
        return [list(map(float, row)) for row in self._embedder.embed(texts)]

    def embed_query(self, text: str) -> list[float]:
        """Return the embedding of a question, which is embedded as any text."""
        return self.embed_documents([text])[0]


class LangChainFilterRanker:
    """Ranks the chunks as `EmbeddingsFilter.compress_documents` returns them.

    LangChain, `langchain_classic.retrievers.document_compressors.EmbeddingsFilter`. A chunk is a
    `Document` of title and text. The filter orders documents by cosine and returns the first k of
    that order, so that its order of all of them, asked for once, holds what it keeps at every k;
    scores are places in it, counted from the end, for its ties are in no stated order.

    Args:
        embedder: What embeds.
    """

    name = "langchain_filter"
    workers = 1

    def __init__(self, embedder: MiniLMRanker) -> None:
        self._embedder = embedder
        self.settings: Mapping[str, object] = {
            **embedder.settings,
            **{name: version(name) for name in _PACKAGES},
            "code_sha256": files_sha256(Path(__file__).parent, [Path(__file__).name]),
        }

    def prepare(self) -> None:
        """Load the embedding model.

        Raises:
            ModelNotFoundError: If the folder can't be read as one.
        """
        self._embedder.prepare()

    def score(self, query: str, chunks: Sequence[Chunk]) -> ItemScores:
        """Score each chunk by its place among what the filter returns, the first highest."""
        documents = [
            Document(page_content=readable(chunk.rendered), metadata={"place": place})
            for place, chunk in enumerate(chunks)
        ]
        compressor = EmbeddingsFilter(embeddings=MiniLMEmbeddings(self._embedder), k=len(documents))
        returned = compressor.compress_documents(documents, readable(query))
        scores = {
            document.metadata["place"]: float(len(returned) - rank)
            for rank, document in enumerate(returned)
        }
        return ItemScores(tuple(scores[place] for place in range(len(chunks))))
