"""Generators over a network, against a real server process and frameworks' own model objects."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from at2_rag.errors import InputError
from at2_rag_evals.qa.answer_store import AnswerStore
from at2_rag_evals.qa.generators.base import Answer, Failure, GenerationError
from at2_rag_evals.qa.generators.endpoint import EndpointGenerator
from at2_rag_evals.qa.generators.first_tokens import first_tokens
from at2_rag_evals.qa.generators.registry import GeneratorOptions, make_generator
from at2_rag_evals.qa.generators.retrying import Patience
from tests.evals.qa.served import served

QUICK = Patience(attempts=4, first_wait=0.01, workers=2)


def words(text: str) -> int:
    return len(text.split())


def generator(url: str, *, patience: Patience = QUICK, key: str | None = None) -> EndpointGenerator:
    return EndpointGenerator(
        "gpt-x", url, count=words, key=key, answer_tokens=9, timeout=0.8, patience=patience
    )


@pytest.mark.parametrize("step", ["500", "503", "429", "hang", "drop", "garbage", "other", "empty"])
def test_a_flaky_endpoint_is_asked_again(tmp_path: Path, step: str) -> None:
    with served(tmp_path / "log", {"flaky": [step, step]}) as server:
        found = dict(generator(server.url).answer(["a flaky one\nQ1", "fine\nQ2"]))
        requests = server.requests()
    assert sorted(request["messages"][0]["content"][0] for request in requests) == [*"aaaf"]
    flaky, fine = found[0], found[1]
    assert isinstance(flaky, Answer) and isinstance(fine, Answer)
    assert (flaky.text, flaky.attempts) == ("Answer to: Q1", 3)
    assert (fine.text, fine.attempts) == ("Answer to: Q2", 1)
    assert (fine.prompt_tokens, fine.new_tokens) == (11, 7)  # as the server said
    if step == "429":
        times = [own["time"] for own in requests if "flaky" in own["messages"][0]["content"]]
        assert times[1] - times[0] >= 0.6 and times[2] - times[1] >= 0.6  # Retry-After


def test_what_is_asked(tmp_path: Path) -> None:
    with served(tmp_path / "log", {"one": ["untold"]}) as server:
        [(place, answer)] = generator(server.url, key="secret").answer(["number one"])
        [request] = server.requests()
    assert request.pop("time") and request == {
        "path": "/v1/chat/completions",
        "key": "Bearer secret",
        "model": "gpt-x",
        "messages": [{"role": "user", "content": "number one"}],
        "max_tokens": 9,
        "temperature": 0,
    }
    assert isinstance(answer, Answer) and (answer.prompt_tokens, answer.new_tokens) == (2, 4)
    assert "secret" not in str(generator(server.url, key="secret").settings)


def test_answers_that_stay_empty_are_taken_as_they_are(tmp_path: Path) -> None:
    with served(tmp_path / "log", {"mute": ["empty"] * 9}) as server:
        [(_, answer)] = generator(server.url).answer(["mute"])
        assert len(server.requests()) == 4
    assert isinstance(answer, Answer) and (answer.text, answer.attempts) == ("", 4)


def test_a_prompt_that_fails_is_asked_again_by_the_next_run(tmp_path: Path) -> None:
    with served(tmp_path / "log", {"bad": ["500"] * 4, "long": ["400"]}) as server:
        first = AnswerStore(generator(server.url), tmp_path / "answers")
        results = first.answers(["good", "bad", "long"])
        assert isinstance(results[0], Answer)
        bad, long = results[1:]
        assert isinstance(bad, Failure) and "failed 4 times" in bad.reason and "500" in bad.reason
        assert isinstance(long, Failure) and "answered 400 and said not now" in long.reason
        before = len(server.requests())
        second = AnswerStore(generator(server.url), tmp_path / "answers")
        assert second.missing(["good", "bad", "long"]) == ["bad", "long"]
        assert all(isinstance(own, Answer) for own in second.answers(["good", "bad", "long"]))
        assert len(server.requests()) == before + 2


@pytest.mark.parametrize("status", ["401", "404"])
def test_a_wrong_key_or_address_stops_the_run(tmp_path: Path, status: str) -> None:
    with served(tmp_path / "log", {"p": [status] * 9}) as server:
        with pytest.raises(GenerationError, match=f"answered {status} .* check --endpoint"):
            list(generator(server.url).answer([f"p{number}" for number in range(50)]))
        assert len(server.requests()) < 10


def test_a_dead_endpoint_stops_the_run_early(tmp_path: Path) -> None:
    patience = Patience(attempts=2, first_wait=0.01, workers=1)
    with pytest.raises(GenerationError, match="3 prompts in a row failed 2 times.*ConnectError"):
        list(generator("http://127.0.0.1:9/v1", patience=patience).answer([*"abcdefgh"]))


def test_answers_are_cut_at_whole_words() -> None:
    assert first_tokens("one two  three", 3, words) == "one two  three"
    assert first_tokens("one two  three four", 3, words) == "one two  three"
    assert first_tokens("one two", 1, words) == "one"
    assert first_tokens("longer", 3, len) == ""
    assert first_tokens("ab cd ef", 5, len) == "ab cd"


MODULE = """
from langchain_core.language_models import FakeListChatModel, FakeListLLM
from llama_index.core.llms import MockLLM
chat = FakeListChatModel(responses=["It was Jane Austen who wrote it."])
text = FakeListLLM(responses=["  "])
def make():
    return MockLLM(max_tokens=3)
