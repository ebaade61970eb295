"""The generator over a network, against a real server."""

from __future__ import annotations

from pathlib import Path

import pytest

from at2_rag.errors import InputError
from at2_rag_evals.qa.answer_store import AnswerStore
from at2_rag_evals.qa.generators.base import Answer, Failure, GenerationError, Generator
from at2_rag_evals.qa.generators.openai_model import OpenAIGenerator
from at2_rag_evals.qa.generators.registry import make_generators
from at2_rag_evals.qa.request import QARequest
from tests.evals.qa.served import served


def words(text: str) -> int:
    return len(text.split())


def generator(url: str, **options: int) -> OpenAIGenerator:
    options = {"attempts": 2, **options}
    return OpenAIGenerator(
        "gpt-x", count=words, base_url=url, answer_tokens=9, timeout=0.7, **options
    )


@pytest.mark.parametrize("step", ["503", "429", "hang", "drop"])
def test_a_busy_server_is_tried_again(step: str) -> None:
    with served({"flaky": [step]}) as server:
        answers = dict(generator(server.url).answer(["a flaky one\nQ1", "fine\nQ2"]))
    assert sorted(prompt[0] for prompt in server.prompts) == [*"aaf"]
    flaky, fine = answers[0], answers[1]
    assert isinstance(flaky, Answer) and isinstance(fine, Answer)
    assert (flaky.text, flaky.attempts) == ("Answer to: Q1", 2)
    assert (fine.text, fine.attempts) == ("Answer to: Q2", 1)
    assert (fine.prompt_tokens, fine.new_tokens) == (11, 7)  # as the server counts


def test_what_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with served({"one": ["no usage"]}) as server:
        model = generator(server.url)
        [(_, answer)] = model.answer(["number one"])
    [request] = server.requests
    assert request == {
        "path": "/v1/chat/completions",
        "key": "Bearer secret",
        "model": "gpt-x",
        "messages": [{"role": "user", "content": "number one"}],
        "max_tokens": 9,
        "temperature": 0,
    }
    assert isinstance(answer, Answer) and (answer.prompt_tokens, answer.new_tokens) == (2, 4)
    assert "secret" not in str(model.settings)


def test_parameters_that_a_model_does_not_take_are_left_out() -> None:
    with served(refused=("max_tokens", "temperature")) as server:
        answers = dict(generator(server.url, parallel=1).answer(["Q1", "Q2"]))
    assert all(isinstance(answer, Answer) for answer in answers.values())
    sent = [
        request.keys() & {"max_tokens", "max_completion_tokens", "temperature"}
        for request in server.requests
    ]
    left, last = {"max_completion_tokens", "temperature"}, {"max_completion_tokens"}
    assert sent == [{"max_tokens", "temperature"}, left, last, last]
    assert server.requests[-1]["max_completion_tokens"] == 9
    with served(refused=("messages",)) as server:
        [(_, answer)] = generator(server.url).answer(["Q1"])
    assert isinstance(answer, Failure) and "unsupported" in answer.reason
    assert len(server.requests) == 1


def test_a_prompt_without_an_answer_is_sent_again_by_the_next_run(tmp_path: Path) -> None:
    plan = {"bad": ["500"] * 2, "long": ["400"], "torn": ["garbage"], "odd": ["other"]}
    prompts = ["good", "bad", "long", "torn", "odd", "mute"]
    with served({**plan, "mute": ["empty"]}) as server:
        # One at a time: answers in any order might have three failures in a row.
        first = AnswerStore(generator(server.url, parallel=1), tmp_path / "store.sqlite")
        results = dict(zip(prompts, first.answers(prompts), strict=True))
        reasons = {name: one.reason for name, one in results.items() if isinstance(one, Failure)}
        assert list(reasons) == list(plan)
        assert "500" in reasons["bad"] and "refused the prompt" in reasons["long"]
        empty = results["mute"]
        assert isinstance(empty, Answer) and empty.text == ""
        before = len(server.requests)
        second = AnswerStore(generator(server.url), tmp_path / "store.sqlite")
        assert second.missing(prompts) == list(reasons)
        assert all(isinstance(one, Answer) for one in second.answers(prompts))
        assert len(server.requests) == before + 4


@pytest.mark.parametrize("status", ["401", "404"])
def test_a_wrong_key_or_address_stops_the_run(status: str) -> None:
    with served({"p": [status] * 9}) as server:
        with pytest.raises(GenerationError, match=f"{status}.* check --base-url"):
            list(generator(server.url).answer([f"p{number}" for number in range(50)]))
    assert len(server.requests) < 20


def test_a_dead_server_stops_the_run_early() -> None:
    dead = generator("http://127.0.0.1:9/v1", attempts=1)
    with pytest.raises(GenerationError, match="3 prompts in a row failed .* APIConnectionError"):
        list(dead.answer([*"abcdefgh"]))


def test_generators_that_cannot_be_made_and_a_folder_that_counts_tokens(
    tmp_path: Path, scoring_folder: Path
) -> None:
    def make(spec: str, counter: Path | None = None) -> Generator:
        token_counter = None if counter is None else str(counter)
        request = QARequest(output=tmp_path, generators=(spec,), token_counter=token_counter)
        return make_generators(request)[0]

    with pytest.raises(InputError, match="names no model"):
        make("openai:")
    with pytest.raises(InputError, match="how 'nobody-knows' counts tokens .* --token-counter"):
        make("openai:nobody-knows")
    with pytest.raises(InputError, match="can't be loaded as a tokenizer"):
        make("openai:nobody-knows", tmp_path)
    model = make("openai:nobody-knows", scoring_folder)
    assert model.name == "nobody-knows" and model.count("the sea") > 0
