"""`at2-rag eval qa` with pruners that are other projects', one of which changes texts."""

from __future__ import annotations

from html import escape
from pathlib import Path

import pytest
import tiktoken

from at2_rag.data.examples import Example
from at2_rag.text.chunks import Chunk
from tests.evals.labelled_items import write_items
from tests.evals.qa.command import lines, report
from tests.evals.qa.served import served
from tests.report.test_training_page import Reader

NAMES = ("minilm", "langchain_filter", "llama_index_optimizer", "long_llm_lingua")
ITEM = Example(
    id="e",
    source="novels",
    query="who wrote the novel emma",
    chunks=(
        Chunk("Austen wrote <b>emma</b>. The sea of salt is a sea.", "Emma"),
        Chunk("A sea is a sea. Of and the is a.", "Sea"),
        Chunk("Jane is jane. Who wrote the novel.", "Jane"),
    ),
    labels=(True, False, False),
    answers=("austen",),
)


def test_from_files_to_report(
    tmp_path: Path,
    scoring_folder: Path,
    embedding_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for package in ("langchain_community", "llmlingua"):
        pytest.importorskip(package)
    core = pytest.importorskip("llama_index.core")
    folder = Path(core.__file__).parent / "_static" / "tiktoken_cache"
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
    output = tmp_path / "out"
    with served() as server:
        arguments = [str(write_items(tmp_path / "novels.jsonl", [ITEM]))]
        arguments += ["--generator", "openai:gpt-4o", "--base-url", server.url]
        arguments += ["--token-counter", "cl100k_base", "--output", str(output)]
        arguments += ["--model", str(scoring_folder), "--embedding-model", str(embedding_folder)]
        arguments += ["--top-k", "2", "--max-tokens", "25"]
        for name in NAMES:
            arguments += ["--pruner", name]
        printed = report(*arguments)
    prompts = server.prompts
    records = lines(output)
    cells = {(line["pruner"], line["budget"]): line for line in records}
    encoding = tiktoken.get_encoding("cl100k_base")
    for line in records:
        texts = line["texts"] or [ITEM.chunks[index].rendered for index in line["kept"]]
        assert (line["texts"] is None) == (line["pruner"] != "llama_index_optimizer")
        context = "\n\n".join(texts)
        assert line["context_tokens"] == len(encoding.encode(context))
        assert any(context in prompt for prompt in prompts)
        if line["budget"] == "25 tokens":
            assert 0 < line["context_tokens"] <= 25
    whole, half = (cells[name, "top 2"] for name in ("minilm", "llama_index_optimizer"))
    assert whole["kept"] == half["kept"] and half["context_tokens"] < whole["context_tokens"]
    assert whole["kept"] == cells["langchain_filter", "top 2"]["kept"]
    for index, text in zip(half["kept"], half["texts"], strict=True):
        title, sentence = text.split("\n")
        assert title == ITEM.chunks[index].title
        assert sentence in ITEM.chunks[index].text and sentence.count(".") == 1
    more = cells["llama_index_optimizer", "25 tokens"]
    assert len(more["kept"]) > len(cells["minilm", "25 tokens"]["kept"])

    page = (output / "report.html").read_text()
    assert Reader(page).loads == []
    assert page.count("as changed") == 2  # a row for each budget of the only one that changes texts
    assert all(f"<p>{escape(text)}</p>" in page for text in (*half["texts"], *more["texts"]))
    assert {"llmlingua", "langchain-community", "llama-index-core"} <= set(printed["packages"])
    settings = printed["settings"]["pruners"]["llama_index_optimizer"]
    assert (settings["percentile_cutoff"], settings["ranking"]["name"]) == (0.5, "minilm")
