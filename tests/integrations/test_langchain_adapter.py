"""The LangChain adapter inside LangChain's own retrievers, pipelines and chains."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableParallel, RunnablePassthrough
from langchain_text_splitters import CharacterTextSplitter

from at2_rag import AT2Pruner, Chunk
from langchain_at2_rag import AT2DocumentCompressor, pruning_runnable

QUERY = "What did the captain see?"
DOCUMENTS = [
    Document(
        id=f"log-{n}",
        page_content=f"Log {n}: the captain saw {thing}.\n\nThen night fell over {n} ships.",
        metadata={"title": f"Log {n}", "page": n},
    )
    for n, thing in enumerate(["a whale", "land", "a comet", "two sails", "ice"])
]


class ListRetriever(BaseRetriever):
    """Finds every document, in order."""

    documents: list[Document]

    def _get_relevant_documents(self, query: str, **_: Any) -> list[Document]:
        return self.documents


@pytest.fixture
def retriever() -> ListRetriever:
    return ListRetriever(documents=DOCUMENTS)


@pytest.fixture
def expected(pruner: AT2Pruner) -> list[str | None]:
    chunks = [Chunk(d.page_content, title=d.metadata["title"]) for d in DOCUMENTS]
    return [DOCUMENTS[kept.index].id for kept in pruner.prune(QUERY, chunks, top_k=2).kept]


def ids(documents: Any) -> list[str | None]:
    return [document.id for document in documents]


async def test_in_a_contextual_compression_retriever(
    pruner: AT2Pruner, retriever: ListRetriever, expected: list[str | None]
) -> None:
    compression = ContextualCompressionRetriever(
        base_compressor=AT2DocumentCompressor(pruner=pruner, top_n=2), base_retriever=retriever
    )
    assert ids(compression.invoke(QUERY)) == expected
    assert ids(await compression.ainvoke(QUERY)) == expected


async def test_in_a_document_compressor_pipeline(pruner: AT2Pruner) -> None:
    splitter = CharacterTextSplitter(separator="\n\n", chunk_size=50, chunk_overlap=0)
    pipeline = DocumentCompressorPipeline(
        transformers=[splitter, AT2DocumentCompressor(pruner=pruner, top_n=4)]
    )
    kept = pipeline.compress_documents(DOCUMENTS, QUERY)
    assert len(kept) == 4
    assert all(document.metadata["page"] in range(5) for document in kept)
    akept = await pipeline.acompress_documents(DOCUMENTS, QUERY)
    assert akept == kept


async def test_in_a_chain(
    pruner: AT2Pruner, retriever: ListRetriever, expected: list[str | None]
) -> None:
    chain = RunnableParallel(query=RunnablePassthrough(), documents=retriever) | pruning_runnable(
        pruner, top_n=2
    )
    assert ids(chain.invoke(QUERY)) == expected
    assert ids(await chain.ainvoke(QUERY)) == expected
    assert [ids(kept) for kept in chain.batch([QUERY, QUERY])] == [expected, expected]
    assert [ids(kept) for kept in chain.stream(QUERY)] == [expected]


def test_the_step_shows_up_in_traces_under_its_name(
    pruner: AT2Pruner, retriever: ListRetriever
) -> None:
    class Names(BaseCallbackHandler):
        started: list[str | None] = []

        def on_chain_start(self, *_: Any, name: str | None = None, **__: Any) -> None:
            self.started.append(name)

    step = pruning_runnable(pruner)
    step.invoke({"query": QUERY, "documents": DOCUMENTS}, {"callbacks": [Names()]})
    assert Names.started == ["at2_pruning"]


@pytest.mark.parametrize("inputs", [{"question": QUERY}, {"query": QUERY}])
def test_a_chain_with_other_keys_is_refused(pruner: AT2Pruner, inputs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="has no .*'documents'.*RunnableParallel"):
        pruning_runnable(pruner).invoke(inputs)


def test_a_title_may_live_under_another_key(pruner: AT2Pruner) -> None:
    document = Document(page_content="He was born.", metadata={"heading": "Ada", "title": "No"})
    text = "He was born."

    def score(title_key: str | None) -> float:
        compressor = AT2DocumentCompressor(pruner=pruner, title_key=title_key)
        [kept] = compressor.compress_documents([document], QUERY)
        return float(kept.metadata["relevance_score"])

    def direct(title: str | None) -> float:
        return pruner.score(QUERY, [Chunk(text, title=title)])[0].score

    assert score("heading") == pytest.approx(direct("Ada"))
    assert score("title") == pytest.approx(direct("No"))
    assert score(None) == pytest.approx(direct(None))
    document.metadata["title"] = 7
    assert score("title") == pytest.approx(direct(None)), "no text"


class Page(Document):
    """A document with one field more."""

    number: int = 0


def test_nested_metadata_and_subclasses_stay_as_they_are(pruner: AT2Pruner) -> None:
    lock = object()
    metadata = {"nested": {"tags": ["a"]}, "handle": lock}
    document = Page(page_content="Ice.", metadata=metadata, number=4)
    [kept] = AT2DocumentCompressor(pruner=pruner).compress_documents([document], QUERY)
    assert isinstance(kept, Page) and kept.number == 4
    assert kept.metadata["handle"] is lock
    assert document.metadata == {"nested": {"tags": ["a"]}, "handle": lock}


def test_settings_survive_dump_and_pickle(pruner: AT2Pruner) -> None:
    compressor = AT2DocumentCompressor(max_tokens=500, order="original", title_key="heading")
    assert AT2DocumentCompressor(**compressor.model_dump()) == compressor
    assert AT2DocumentCompressor.model_validate_json(compressor.model_dump_json()) == compressor
    assert pickle.loads(pickle.dumps(compressor)) == compressor
    assert "pruner" not in AT2DocumentCompressor(pruner=pruner).model_dump()
