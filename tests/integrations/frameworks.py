"""One interface to the adapters of every framework, so that the same tests serve them all."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode

from at2_rag import Chunk
from langchain_at2_rag import AT2DocumentCompressor
from llama_index_at2_rag import AT2NodePostprocessor


@dataclass(frozen=True)
class Passage:
    """A retrieved passage, before it becomes a framework's object."""

    text: str
    title: str | None = None
    id: str = "1"
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def all_metadata(self) -> dict[str, Any]:
        metadata = copy.deepcopy(self.metadata)
        return metadata if self.title is None else {**metadata, "title": self.title}

    @property
    def chunk(self) -> Chunk:
        return Chunk(text=self.text, title=self.title)


PASSAGES = [
    Passage(
        text=f"Letter {number} was written by {name} on a stormy night.",
        title=f"Letters of {name}" if number % 3 else None,
        id=f"letter-{number}",
        metadata={"source": {"page": number, "tags": ["letters", name]}},
    )
    for number, name in enumerate(["Ada", "Bela", "Cleo", "Dora", "Ezra", "Finn", "Gus"])
]


class LangChainCompressor:
    def adapter(self, **settings: Any) -> Any:
        return AT2DocumentCompressor(**settings)

    def item(self, passage: Passage) -> Document:
        return Document(id=passage.id, page_content=passage.text, metadata=passage.all_metadata)

    def with_score(self, item: Document, score: float) -> Document:
        return item.model_copy(update={"metadata": {**item.metadata, "score": score}})

    def prune(self, adapter: Any, query: str, items: Sequence[Any]) -> list[Any]:
        return list(adapter.compress_documents(items, query))

    async def aprune(self, adapter: Any, query: str, items: Sequence[Any]) -> list[Any]:
        return list(await adapter.acompress_documents(items, query))

    def id(self, item: Document) -> str | None:
        return item.id

    def metadata(self, item: Document) -> dict[str, Any]:
        return {key: item.metadata[key] for key in item.metadata if key != "relevance_score"}

    def score(self, item: Document) -> float | None:
        return item.metadata.get("relevance_score")

    def text(self, item: Document) -> str:
        return item.page_content


class LangChainRunnable(LangChainCompressor):
    def prune(self, adapter: Any, query: str, items: Sequence[Any]) -> list[Any]:
        return list(adapter.invoke({"query": query, "documents": items}))

    async def aprune(self, adapter: Any, query: str, items: Sequence[Any]) -> list[Any]:
        return list(await adapter.ainvoke({"query": query, "documents": items}))


class LlamaIndexPostprocessor:
    def adapter(self, **settings: Any) -> Any:
        return AT2NodePostprocessor(**settings)

    def item(self, passage: Passage) -> NodeWithScore:
        node = TextNode(
            id_=passage.id,
            text=passage.text,
            metadata=passage.all_metadata,
            excluded_llm_metadata_keys=list(passage.metadata),
        )
        return NodeWithScore(node=node, score=0.5)

    def with_score(self, item: NodeWithScore, score: float) -> NodeWithScore:
        return item.model_copy(update={"score": score})

    def prune(self, adapter: Any, query: str, items: Sequence[Any]) -> list[Any]:
        return list(adapter.postprocess_nodes(items, query_str=query))

    async def aprune(self, adapter: Any, query: str, items: Sequence[Any]) -> list[Any]:
        return list(await adapter.apostprocess_nodes(items, query_str=query))

    def id(self, item: NodeWithScore) -> str | None:
        return item.node.node_id

    def metadata(self, item: NodeWithScore) -> dict[str, Any]:
        return item.node.metadata

    def score(self, item: NodeWithScore) -> float | None:
        return item.score

    def text(self, item: NodeWithScore) -> str:
        return item.node.get_content()


Framework: TypeAlias = LangChainCompressor | LlamaIndexPostprocessor
"""An adapter under test, and how to read its inputs and outputs."""


def snapshots(items: Sequence[Any]) -> list[dict[str, Any]]:
    """All that documents or nodes hold, in copies."""
    return [copy.deepcopy(item.model_dump()) for item in items]


FRAMEWORKS: dict[str, Framework] = {
    "langchain-compressor": LangChainCompressor(),
    "langchain-runnable": LangChainRunnable(),
    "llama-index": LlamaIndexPostprocessor(),
}