class Broken:
    def invoke(self, prompt):
        raise RuntimeError("no network")
number = 5
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    pytest.importorskip("langchain_core")
    pytest.importorskip("llama_index.core")
    name = f"models_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return name


def test_framework_models_answer_and_are_cut(module: str, scoring_folder: Path) -> None:
    options = GeneratorOptions(answer_tokens=6, token_counter=str(scoring_folder), patience=QUICK)
    chat = make_generator(f"langchain:{module}:chat", options)
    [(_, answer)] = chat.answer(["who?"])
    assert isinstance(answer, Answer)
    assert "It was Jane Austen who wrote it.".startswith(answer.text) and 0 < answer.new_tokens <= 6
    assert chat.count(answer.text) == answer.new_tokens
    empty = dict(make_generator(f"langchain:{module}:text", options).answer(["who?"]))[0]
    assert isinstance(empty, Answer) and (empty.text, empty.attempts) == ("", 4)
    index = dict(make_generator(f"llama_index:{module}:make", options).answer(["a b c d"]))[0]
    assert isinstance(index, Answer) and index.text
    broken = dict(make_generator(f"langchain:{module}:Broken", options).answer(["who?"]))[0]
    assert isinstance(broken, Failure) and "RuntimeError: no network" in broken.reason
    assert str(Path.cwd()) not in sys.path


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("anthropic:x", "there is no generator 'anthropic:x'; .*hf:..., openai:..."),
        ("openai:", "there is no generator"),
        ("openai:my-own-model", "how 'openai:my-own-model' counts tokens .*--token-counter"),
        ("langchain:a:b", "how 'langchain:a:b' counts tokens"),
    ],
)
def test_generators_that_cannot_be_made_say_why(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_generator(spec, GeneratorOptions())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{}:missing", "can't be imported .AttributeError"),
        ("{}x:chat", "can't be imported .ModuleNotFoundError"),
        ("{}:number", "is a int without the method 'invoke'"),
        ("{}", "names no object"),
    ],
)
def test_objects_that_cannot_be_used_say_why(
    module: str, scoring_folder: Path, name: str, message: str
) -> None:
    options = GeneratorOptions(token_counter=str(scoring_folder))
    with pytest.raises(InputError, match=message):
        make_generator("langchain:" + name.format(module), options)
