"""The MCP server over an in-memory connection of the real protocol."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from at2_rag import AT2Attributor, AT2Pruner
from at2_rag.cli.group import main
from at2_rag.text.passages import passage_spans
from mcp_at2_rag import make_server

QUESTION = "Who wrote the letter from the island?"
PASSAGES = [f"The letter of {name} tells of storms at sea." for name in ("Ada", "Bela", "Cleo")]
TEXT = "\n\n".join(f"{passage} " * 6 for passage in PASSAGES)


async def called(server: Any, tool: str, **arguments: Any) -> Any:
    async with Client(server) as client:
        result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    return result.structured_content


async def refusal(server: Any, tool: str, **arguments: Any) -> str:
    async with Client(server) as client:
        result = await client.call_tool(tool, arguments)
    assert result.is_error
    return str(result.content)


@pytest.fixture
def names(model_folder: Path) -> dict[str, str]:
    return {"model": str(model_folder), "head_weights": "uniform"}


@pytest.fixture
def pruner(model_folder: Path) -> AT2Pruner:
    return AT2Pruner.from_pretrained(model_folder, head_weights="uniform")


async def test_a_context_is_pruned_and_expanded(names: dict[str, str], pruner: AT2Pruner) -> None:
    server = make_server(**names)
    cut = [TEXT[start:end] for start, end in passage_spans(TEXT)]
    budget = pruner.prune(QUESTION, cut, top_k=1).tokens_after
    expected = pruner.prune(QUESTION, cut, max_tokens=budget, order="original")
    output = await called(server, "prune_context", question=QUESTION, text=TEXT, max_tokens=budget)
    assert len(expected.kept) == output["passages_kept"] < output["passages"] == len(cut) == 3
    assert output["tokens_kept"] == expected.tokens_after <= budget < output["tokens"]
    assert output["text"].replace("[...]", "").split() == " ".join(expected.texts).split()
    assert await called(server, "expand", id=output["id"]) == {"result": TEXT}
    assert "there is no text 'nowhere'" in await refusal(server, "expand", id="nowhere")
    without_limit = await called(server, "prune_context", question=QUESTION, text=TEXT)
    assert without_limit["passages_kept"] == 3
    blank = await refusal(server, "prune_context", question=" ", text=TEXT, max_tokens=9)
    assert "blank" in blank


async def test_passages_are_ranked(names: dict[str, str], pruner: AT2Pruner) -> None:
    output = await called(
        make_server(**names), "rank_passages", question=QUESTION, passages=[*PASSAGES, PASSAGES[0]]
    )
    scores = [chunk.score for chunk in pruner.score(QUESTION, [*PASSAGES, PASSAGES[0]])]
    ranked = output["result"]
    assert [row["index"] for row in ranked] == sorted(range(4), key=lambda index: -scores[index])
    assert [row["score"] for row in ranked] == pytest.approx(sorted(scores, reverse=True))


@pytest.mark.default_model
async def test_an_answer_is_cited() -> None:
    passages = ["Emma is a novel by Jane Austen.", "The Danube flows to the Black Sea."]
    answer = "Jane Austen wrote Emma. The Danube ends in the Black Sea."
    question = "Who wrote Emma, and where does the Danube end?"
    output = await called(
        make_server(), "cite_answer", question=question, answer=answer, passages=passages
    )
    expected = AT2Attributor.from_pretrained().cite(question, passages, answer)
    assert output["text"] == expected.text and "[1]" in expected.text
    assert output["sources"] == [source.text for source in expected.sources]


async def test_an_answer_needs_weights_for_answers(names: dict[str, str]) -> None:
    refused = await refusal(
        make_server(**names), "cite_answer", question=QUESTION, answer="Ada.", passages=PASSAGES
    )
    assert "no head weights for the target rule" in refused


async def test_the_command_serves_on_standard_input_and_output(names: dict[str, str]) -> None:
    options = ["--model", names["model"], "--head-weights", "uniform"]
    run = "from at2_rag.cli.group import main; main()"
    command = StdioServerParameters(
        command=sys.executable,
        args=["-c", run, "mcp", *options],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    async with Client(stdio_client(command)) as client:
        tools = {tool.name for tool in (await client.list_tools()).tools}
        result = await client.call_tool(
            "rank_passages", {"question": QUESTION, "passages": PASSAGES}
        )
    assert tools == {"prune_context", "rank_passages", "cite_answer", "expand"}
    assert result.structured_content and len(result.structured_content["result"]) == 3


def test_help_says_what_is_served() -> None:
    shown = CliRunner().invoke(main, ["mcp", "--help"])
    assert shown.exit_code == 0 and "prune_context" in shown.output
