"""The LlamaIndex adapter inside query engines, over every kind of node, and its events."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core.callbacks import (
    CallbackManager,
    CBEventType,
    EventPayload,
    LlamaDebugHandler,
)
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.base import BaseEvent  # type: ignore[attr-defined]
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageNode,
    IndexNode,
    MediaResource,
    MetadataMode,
    Node,
    NodeWithScore,
    QueryBundle,
    TextNode,
)

from at2_rag import AT2Pruner, Chunk
from at2_rag.errors import ScoringError
from at2_rag.model.loading import LoadedModel
from at2_rag.options import Unit
from llama_index_at2_rag import AT2NodePostprocessor
from tests.tiny_models import tiny_tokenizer

QUERY = "What did the captain see?"


def make_nodes() -> list[NodeWithScore]:
    things = ["a whale", "land", "a comet", "two sails", "ice"]
    return [
        NodeWithScore(
            node=TextNode(
                id_=f"log-{n}",
                text=f"Log {n}: the captain saw {thing}.",
                metadata={"title": f"Log {n}"},
            ),
            score=1.0 / (n + 1),
        )
        for n, thing in enumerate(things)
    ]


def expected_ids(pruner: AT2Pruner, top_k: int) -> list[str]:
    nodes = [scored.node for scored in make_nodes()]
    chunks = [Chunk(n.get_content(), title=n.metadata["title"]) for n in nodes]
    return [nodes[kept.index].node_id for kept in pruner.prune(QUERY, chunks, top_k=top_k).kept]


class ListRetriever(BaseRetriever):
    """Finds every node, in order."""

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return make_nodes()


class Recorder(BaseEventHandler):
    """Keeps the rerank events it sees."""

    events: list[Any] = []

    @classmethod
    def class_name(cls) -> str:
        return "Recorder"

    def handle(self, event: BaseEvent, **_: Any) -> None:
        if isinstance(event, ReRankStartEvent | ReRankEndEvent):
            self.events.append(event)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    handler = Recorder(events=[])
    handlers = get_dispatcher().event_handlers
    handlers.append(handler)
    yield handler
    handlers.remove(handler)


async def test_in_a_query_engine(pruner: AT2Pruner) -> None:
    engine = RetrieverQueryEngine.from_args(
        ListRetriever(),
        llm=MockLLM(max_tokens=8),
        node_postprocessors=[AT2NodePostprocessor(pruner=pruner, top_n=2)],
    )
    expected = expected_ids(pruner, 2)
    response = engine.query(QUERY)
    assert [scored.node.node_id for scored in response.source_nodes] == expected
    response = await engine.aquery(QUERY)
    assert [scored.node.node_id for scored in response.source_nodes] == expected


async def test_rerank_events(pruner: AT2Pruner, recorder: Recorder) -> None:
    nodes = make_nodes()
    postprocessor = AT2NodePostprocessor(pruner=pruner, top_n=2)
    assert postprocessor.postprocess_nodes([], query_str=QUERY) == [] == recorder.events
    kept = postprocessor.postprocess_nodes(nodes, query_str=QUERY)
    start, end = recorder.events
    assert (start.query.query_str, start.nodes, start.top_n) == (QUERY, nodes, 2)
    assert start.model_name == pruner.model_name
    assert end.nodes == kept
    postprocessor = AT2NodePostprocessor(pruner=pruner, max_tokens=9999)
    kept = await postprocessor.apostprocess_nodes(nodes, query_str=QUERY)
    start, end = recorder.events[2:]
    assert (start.top_n, end.nodes) == (5, kept)


async def test_a_start_event_has_its_end_when_scoring_fails(
    broken_model: Any, recorder: Recorder
) -> None:
    broken = AT2Pruner(LoadedModel(broken_model, tiny_tokenizer()), head_weights="uniform")
    postprocessor = AT2NodePostprocessor(pruner=broken)
    with pytest.raises(ScoringError):
        postprocessor.postprocess_nodes(make_nodes(), query_str=QUERY)
    with pytest.raises(ScoringError):
        await postprocessor.apostprocess_nodes(make_nodes(), query_str=QUERY)
    assert [type(event) for event in recorder.events] == [ReRankStartEvent, ReRankEndEvent] * 2
    assert recorder.events[1].nodes == recorder.events[3].nodes == []


async def test_each_call_is_a_span(pruner: AT2Pruner) -> None:
    spans, handlers = SimpleSpanHandler(), get_dispatcher().span_handlers
    handlers.append(spans)
    try:
        postprocessor = AT2NodePostprocessor(pruner=pruner, top_n=2)
        postprocessor.postprocess_nodes(make_nodes(), query_str=QUERY)
        await postprocessor.apostprocess_nodes(make_nodes(), query_str=QUERY)
    finally:
        handlers.remove(spans)
    names = [span.id_.partition("-")[0] for span in spans.completed_spans]
    assert names == [f"AT2NodePostprocessor._{name}postprocess_nodes" for name in ("", "a")]


@pytest.fixture
def debug_handler() -> LlamaDebugHandler:
    """LlamaIndex's own handler, which keeps the events it is told of."""
    return LlamaDebugHandler(print_trace_on_end=False)


