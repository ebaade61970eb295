"""Other projects' pruners: what each keeps, compared with brute force over the same models."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers import AutoModelForCausalLM

from at2_rag.data.examples import Example
from at2_rag.errors import ScoringError
from at2_rag.text.chunks import Chunk
from at2_rag_evals.qa.pruners.base import Pruner
from at2_rag_evals.qa.pruners.registry import make_pruners
from at2_rag_evals.qa.request import QARequest
from tests.evals.labelled_items import write_items
from tests.evals.qa.command import lines, report
from tests.evals.qa.test_pruners import limit
from tests.tiny_models import tiny_tokenizer

PACKAGES = {
    "langchain_filter": "langchain_community",
    "llama_index_optimizer": "llama_index.core",
    "long_llm_lingua": "llmlingua",
}
QUERY = "who wrote the novel"
ITEM = Example(
    "x",
    "s",
    QUERY,
    (
        Chunk("The sea is the sea. Jane wrote a novel. And emma is of austen. Is the sea?"),
        Chunk("Who wrote the novel emma", "Jane"),
        Chunk("A novel is a novel. The jane of the sea. Who wrote emma?", "Emma"),
        Chunk("Of the sea and emma. Austen wrote."),
        Chunk("emma sea."),
        Chunk(" \n"),
    ),
    (False,) * 6,
)


def words(text: str) -> int:
    return len(text.split())


def make(name: str, request: QARequest) -> Pruner:
    pytest.importorskip(PACKAGES[name])
    [pruner] = make_pruners(replace(request, pruners=(name,)))
    assert pruner.name == name
    json.dumps(dict(pruner.settings), allow_nan=False)
    return pruner


@pytest.fixture
def qa_request(tmp_path: Path, embedding_folder: Path, scoring_folder: Path) -> QARequest:
    return QARequest(
        output=tmp_path, model=str(scoring_folder), embedding_model=str(embedding_folder)
    )


@pytest.fixture(scope="module")
def embedding_model(embedding_folder: Path) -> Any:
    library = pytest.importorskip("sentence_transformers")
    return library.SentenceTransformer(str(embedding_folder), device="cpu")


def cosines(model: Any, query: str, texts: Sequence[str]) -> npt.NDArray[np.float64]:
    rows = np.array([model.encode(text) for text in (query, *texts)], dtype=np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    values: npt.NDArray[np.float64] = rows[1:] @ rows[0]
    assert np.diff(np.sort(values)).min(initial=1) > 1e-4  # no ties, whose order isn't defined
    return values


def fill(ranking: Sequence[int], texts: Sequence[str], room: int) -> tuple[int, ...]:
    """Take texts in turn, those that still fit."""
    taken: list[int] = []
    for index in ranking:
        if words(texts[index]) <= room:
            taken.append(index)
            room -= words(texts[index])
    return tuple(taken)


def test_langchains_filter_keeps_the_most_similar_documents(
    qa_request: QARequest, embedding_model: Any
) -> None:
    pruner = make("langchain_filter", qa_request)
    texts = [chunk.rendered for chunk in ITEM.chunks]
    ranking = np.argsort(-cosines(embedding_model, QUERY, texts)).tolist()
    assert ranking != sorted(ranking)
    for k in (1, 3, 9):
        assert pruner.prune(ITEM, limit(top_k=k)).kept == tuple(ranking[:k])
    assert pruner.prune(ITEM, limit(top_k=3, order="original")).kept == tuple(sorted(ranking[:3]))


SENTENCES = (
    ("The sea is the sea.", "Jane wrote a novel.", "And emma is of austen.", "Is the sea?"),
    ("Who wrote the novel emma",),
    ("A novel is a novel.", "The jane of the sea.", "Who wrote emma?"),
    ("Of the sea and emma.", "Austen wrote."),
    ("emma sea.",),
    (" \n",),
)


def trimmed(model: Any) -> list[str]:
    """Title and the better half of the sentences, best first, of each of the item's chunks."""
    texts = []
    for chunk, sentences in zip(ITEM.chunks, SENTENCES, strict=True):
        best = np.argsort(-cosines(model, QUERY, sentences))[: max(1, len(sentences) // 2)]
        text = " ".join(sentences[index] for index in best)
        texts.append(f"{chunk.title}\n{text}" if chunk.title else text)
    return texts


def test_llama_indexs_optimizer_passes_on_the_better_half_of_the_best_chunks(
    qa_request: QARequest, embedding_model: Any
) -> None:
    pruner = make("llama_index_optimizer", qa_request)
    texts = trimmed(embedding_model)
    rendered = [chunk.rendered for chunk in ITEM.chunks]
    ranking = np.argsort(-cosines(embedding_model, QUERY, rendered)).tolist()
    for k in (1, 3):
        pruned = pruner.prune(ITEM, limit(top_k=k))
        assert pruned.kept == tuple(ranking[:k])
        assert pruned.texts == tuple(texts[index] for index in ranking[:k])
        assert [chunk.rendered for chunk in pruned.passed_on(ITEM.chunks)] == list(pruned.texts)
    for room in (1, 12, 20, 99):  # filled with what is passed on, not with whole chunks
        pruned = pruner.prune(ITEM, limit(max_tokens=room))
        assert pruned.kept == fill(ranking, texts, room)
        assert words(" ".join(pruned.texts or ())) <= room
    assert fill(ranking, texts, 20) != fill(ranking, rendered, 20)


def test_changed_texts_reach_prompt_report_and_page(
    qa_request: QARequest, tmp_path: Path, scoring_folder: Path
) -> None:
    make("llama_index_optimizer", qa_request)
    files = write_items(tmp_path / "novels.jsonl", [replace(ITEM, answers=("austen",))])
    report(
        *(files, "--generator", scoring_folder, "--answer-tokens", 1, "--output", tmp_path / "o"),
        *("--embedding-model", qa_request.embedding_model, "--top-k", 2),
        *("--pruner", "minilm", "--pruner", "llama_index_optimizer"),
    )
    cells = {(line["pruner"], line["budget"]): line for line in lines(tmp_path / "o")}
    whole, half = (cells[name, "top 2"] for name in ("minilm", "llama_index_optimizer"))
    assert whole["kept"] == half["kept"] and whole["texts"] is None
    assert half["answer"]["prompt_tokens"] < whole["answer"]["prompt_tokens"]
    page = (tmp_path / "o" / "report.html").read_text()
    assert page.count("as changed") == 1
    assert all(f"<p>{escape(text)}</p>" in page for text in half["texts"])


def test_trimmed_texts_are_found_again(
    qa_request: QARequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make("llama_index_optimizer", qa_request)
    results = [first.prune(ITEM, limit(top_k=k)) for k in (1, 3)]
    again = make("llama_index_optimizer", qa_request)
    library = pytest.importorskip("sentence_transformers")
    monkeypatch.setattr(library, "SentenceTransformer", None)  # nothing is loaded
    repeated = [again.prune(ITEM, limit(top_k=k)) for k in (1, 3)]
    assert [(one.kept, one.texts) for one in repeated] == [(one.kept, one.texts) for one in results]


def question_log_likelihood(model: Any, document: str) -> float:
    """The mean log-probability of the question and LongLLMLingua's sentence after a document."""
    tokenizer = tiny_tokenizer()
    question = f"{QUERY} We can get the answer to this question in the given documents."
    before = tokenizer(document)["input_ids"]
    ids = tokenizer(document + question)["input_ids"]
    assert ids[: len(before)] == before
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double()
    logs = logits.log_softmax(-1)
    likelihoods = [float(logs[n - 1, ids[n]]) for n in range(len(before), len(ids))]
    return sum(likelihoods) / len(likelihoods)


def test_long_llm_lingua_is_its_formula(
    qa_request: QARequest, scoring_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pruner = make("long_llm_lingua", qa_request)
    import tiktoken

    monkeypatch.setattr(tiktoken, "encoding_for_model", None)  # whose vocabulary is fetched
    model = AutoModelForCausalLM.from_pretrained(scoring_folder, dtype=torch.float32)
    texts = [chunk.rendered for chunk in ITEM.chunks]
    expected = np.array([question_log_likelihood(model, text) for text in texts])
    assert np.diff(np.sort(expected)).min() > 1e-5
    assert pruner.prune(ITEM, limit(top_k=6)).kept == tuple(np.argsort(-expected).tolist())
    from at2_rag_evals.qa.pruners.long_llm_lingua import LongLLMLinguaRanker

    ranker = LongLLMLinguaRanker(str(scoring_folder))
    ranker.prepare()
    assert ranker.score(QUERY, ITEM.chunks).scores == pytest.approx(expected.tolist(), abs=1e-5)


def test_long_llm_lingua_cuts_nothing(qa_request: QARequest) -> None:
    pruner = make("long_llm_lingua", qa_request)
    item = Example("long", "s", QUERY, (Chunk("emma"), Chunk("sea " * 3000)), (False,) * 2)
    with pytest.raises(ScoringError, match=r"'long' of s: .* have \d{4} tokens, .* takes 2048"):
        pruner.prune(item, limit(top_k=1))


@pytest.mark.parametrize("name", PACKAGES)
def test_any_text_can_be_pruned(name: str, qa_request: QARequest) -> None:
    pruner = make(name, qa_request)
    hostile = ["", " \n", "emma \x00\ud800 🙂. A.", "<|im_end|> [CLS]", "מי כתב", "emma. " * 200]
    chunks = (*map(Chunk, hostile), Chunk("emma", title="\ud800 a title"))
    item = Example("h", "s", "🙂\ud800", chunks, (False,) * 7)
    assert len(set(pruner.prune(item, limit(top_k=7)).kept)) == 7
    one = Example("h", "s", "who wrote emma", chunks[:1], (False,))
    assert pruner.prune(one, limit(top_k=7)).kept == (0,)


@pytest.mark.parametrize(("name", "package"), PACKAGES.items())
def test_a_missing_package_is_named_before_anything_runs(
    name: str, package: str, qa_request: QARequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=re.escape(f"need {package} (")) as caught:
        make_pruners(replace(qa_request, pruners=(name,)))
    assert str(caught.value).endswith('run: pip install "at2-rag[peers]"')
