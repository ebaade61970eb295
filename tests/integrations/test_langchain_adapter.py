"""The LangChain adapter inside LangChain's own retrievers, pipelines and chains."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypedDict
from uuid import UUID

import numpy as np
import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.load import dumpd, dumps, load
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    HumanMessage,
    HumanMessageChunk,
)
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import (
    ConfigurableField,
    RunnableConfig,
    RunnableParallel,
    RunnablePassthrough,
    RunnableSequence,
)
from langchain_text_splitters import CharacterTextSplitter
from langgraph.graph import StateGraph
from pydantic import BaseModel

from at2_rag import (
    AT2Pruner,
    Chunk,
    InputError,
    LoadedModel,
    PruneOptions,
    PrunerBusyError,
    PruneResult,
)
from at2_rag.adapters import warn_of_collision
from langchain_at2_rag import AT2DocumentCompressor
from tests.tiny_models import tiny_model, tiny_tokenizer

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
    step = AT2DocumentCompressor(pruner=pruner, top_n=2)
    chain = RunnableParallel(query=RunnablePassthrough(), documents=retriever) | step
    assert ids(chain.invoke(QUERY)) == expected
    assert ids(await chain.ainvoke(QUERY)) == expected
    assert [ids(kept) for kept in chain.batch([QUERY, QUERY])] == [expected, expected]
    assert [ids(kept) for kept in chain.stream(QUERY)] == [expected]


class Handler(BaseCallbackHandler):
    """Notes every start, end and custom event."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def on_chain_start(self, *_: Any, run_id: UUID, name: str | None = None, **__: Any) -> None:
        self.events.append(("start", name, run_id))

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **_: Any) -> None:
        self.events.append(("end", outputs, run_id))

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        self.events.append(("error", error, run_id))

    def on_custom_event(self, name: str, data: Any, *, run_id: UUID, **_: Any) -> None:
        self.events.append((name, data, run_id))


async def test_callback_handlers_get_a_run_and_what_was_dropped(
    pruner: AT2Pruner, retriever: ListRetriever, expected: list[str | None]
) -> None:
    step = AT2DocumentCompressor(pruner=pruner, top_n=2)
    compression = ContextualCompressionRetriever(base_compressor=step, base_retriever=retriever)
    inputs = {"query": QUERY, "documents": DOCUMENTS}
    calls: list[Callable[[Handler], Any]] = [
        lambda handler: step.invoke(inputs, {"callbacks": [handler]}),
        lambda handler: step.batch([inputs], {"callbacks": [handler]})[0],
        lambda handler: step.compress_documents(DOCUMENTS, QUERY, [handler]),
        lambda handler: compression.invoke(QUERY, {"callbacks": [handler]}),
        lambda handler: step.ainvoke(inputs, {"callbacks": [handler]}),
        lambda handler: step.abatch([inputs], {"callbacks": [handler]}),
        lambda handler: step.acompress_documents(DOCUMENTS, QUERY, [handler]),
    ]
    for call in calls:
        handler = Handler()
        kept = call(handler)
        if inspect.isawaitable(kept):
            await kept
        [start, pruned, end] = handler.events
        assert start[:2] == ("start", "AT2DocumentCompressor")
        assert {event[-1] for event in handler.events} == {start[-1]}, "one run"
        assert pruned[0] == "at2_pruned" and json.loads(json.dumps(pruned[1])) == pruned[1]
        assert [document["id"] for document in pruned[1]["kept"]] == expected
        dropped = {document["id"] for document in pruned[1]["dropped"]}
        assert dropped == set(ids(DOCUMENTS)) - set(expected)
        assert pruned[1]["tokens_before"] > pruned[1]["tokens_after"] > 0
        assert pruned[1]["timings"]["total"] > 0
        assert end[0] == "end" and ids(end[1]) == expected
    handler = Handler()
    with pytest.raises(ValueError):
        step.compress_documents(DOCUMENTS, " ", [handler])
    assert [event[0] for event in handler.events] == ["start", "error"]
    events = [event async for event in step.astream_events(inputs, version="v2")]
    assert "at2_pruned" in {event["name"] for event in events}


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"question": QUERY}, "a dict, has no 'query' and no 'documents' .*RunnableParallel"),
        ({"query": QUERY}, "has no 'documents'"),
        (QUERY, "a str, has no 'query'"),
        ({"query": QUERY, "documents": "text"}, r"documents is a str \('text'\); pass a list"),
        ({"query": QUERY, "documents": {"text": "a"}}, "documents is a dict"),
        ({"query": QUERY, "documents": None}, "documents is a NoneType"),
        ({"query": QUERY, "documents": DOCUMENTS[0]}, "documents is a Document"),
        (
            {"query": QUERY, "documents": [DOCUMENTS[0], "text"]},
            r"documents\[1\] is a str \('text'\); pass Documents.*page_content",
        ),
        ({"query": ["hello"], "documents": DOCUMENTS}, "query is a list.*pass the question"),
    ],
)
async def test_inputs_of_other_kinds_are_refused_before_a_model_is_loaded(
    inputs: Any, message: str
) -> None:
    step = AT2DocumentCompressor(model="no such model")
    for call in (step.invoke, lambda one: step.batch([one])):
        with pytest.raises(InputError, match=message):
            call(inputs)
    with pytest.raises(InputError, match=message):
        await step.ainvoke(inputs)


