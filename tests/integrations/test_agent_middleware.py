"""An agent of the real framework with a scripted model: what its provider would see."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.messages.utils import convert_to_openai_messages
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import create_retriever_tool, tool

from at2_rag import AT2Pruner, ModelNotFoundError, PruneResult
from at2_rag.model.loading import LoadedModel
from at2_rag.text.passages import passage_spans
from langchain_at2_rag import AT2ToolResultMiddleware
from langchain_at2_rag.agents import ERRORS, _document_spans, _original
from tests.tiny_models import tiny_model, tiny_tokenizer

QUESTION = "Who wrote the letter from the island?"
SECTIONS = [
    f"Section {number}\n\n" + f"The letter of {name} tells of storms at sea. " * 6
    for number, name in enumerate(["Ada", "Bela", "Cleo", "Dora", "Ezra", "Finn"])
]
REPORT = "\n\n".join(SECTIONS)
LOG = "\n".join(
    [f"2026-11-30 12:00:{second:02} INFO request {second} took 3 ms" for second in range(60)]
    + ["2026-11-30 12:01:00 ERROR disk /dev/sda1 is full"]
    + [f"2026-11-30 12:02:{second:02} INFO request {second} took 4 ms" for second in range(60)]
)


class ScriptedModel(BaseChatModel):
    """A chat model that says what its script says, and notes the bytes that it was sent."""

    script: list[AIMessage]
    sent: list[str] = []

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **options: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], *rest: Any, **options: Any) -> ChatResult:
        self.sent.append(json.dumps(convert_to_openai_messages(messages)))
        return ChatResult(generations=[ChatGeneration(message=self.script[len(self.sent) - 1])])


def call(name: str, id: str, **arguments: Any) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": name, "args": arguments, "id": id}])


@tool
def read_report() -> str:
    """Return the report."""
    return REPORT


@tool
def read_log() -> str:
    """Return the log."""
    return LOG


@tool
def read_blocks() -> list[dict[str, str]]:
    """Return text in blocks."""
    return [{"type": "text", "text": section} for section in SECTIONS]


@tool
def read_picture() -> list[dict[str, str]]:
    """Return more than text."""
    return [{"type": "text", "text": REPORT}, {"type": "image", "base64": "", "mime_type": "x/y"}]


@tool
def say_hello() -> str:
    """Return little."""
    return "Hello."


PAGES = [Document(f"Page {n}.\n\nIt rained for {n} days.", metadata={"n": n}) for n in range(9)]
SEARCH = create_retriever_tool(
    RunnableLambda(lambda query: PAGES),  # type: ignore[arg-type]  # it needs no more than invoke
    "search",
    "Search the pages.",
    document_prompt=PromptTemplate.from_template("[{n}]\n{page_content}"),
    response_format="content_and_artifact",
)
TOOLS = [read_report, read_log, read_blocks, read_picture, say_hello, SEARCH]


@pytest.fixture(scope="module")
def pruner() -> AT2Pruner:
    return AT2Pruner(LoadedModel(tiny_model(), tiny_tokenizer()), head_weights="uniform")


def run(
    middleware: AT2ToolResultMiddleware, *calls: AIMessage, awaited: bool = False
) -> tuple[list[BaseMessage], list[str]]:
    """Return the messages of a conversation, and what the model was sent in each turn."""
    model = ScriptedModel(script=[*calls, AIMessage("Done.")], sent=[])
    agent = create_agent(model, tools=TOOLS, middleware=[middleware])
    start: Any = {"messages": [HumanMessage(QUESTION)]}
    state = asyncio.run(agent.ainvoke(start)) if awaited else agent.invoke(start)
    return state["messages"], model.sent


@pytest.mark.parametrize("awaited", [False, True])
def test_what_a_tool_returns_is_pruned_once_and_can_be_expanded(
    pruner: AT2Pruner, awaited: bool
) -> None:
    results: list[PruneResult] = []
    middleware = AT2ToolResultMiddleware(
        pruner=pruner, top_k=2, skip_below_tokens=20, on_result=results.append
    )
    messages, sent = run(
        middleware,
        call("read_report", "a"),
        call("say_hello", "b"),
        call("expand_tool_result", "c", tool_call_id="a"),
        call("expand_tool_result", "d", tool_call_id="nowhere"),
        awaited=awaited,
    )
    report, hello, expanded, nothing = (one for one in messages if isinstance(one, ToolMessage))
    cut = [REPORT[start:end] for start, end in passage_spans(REPORT)]
    kept = [
        cut[chunk.index] for chunk in pruner.prune(QUESTION, cut, top_k=2, order="original").kept
    ]
    body, _, note = str(report.content).rpartition("\n")
    assert [piece for piece in cut if piece.strip() in body] == kept
    assert body.replace("[...]", "").split() == "".join(kept).split()
    saved = results[0].tokens_before - results[0].tokens_after
    assert note == (
        f"[Left out as irrelevant: {saved:,} of {results[0].tokens_before:,} tokens; "
        'expand_tool_result(tool_call_id="a") returns all.]'
    )
    assert saved > 0 and len(results) == 2
    assert report.artifact == {"at2_original": REPORT} and not report.additional_kwargs
    assert hello.content == "Hello." and not hello.artifact
    assert expanded.content == REPORT
    assert str(nothing.content).startswith("There is no result of a call 'nowhere'")
    # A provider's cache holds what it was sent: each turn only adds to that.
    for before, after in zip(sent, sent[1:], strict=False):
        assert after.startswith(before[:-1])
    assert "at2_original" not in sent[-1]


def test_lines_with_errors_are_kept(pruner: AT2Pruner) -> None:
    messages, _ = run(AT2ToolResultMiddleware(pruner=pruner, top_k=1), call("read_log", "a"))
    [log] = (one for one in messages if isinstance(one, ToolMessage))
    assert "ERROR disk /dev/sda1 is full" in str(log.content)
    assert len(log.content) < len(LOG) / 2


def test_results_that_are_left_as_they_are(pruner: AT2Pruner) -> None:
    calls = (call("read_report", "a"), call("read_picture", "b"), call("say_hello", "c"))
    for middleware, untouched in (
        (AT2ToolResultMiddleware(pruner=pruner, top_k=1, only=["read_log"]), 3),
        (AT2ToolResultMiddleware(pruner=pruner, top_k=1, skip_below_tokens=9999), 3),
        (AT2ToolResultMiddleware(pruner=pruner, top_k=1), 2),
        (AT2ToolResultMiddleware(pruner=pruner, top_k=99), 3),
    ):
        messages, _ = run(middleware, *calls)
        tools = [one for one in messages if isinstance(one, ToolMessage)]
        assert sum(not one.artifact for one in tools) == untouched


def test_a_retrievers_documents_stay_whole(pruner: AT2Pruner) -> None:
    middleware = AT2ToolResultMiddleware(pruner=pruner, top_k=3, skip_below_tokens=20)
    messages, _ = run(middleware, call("search", "a", query="rain"))
    shown = [f"[{page.metadata['n']}]\n{page.page_content}" for page in PAGES]
    chunks = [shown[0], *(f"\n\n{text}" for text in shown[1:])]
    kept = pruner.prune(QUESTION, chunks, top_k=3, order="original").kept
    assert [text for text in shown if text in str(messages[2].content)] == [
        shown[chunk.index] for chunk in kept
    ]
    [searched] = (one for one in messages if isinstance(one, ToolMessage))
    assert searched.artifact == PAGES
    assert searched.additional_kwargs["at2_original"] == _original(searched) == "\n\n".join(shown)


def test_a_very_long_document_is_cut_into_passages() -> None:
    long = "\n\n".join(f"Paragraph {n}. " + "It rained all day. " * 20 for n in range(30))
    text = f"[1]\nShort.\n\n[2]\n{long}"
    spans = _document_spans(text, [Document("Short."), Document(long)])
    assert "".join(text[start:end] for start, end in spans) == text
    assert text[slice(*spans[0])] == "[1]\nShort." and len(spans) > 10
    assert _document_spans(text, [Document("Elsewhere.")]) == []
    assert _document_spans(text, [Document("")]) == _document_spans(text, ["Short."]) == []


def test_text_in_blocks_is_pruned(pruner: AT2Pruner) -> None:
    calls = call("read_blocks", "a"), call("expand_tool_result", "b", tool_call_id="a")
    messages, _ = run(AT2ToolResultMiddleware(pruner=pruner, top_k=1), *calls)
    pruned, expanded = (one for one in messages if isinstance(one, ToolMessage))
    assert isinstance(pruned.content, str) and len(pruned.content) < len(REPORT) / 2
    assert expanded.content == REPORT


@pytest.mark.parametrize(
    ("line", "is_error"),
    [
        ("2026-11-30 ERROR disk full", True),
        ("ValueError: bad input", True),
        ("Traceback (most recent call last):", True),
        ("--- FAIL: TestLogin (0.01s)", True),
        ("fatal: not a git repository", True),
        ("Segmentation fault (core dumped)", True),
        ("3 tests failed", True),
        ("a terror of the seas", False),
        ("Hispanic votes, without exception", False),
        ('"error": null, "id": 3', False),
        ("errors=0 failed=0", False),
    ],
)
def test_lines_that_are_protected(line: str, is_error: bool) -> None:
    assert (re.search(ERRORS, f"before\n{line}\nafter") is not None) is is_error


def test_a_summary_is_no_question(pruner: AT2Pruner) -> None:
    results: list[PruneResult] = []
    middleware = AT2ToolResultMiddleware(pruner=pruner, top_k=1, on_result=results.append)
    model = ScriptedModel(script=[call("read_report", "a"), AIMessage("Done.")], sent=[])
    agent = create_agent(model, tools=TOOLS, middleware=[middleware])
    summary = HumanMessage("Summary", additional_kwargs={"lc_source": "summarization"})
    start: Any = {"messages": [HumanMessage(QUESTION), summary]}
    agent.invoke(start)
    assert [result.query for result in results] == [QUESTION]


def test_a_question_that_refers_to_the_one_before_is_read_after_it(pruner: AT2Pruner) -> None:
    results: list[PruneResult] = []
    middleware = AT2ToolResultMiddleware(pruner=pruner, top_k=2, on_result=results.append)
    model = ScriptedModel(script=[call("read_report", "a"), AIMessage("Done.")], sent=[])
    agent = create_agent(model, tools=TOOLS, middleware=[middleware])
    said = ["Who was Bela?", "What did she write?"]
    start: Any = {
        "messages": [HumanMessage(said[0]), AIMessage("A sailor."), HumanMessage(said[1])]
    }
    agent.invoke(start)
    cut = [REPORT[start:end] for start, end in passage_spans(REPORT)]
    expected = pruner.prune(" ".join(said), cut, top_k=2, order="original")
    assert [one.score for one in results[0].kept] == [one.score for one in expected.kept]


def test_a_goal_stands_for_the_question(pruner: AT2Pruner) -> None:
    results: list[PruneResult] = []
    middleware = AT2ToolResultMiddleware(
        goal="What happened to Cleo?", pruner=pruner, top_k=1, on_result=results.append
    )
    run(middleware, call("read_report", "a"))
    assert [result.query for result in results] == ["What happened to Cleo?"]


@pytest.mark.parametrize("awaited", [False, True])
def test_a_failure_leaves_the_result_as_it_is(
    tmp_path: Path, pruner: AT2Pruner, awaited: bool
) -> None:
    middleware = AT2ToolResultMiddleware(model=str(tmp_path / "nothing"), top_k=1)
    messages, _ = run(middleware, call("read_report", "a"), awaited=awaited)
    assert [one.content for one in messages if isinstance(one, ToolMessage)] == [REPORT]
    middleware = AT2ToolResultMiddleware(model=str(tmp_path / "nothing"), top_k=1, on_error="raise")
    with pytest.raises(ModelNotFoundError):
        run(middleware, call("read_report", "a"), awaited=awaited)


def test_settings_that_can_not_be_used_are_refused(pruner: AT2Pruner) -> None:
    for settings, message in (
        ({"goal": " "}, "goal is blank"),
        ({"only": "read_log"}, "only is a string"),
        ({"top_k": 0}, "top_k is 0"),
        ({"topk": 3}, "there is no option 'topk'"),
        ({"pruner": "x"}, "pruner is a str"),
        ({"pruner": pruner, "device": "cpu"}, "device and pruner were passed"),
    ):
        with pytest.raises(ValueError, match=message):
            AT2ToolResultMiddleware(**settings)


def test_without_langchain_the_other_adapters_work() -> None:
    code = """
import sys
sys.modules["langchain"] = None
import langchain_at2_rag
langchain_at2_rag.AT2DocumentCompressor()
try:
    langchain_at2_rag.AT2ToolResultMiddleware
except ImportError as error:
    print(error)
"""
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert 'pip install "at2-rag[agents]"' in ran.stdout, ran.stderr