async def test_handlers_of_a_query_engine_are_told_of_a_reranking(
    pruner: AT2Pruner, debug_handler: LlamaDebugHandler
) -> None:
    engine = RetrieverQueryEngine.from_args(
        ListRetriever(),
        llm=MockLLM(max_tokens=8),
        node_postprocessors=[AT2NodePostprocessor(pruner=pruner, top_n=2)],
        callback_manager=CallbackManager([debug_handler]),
    )
    responses = [engine.query(QUERY), await engine.aquery(QUERY)]
    pairs = debug_handler.get_event_pairs(CBEventType.RERANKING)
    for response, (start, end) in zip(responses, pairs, strict=True):
        assert start.payload == {
            EventPayload.NODES: make_nodes(),
            EventPayload.MODEL_NAME: pruner.model_name,
            EventPayload.QUERY_STR: QUERY,
            EventPayload.TOP_K: 2,
        }
        assert end.payload == {EventPayload.NODES: response.source_nodes}


async def test_handlers_are_told_of_a_failure_but_not_of_calls_without_nodes(
    broken_model: Any, debug_handler: LlamaDebugHandler
) -> None:
    broken = AT2Pruner(LoadedModel(broken_model, tiny_tokenizer()), head_weights="uniform")
    postprocessor = AT2NodePostprocessor(
        pruner=broken, callback_manager=CallbackManager([debug_handler])
    )
    assert postprocessor.postprocess_nodes([], query_str=QUERY) == []
    assert debug_handler.get_events() == []
    with pytest.raises(ScoringError) as first:
        postprocessor.postprocess_nodes(make_nodes(), query_str=QUERY)
    with pytest.raises(ScoringError) as second:
        await postprocessor.apostprocess_nodes(make_nodes(), query_str=QUERY)
    pairs = debug_handler.get_event_pairs(CBEventType.RERANKING)
    assert [end.payload for _, end in pairs] == [
        {EventPayload.EXCEPTION: caught.value} for caught in (first, second)
    ]


@pytest.mark.parametrize("value", [None, [], LlamaDebugHandler])
def test_what_is_no_callback_manager_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=f"callback_manager is a {type(value).__name__}; pass a"):
        AT2NodePostprocessor(callback_manager=value)


async def test_a_missing_query_is_refused(pruner: AT2Pruner) -> None:
    with pytest.raises(ValueError, match="query_bundle or query_str"):
        AT2NodePostprocessor(pruner=pruner).postprocess_nodes(make_nodes())
    with pytest.raises(ValueError, match="query_bundle or query_str"):
        await AT2NodePostprocessor(pruner=pruner).apostprocess_nodes([])


def score_of(pruner: AT2Pruner, node: BaseNode, **settings: Any) -> float | None:
    postprocessor = AT2NodePostprocessor(pruner=pruner, **settings)
    [kept] = postprocessor.postprocess_nodes([NodeWithScore(node=node)], query_str=QUERY)
    return kept.score


def direct(pruner: AT2Pruner, text: str, title: str | None = None) -> Any:
    return pytest.approx(pruner.score(QUERY, [Chunk(text, title=title)])[0].score)


def test_what_is_scored_is_what_the_generator_sees(pruner: AT2Pruner) -> None:
    node = TextNode(
        text="Ice ahead.",
        metadata={"title": "Log", "page": 4, "secret": "x"},
        excluded_llm_metadata_keys=["secret"],
    )
    assert score_of(pruner, node) == direct(pruner, "page: 4\n\nIce ahead.", title="Log")
    shown = node.get_content(metadata_mode=MetadataMode.LLM)
    assert shown == "title: Log\npage: 4\n\nIce ahead."
    assert score_of(pruner, node, title_key=None) == direct(pruner, shown)
    hidden = node.model_copy(update={"excluded_llm_metadata_keys": ["secret", "page", "title"]})
    assert score_of(pruner, hidden) == direct(pruner, "Ice ahead.")
    number = TextNode(text="Ice ahead.", metadata={"title": 7})
    assert score_of(pruner, number) == direct(pruner, "title: 7\n\nIce ahead.")


@pytest.mark.parametrize(
    "node",
    [
        ImageNode(image_path="missing.png"),
        IndexNode(text="All logs.", index_id="logs", obj={"deep": ["structure"]}),
        Document(),
        Node(text_resource=MediaResource(text="A log.")),
        Node(image_resource=MediaResource(data=b"ice", mimetype="image/png")),
        TextNode(text="", metadata={"title": "Log"}),
    ],
    ids=lambda node: f"{type(node).__name__}-{node.get_content(MetadataMode.LLM)[:12]!r}",
)
def test_nodes_of_every_kind_come_back_as_they_were(pruner: AT2Pruner, node: BaseNode) -> None:
    nodes = [*make_nodes(), NodeWithScore(node=node)]
    before = copy.deepcopy(node.model_dump())
    postprocessor = AT2NodePostprocessor(pruner=pruner, top_n=99, order="original")
    last = postprocessor.postprocess_nodes(nodes, query_str=QUERY)[-1]
    assert type(last.node) is type(node)
    assert last.node is not node
    assert last.node.model_dump() == before == node.model_dump()
    assert isinstance(last.score, float)