class State(TypedDict):
    question: str
    documents: list[Document]
    rest: list[Document]


@dataclass(slots=True)
class DataState:
    question: str
    documents: list[Document]
    rest: list[Document] = dataclasses.field(default_factory=list)


class ModelState(BaseModel):
    question: str
    documents: list[Document]
    rest: list[Document] = []


@pytest.mark.parametrize("state", [State, DataState, ModelState])
async def test_as_a_node_of_a_graph(
    state: Any, pruner: AT2Pruner, expected: list[str | None]
) -> None:
    graph = StateGraph(state)
    node = AT2DocumentCompressor(
        pruner=pruner,
        top_n=2,
        query_key="question",
        output_key="documents",
        dropped_key="rest",
    )
    graph.add_node("prune", node)
    graph.set_entry_point("prune")
    graph.set_finish_point("prune")
    compiled = graph.compile()
    inputs = {"question": QUERY, "documents": DOCUMENTS, "rest": []}
    state_in = inputs if state is State else state(**inputs)
    for output in (compiled.invoke(state_in), await compiled.ainvoke(state_in)):
        assert ids(output["documents"]) == expected
        assert set(ids(output["rest"])) == set(ids(DOCUMENTS)) - set(expected)
        assert all("relevance_score" in document.metadata for document in output["rest"])
    assert ids(node.compress_documents(DOCUMENTS, QUERY)) == expected
    nothing = {"question": QUERY, "documents": []}
    assert node.invoke(nothing) == {"documents": [], "rest": []}


def test_reranks_documents_texts_and_mappings(pruner: AT2Pruner) -> None:
    step = AT2DocumentCompressor(pruner=pruner)
    chunks: list[Any] = [Chunk(d.page_content, title=d.metadata["title"]) for d in DOCUMENTS[:2]]
    chunks += ["Ice.", "page: 3\nnote: A whale."]
    mapping = {"page": 3, "hidden": "x", "note": "A whale."}
    ranked = step.rerank(
        [*DOCUMENTS[:2], "Ice.", mapping], QUERY, rank_fields=["page", "note", "none"]
    )
    scores = [chunk.score for chunk in pruner.score(QUERY, chunks)]
    best_first = sorted(range(4), key=lambda index: -scores[index])
    assert [one["index"] for one in ranked] == best_first
    assert [one["relevance_score"] for one in ranked] == sorted(scores, reverse=True)
    assert step.rerank(DOCUMENTS, QUERY, top_n=2) == step.rerank(DOCUMENTS, QUERY)[:2]
    assert step.rerank([], QUERY) == []
    with pytest.raises(InputError, match="top_n is -1"):
        step.rerank(DOCUMENTS, QUERY, top_n=-1)
    with pytest.raises(InputError, match="documents is a str"):
        step.rerank("Ice.", QUERY)


