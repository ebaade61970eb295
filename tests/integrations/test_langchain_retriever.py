"""The retriever in LangChain's own suite, and what it asks of the retriever it is made of."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.load import dumpd, load
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import ConfigurableField
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import RetrieversIntegrationTests

from at2_rag import AT2Pruner, Chunk
from langchain_at2_rag import AT2Retriever
from tests.integrations.test_langchain_adapter import DOCUMENTS, QUERY, Handler, ids


class FirstK(BaseRetriever):
    """Returns the first k documents."""

    documents: list[Document] = DOCUMENTS
    k: int = 4

    def _get_relevant_documents(self, query: str, **_: Any) -> list[Document]:
        return self.documents[: self.k]


class AllOfThem(BaseRetriever):
    """Returns every document."""

    def _get_relevant_documents(self, query: str, **_: Any) -> list[Document]:
        return DOCUMENTS


@pytest.fixture(scope="class")
def _pruner_of_the_suite(request: pytest.FixtureRequest, pruner: AT2Pruner) -> None:
    request.cls.pruner = pruner


@pytest.mark.usefixtures("_pruner_of_the_suite")
class TestRetriever(RetrieversIntegrationTests):
    """LangChain's suite."""

    pruner: AT2Pruner

    @property
    def retriever_constructor(self) -> type[AT2Retriever]:
        return AT2Retriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"base": FirstK(), "pruner": self.pruner}

    @property
    def retriever_query_example(self) -> str:
        return QUERY


def best(pruner: AT2Pruner, documents: list[Document], k: int) -> list[str | None]:
    chunks = [Chunk(d.page_content, title=d.metadata["title"]) for d in documents]
    return [documents[chunk.index].id for chunk in pruner.prune(QUERY, chunks, top_k=k).kept]


async def test_fetches_many_and_keeps_the_best(pruner: AT2Pruner) -> None:
    base = FirstK(k=1)
    retriever = AT2Retriever(base=base, fetch_k=3, k=2, pruner=pruner)
    expected = best(pruner, DOCUMENTS[:3], 2)
    assert ids(retriever.invoke(QUERY)) == ids(await retriever.ainvoke(QUERY)) == expected
    assert ids(retriever.invoke(QUERY, fetch_k=5, k=1)) == best(pruner, DOCUMENTS, 1)
    configurable = retriever.configurable_fields(k=ConfigurableField(id="k"))
    assert ids(configurable.invoke(QUERY, {"configurable": {"k": 1}})) == expected[:1]
    assert base.k == 1, "the caller's retriever stays as it is"
    assert ids(AT2Retriever(base=base, pruner=pruner).invoke(QUERY)) == ["log-0"]


def test_asks_a_vector_store_for_as_many(pruner: AT2Pruner) -> None:
    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=8))
    store.add_documents(DOCUMENTS)
    base = store.as_retriever(search_kwargs={"k": 1, "filter": lambda d: d.id != "log-3"})
    nearest = store.as_retriever(search_kwargs={"k": 4, "filter": lambda d: d.id != "log-3"})
    retriever = AT2Retriever(base=base, fetch_k=4, k=2, pruner=pruner)
    assert ids(retriever.invoke(QUERY)) == best(pruner, nearest.invoke(QUERY), 2)
    assert base.search_kwargs["k"] == 1


def test_a_retriever_that_cannot_be_asked_for_a_number_is_refused(pruner: AT2Pruner) -> None:
    with pytest.raises(ValueError, match="fetch_k is 3, but a AllOfThem has no k"):
        AT2Retriever(base=AllOfThem(), fetch_k=3, pruner=pruner)
    assert len(AT2Retriever(base=AllOfThem(), k=4, pruner=pruner).invoke(QUERY)) == 4
    for settings in ({"fetch_k": 0}, {"k": 0}, {"top_n": 3}, {"colour": "red"}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            AT2Retriever(base=FirstK(), **settings)


def test_the_runs_of_base_and_compressor_are_within_the_retrievers(pruner: AT2Pruner) -> None:
    handler = Handler()
    AT2Retriever(base=FirstK(), k=1, pruner=pruner).invoke(QUERY, {"callbacks": [handler]})
    assert [event[0] for event in handler.events] == ["start", "at2_pruned", "end"]


def test_settings_are_written_and_read(pruner: AT2Pruner) -> None:
    retriever = AT2Retriever(base=FirstK(k=2), fetch_k=5, k=2, head_weights="fast")
    assert pickle.loads(pickle.dumps(retriever)) == retriever
    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=8))
    stored = AT2Retriever(base=store.as_retriever(), k=2)
    written = dumpd(stored)
    assert written["kwargs"]["k"] == 2
    # A vector store's retriever isn't written by LangChain.
    with pytest.raises(ValueError, match="an adapter with base, .* pass it again$|pass it again "):
        load(written, allowed_objects=[AT2Retriever], valid_namespaces=["langchain_at2_rag"])
    again = AT2Retriever(**written["kwargs"], base=stored.base)
    assert again == stored


def test_asks_for_as_many_where_the_store_chooses_among_more(pruner: AT2Pruner) -> None:
    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=8))
    store.add_documents([Document(f"Page {number}.") for number in range(40)])
    base = store.as_retriever(search_type="mmr")
    retriever = AT2Retriever(base=base, fetch_k=30, k=30, max_overlap=None, pruner=pruner)
    assert len(retriever.invoke(QUERY)) == 30
    for search_kwargs, fetched in (({}, 20), ({"fetch_k": 9}, 9), ({"fetch_k": 3}, 5)):
        base = store.as_retriever(search_type="mmr", search_kwargs=search_kwargs)
        five = store.as_retriever(search_type="mmr", search_kwargs={"k": 5, "fetch_k": fetched})
        few = AT2Retriever(base=base, fetch_k=5, k=5, max_overlap=None, pruner=pruner)
        texts = {document.page_content for document in few.invoke(QUERY)}
        assert texts == {document.page_content for document in five.invoke(QUERY)}