def test_the_retrieval_score_is_kept_on_request_and_hidden(pruner: AT2Pruner) -> None:
    nodes = make_nodes()
    postprocessor = AT2NodePostprocessor(pruner=pruner, top_n=99, keep_retrieval_score=True)
    kept = postprocessor.postprocess_nodes(nodes, query_str=QUERY)
    originals = {scored.node.node_id: scored for scored in nodes}
    for scored in kept:
        original = originals[scored.node.node_id]
        assert scored.node.metadata["at2_retrieval_score"] == original.score
        for mode in (MetadataMode.LLM, MetadataMode.EMBED):
            assert scored.node.get_content(mode) == original.node.get_content(mode)
        assert "at2_retrieval_score" not in original.node.metadata
        assert original.node.excluded_llm_metadata_keys == []


def test_settings_survive_dict_json_and_pickle(pruner: AT2Pruner) -> None:
    dumped = AT2NodePostprocessor(pruner=pruner).to_dict()
    assert "pruner" not in dumped
    with pytest.raises(ValueError, match="pass it again"):
        AT2NodePostprocessor.from_dict(dumped)
    assert AT2NodePostprocessor.from_dict(dumped, pruner=pruner).pruner is pruner
    postprocessor = AT2NodePostprocessor(
        max_tokens=500, order="original", keep_retrieval_score=True
    )
    assert "callback_manager" not in postprocessor.to_dict()
    for again in (
        AT2NodePostprocessor.from_dict(postprocessor.to_dict()),
        AT2NodePostprocessor.from_json(postprocessor.to_json()),
        pickle.loads(pickle.dumps(postprocessor)),
    ):
        assert again.to_dict() == postprocessor.to_dict()


def test_a_cut_text_has_no_embedding_and_no_place_in_the_document(pruner: AT2Pruner) -> None:
    text = "Ada sailed from the harbour at dawn. A letter was lost in the winter storms."
    node = TextNode(id_="1", text=text, embedding=[0.5], start_char_idx=7, end_char_idx=83)
    cases: list[tuple[Unit, Any]] = [("chunk", ([0.5], 7, 83)), ("sentence", (None, None, None))]
    for unit, expected in cases:
        adapter = AT2NodePostprocessor(pruner=pruner, top_n=1, unit=unit)
        [kept] = adapter.postprocess_nodes([NodeWithScore(node=node)], query_str=QUERY)
        assert isinstance(kept.node, TextNode)
        fields = (kept.node.embedding, kept.node.start_char_idx, kept.node.end_char_idx)
        assert fields == expected and (kept.node.get_content() == text) is (unit == "chunk")
    assert node.embedding == [0.5]


@pytest.mark.parametrize("kind", [TextNode, Node])
def test_sentences_are_cut_out_of_the_text_and_never_out_of_metadata(
    pruner: AT2Pruner, kind: Any
) -> None:
    metadata = {"title": "Log", "page": 4, "ship": "Ann. Bell.", "b": 1, "c": 2, "d": 3}
    texts = [f"Log {n}: she saw a {bird}. Then rain. It\nended.\n\n" for n, bird in enumerate("ab")]
    nodes = []
    for n, text in enumerate(texts):
        content = {"text_resource": MediaResource(text=text)} if kind is Node else {"text": text}
        node = kind(id_=str(n), metadata=metadata, **content)
        nodes.append(NodeWithScore(node=node, score=0.5))
    for most in range(20, 400, 60):
        adapter = AT2NodePostprocessor(
            pruner=pruner, max_tokens=most, unit="sentence", protect="page", title_key=None
        )
        kept = adapter.postprocess_nodes(nodes, query_str=QUERY)
        for scored in kept:
            spans = scored.node.metadata.get("at2_kept_spans")
            text = texts[int(scored.node.node_id)]
            assert scored.node.get_content().strip()
            parts = [text[start:end] for start, end in spans] if spans else [text.strip()]
            shown = scored.node.get_content(metadata_mode=MetadataMode.LLM)
            assert all(part in shown for part in parts)
            assert all(f"{key}: {value}" in shown for key, value in metadata.items())
            assert "at2_kept_spans" not in shown
        views = [scored.node.get_content(metadata_mode=MetadataMode.LLM) for scored in kept]
        count = sum(len(tiny_tokenizer()(view)["input_ids"]) for view in views)
        assert count <= most + len(kept)  # an empty line after the metadata is counted as a break
