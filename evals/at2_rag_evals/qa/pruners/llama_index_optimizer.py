"""LlamaIndex's own shortening of nodes by sentence embeddings, over the model of `minilm`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.postprocessor import SentenceEmbeddingOptimizer
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

import at2_rag
from at2_rag.text.chunks import Chunk, replace_surrogates
from at2_rag.text.sentences import sentence_spans
from at2_rag_evals.provenance import files_sha256
from at2_rag_evals.rankers.minilm import MiniLMRanker

PERCENTILE_CUTOFF = 0.5
"""Share of a chunk's sentences that is kept, rounded down, but one at least."""


class MiniLMEmbedding(BaseEmbedding):
    """The embeddings of `minilm` as LlamaIndex asks for them.

    Args:
        embedder: What embeds; its model must be loaded by then.
    """

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

    LlamaIndex, `llama_index.core.postprocessor.SentenceEmbeddingOptimizer`. It puts the sentences
    it keeps in the order of their similarity. By default it also puts a sentence's neighbours to
    each of them, which repeats sentences and can make a text longer than it was; here it is told to
    leave that. A node is a chunk's text; its title isn't shortened and stays above it. Sentences
    are those of `at2_rag.text.sentences`: LlamaIndex's own splitter fetches data of NLTK's where
    none is found.

    Args:
        embedder: What embeds.
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
            "code_sha256": files_sha256(Path(__file__).parent, [Path(__file__).name]),
            "sentences_sha256": files_sha256(Path(at2_rag.__file__).parent, ["text/sentences.py"]),
        }

    def prepare(self) -> None:
        """Load the embedding model.

        Raises:
            ModelNotFoundError: If the folder can't be read as one.
        """
        self._embedder.prepare()

    def trim(self, query: str, chunks: Sequence[Chunk]) -> list[str]:
        """Return each chunk's title and what the optimizer leaves of its text."""
        nodes = [
            NodeWithScore(node=TextNode(text=replace_surrogates(chunk.text))) for chunk in chunks
        ]
        left = self._optimizer.postprocess_nodes(nodes, QueryBundle(replace_surrogates(query)))
        return [
            replace(chunk, text=own.node.get_content()).rendered
            for chunk, own in zip(chunks, left, strict=True)
        ]


def _sentences(text: str) -> list[str]:
    """Split a text; one without a sentence, of which the optimizer takes none, is its own."""
    return [text[start:end] for start, end in sentence_spans(text)] or [text]