def test_a_query_may_refer_to_the_question_before_it(pruner: AT2Pruner) -> None:
    said, last = "Who was the captain?", "What did she see?"
    messages = [HumanMessage(said), AIMessage("Ann."), HumanMessage(last)]
    step = AT2DocumentCompressor(pruner=pruner, top_n=5, history_key="messages")
    chunks = [Chunk(d.page_content, title=d.metadata["title"]) for d in DOCUMENTS]
    expected = pruner.prune(f"{said} {last}", chunks, top_k=5)
    inputs: dict[str, Any] = {"query": last, "documents": DOCUMENTS}
    summary = HumanMessage("Here.", additional_kwargs={"lc_source": "summarization"})
    for turns in (
        [said],
        messages,
        iter(messages),
        [("human", said), ("ai", "Ann.")],
        [{"role": "user", "content": said}],
        [HumanMessageChunk(content=said), AIMessageChunk(content="Ann.")],
        [ChatMessage(content=said, role="user"), summary],
    ):
        kept = step.invoke({**inputs, "messages": turns})
        scores = [document.metadata["relevance_score"] for document in kept]
        assert scores == [chunk.relevance for chunk in expected.kept]
    alone = pruner.prune(last, chunks, top_k=5)
    scores = [d.metadata["relevance_score"] for d in step.compress_documents(DOCUMENTS, last)]
    assert scores == [chunk.relevance for chunk in alone.kept]
    nothing: Any
    for nothing in (None, []):
        kept = step.invoke({**inputs, "messages": nothing})
        assert [d.metadata["relevance_score"] for d in kept] == scores
    unusable: Any
    for unusable, message in (("hello", "messages is a str"), ([3], "messages has what is no")):
        with pytest.raises(InputError, match=message):
            step.invoke({**inputs, "messages": unusable})
    with pytest.raises(InputError, match="has no 'messages'"):
        step.invoke(inputs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dropped_key": "rest"}, "dropped_key is 'rest' and output_key None; pass an output_key"),
        ({"dropped_key": "a", "output_key": "a"}, "output_key 'a'"),
        ({"query_key": "documents"}, "'documents', 'documents', None; pass different ones"),
        ({"history_key": "query"}, "pass different ones"),
    ],
)
def test_keys_that_exclude_each_other_are_refused(settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AT2DocumentCompressor(**settings)


async def test_a_call_overrides_settings(pruner: AT2Pruner) -> None:
    inputs = {"query": QUERY, "documents": DOCUMENTS}
    model = LoadedModel(tiny_model(), tiny_tokenizer())
    five = AT2Pruner(model, head_weights="uniform", options=PruneOptions(top_k=5))
    step = AT2DocumentCompressor(pruner=five, order="original")
    configurable = step.configurable_fields(
        top_n=ConfigurableField(id="at_most"), unit=ConfigurableField(id="unit")
    )
    some: RunnableConfig = {"configurable": {"at_most": 2}}
    none: RunnableConfig = {"configurable": {"at_most": None}}
    within = AT2DocumentCompressor(pruner=five, max_tokens=10**6).configurable_fields(
        top_n=ConfigurableField(id="at_most")
    )
    assert len(step.invoke(inputs, top_n=1)) == len(await step.ainvoke(inputs, top_n=1)) == 1
    assert len(step.bind(top_n=3).batch([inputs])[0]) == 3
    assert len(configurable.invoke(inputs)) == 5, "the pruner's"
    kept = configurable.invoke(inputs, some)
    assert len(kept) == 2 and ids(kept) == sorted(ids(kept), key=str), "order stays"
    assert ids(await configurable.ainvoke(inputs, some)) == ids(kept)
    [alone, both] = configurable.batch([inputs, inputs], [some, {}])
    assert (len(alone), len(both)) == (2, 5)
    assert len(within.invoke(inputs)) == len(within.invoke(inputs, none)) == 5, "no more there are"
    unlimited, by_pruner = within.prepare(none)[0], within.prepare()[0]
    assert isinstance(unlimited, AT2DocumentCompressor) and isinstance(by_pruner, type(unlimited))
    assert unlimited.model_dump()["top_n"] is None
    assert "top_n" not in by_pruner.model_dump(), "the pruner's"
    assert len(configurable.with_config(configurable={"at_most": 1}).invoke(inputs)) == 1
    for settings in ({"top_n": 0}, {"colour": "red"}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            step.invoke(inputs, **settings)


def test_a_batch_is_read_together_and_an_error_is_its_own_inputs(pruner: AT2Pruner) -> None:
    questions = [QUERY, "Which ships sailed at night?", "What is ice?"]
    inputs = [
        {"query": question, "documents": DOCUMENTS[i:]} for i, question in enumerate(questions)
    ]
    step = AT2DocumentCompressor(pruner=pruner, top_n=2)
    chunks = [
        [Chunk(d.page_content, title=d.metadata["title"]) for d in DOCUMENTS[i:]] for i in range(3)
    ]
    together = pruner.prune_batch(list(zip(questions, chunks, strict=True)), top_k=2)
    for kept, result in zip(step.batch(inputs), together, strict=True):
        scores = [document.metadata["relevance_score"] for document in kept]
        assert scores == [chunk.relevance for chunk in result.kept], "equal to the last bit"
    broken = [inputs[0], {"query": " ", "documents": DOCUMENTS}, {"query": "a"}, inputs[2]]
    first, blank, missing, last = step.batch(broken, return_exceptions=True)
    assert ids(first) == ids(step.invoke(inputs[0])) and ids(last) == ids(step.invoke(inputs[2]))
    assert isinstance(blank, InputError) and isinstance(missing, InputError)
    with pytest.raises(InputError, match="blank"):
        step.batch(broken)
    assert step.batch([]) == [] and step.batch([{"query": "a", "documents": []}]) == [[]]


async def test_each_result_of_a_batch_is_reported_once(pruner: AT2Pruner) -> None:
    seen: list[str] = []

    def on_result(result: PruneResult) -> None:
        seen.append(result.query)
        if result.query == "B":
            raise ZeroDivisionError

    step = AT2DocumentCompressor(pruner=pruner, top_n=2, on_result=on_result)
    inputs = [{"query": name, "documents": DOCUMENTS} for name in ("A", " ", "B", "C")]
    for awaited in (False, True):
        if awaited:
            outputs = await step.abatch(inputs, return_exceptions=True)
        else:
            outputs = step.batch(inputs, return_exceptions=True)
        assert [type(output) for output in outputs] == [
            list,
            InputError,
            ZeroDivisionError,
            list,
        ]
        assert seen == ["A", "B", "C"]
        seen.clear()


async def test_a_busy_pruner_is_asked_once() -> None:
    model = LoadedModel(tiny_model(), tiny_tokenizer())
    busy = AT2Pruner(model, head_weights="uniform", max_pending=1)
    step = AT2DocumentCompressor(pruner=busy, top_n=1)
    inputs = [{"query": QUERY, "documents": DOCUMENTS}] * 3
    running = asyncio.create_task(
        busy.aprune(QUERY, [d.page_content * 50 for d in DOCUMENTS], top_k=1)
    )
    await asyncio.sleep(0)
    outputs = await step.abatch(inputs, return_exceptions=True)
    assert {type(output) for output in outputs} == {PrunerBusyError}
    await running


async def test_an_async_batch_is_as_a_batch(pruner: AT2Pruner) -> None:
    step = AT2DocumentCompressor(pruner=pruner, top_n=2)
    inputs = [{"query": QUERY, "documents": DOCUMENTS}, {"query": " ", "documents": DOCUMENTS}]
    kept, blank = await step.abatch(inputs, return_exceptions=True)
    assert ids(kept) == ids(step.invoke(inputs[0])) and isinstance(blank, InputError)


def test_langchain_writes_and_reads_settings(pruner: AT2Pruner) -> None:
    reading: dict[str, Any] = {
        "allowed_objects": [AT2DocumentCompressor, RunnableSequence, RunnablePassthrough],
        "valid_namespaces": ["langchain_at2_rag"],
    }
    step = AT2DocumentCompressor(
        head_weights="fast", max_tokens=50, top_n=None, max_overlap=None, output_key="kept"
    )
    again = load(json.loads(dumps(step)), **reading)
    assert again == step and again.model_fields_set == step.model_fields_set
    chain = load(dumpd(RunnablePassthrough() | step), **reading)
    assert chain.steps[-1] == step
    configurable = step.configurable_fields(top_n=ConfigurableField(id="n"))
    reading["allowed_objects"] += [type(configurable)]
    assert load(dumpd(configurable), **reading) == configurable
    for unwritten in ({"pruner": pruner}, {"on_result": print}):
        with pytest.raises(ValueError, match=f"an adapter with {next(iter(unwritten))}.*pass it"):
            load(dumpd(AT2DocumentCompressor(**unwritten)), **reading)


def test_a_prefix_for_metadata_and_no_entry_of_the_callers_is_overwritten(
    pruner: AT2Pruner, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_collision.cache_clear()
    twins = [
        DOCUMENTS[0].model_copy(update={"metadata": metadata})
        for metadata in ({"relevance_score": "high", "at2_duplicates": ["x"]}, {})
    ]
    compressor = AT2DocumentCompressor(pruner=pruner, top_n=2, metadata_prefix="pruned_")
    [kept] = compressor.compress_documents(twins, QUERY)
    assert kept.metadata == {
        "relevance_score": "high",
        "at2_duplicates": ["x"],
        "pruned_duplicates": ["log-0"],
    }
    assert "relevance_score" in caplog.text
    for earlier in (0.25, np.float32(0.25), 1, None):
        document = DOCUMENTS[0].model_copy(update={"metadata": {"relevance_score": earlier}})
        [kept] = compressor.compress_documents([document], QUERY)
        score = pruner.score(QUERY, [document.page_content])[0].score
        assert kept.metadata["relevance_score"] == pytest.approx(score), "the last reranker's"


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
