"""What a pruner shares: the caller's model, torch's threads, and states of chunks between calls."""

from __future__ import annotations

import copy
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
import torch

from at2_rag import AT2Pruner
from at2_rag.reading.kept_heads import KeptHeads
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.readout.head_weights import HeadWeights
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tiny_weights import random_weights, tiny_pruner

QUERY = "who wrote the novel Emma?"
CHUNKS: list[Any] = [
    "Jane Austen wrote Emma in 1815.",
    "The river flows through the old town.",
    {"title": "Bridge", "text": "It spans the harbour."},
    "The river flows through the old town.",
]


def scores(pruner: AT2Pruner, query: str = QUERY, chunks: Any = None) -> list[float]:
    return [scored.score for scored in pruner.score(query, chunks or CHUNKS)]


@pytest.fixture(scope="module")
def weights() -> HeadWeights:
    return random_weights(tiny_model(), tiny_tokenizer(), "together", "apart")


# --- the caller's model ----------------------------------------------------------------------


def generated(model: Any) -> list[int]:
    prompt = tiny_tokenizer()("The river", return_tensors="pt")
    tokens = model.generate(**prompt, max_new_tokens=8, do_sample=False)
    return list(map(int, tokens[0]))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("reading", ["independent", "joint"])
def test_the_callers_model_is_not_changed(family: str, reading: Any) -> None:
    model, tokenizer = tiny_model(family), copy.deepcopy(tiny_tokenizer())
    tokenizer.backend_tokenizer.enable_truncation(max_length=5)
    tokenizer.padding_side = "left"
    model.train()
    parameters = dict(model.named_parameters())
    values = {name: value.detach().clone() for name, value in model.state_dict().items()}
    config, backend = model.config.to_dict(), tokenizer.backend_tokenizer.to_str()
    attention, modules = model.config._attn_implementation, list(model.modules())
    model.eval()
    words = generated(model)
    model.train()

    pruner = tiny_pruner(model=model, tokenizer=tokenizer, reading=reading, chunk_cache={})
    pruner.prune(QUERY, CHUNKS, top_k=2)

    assert model.training and all(module.training for module in model.modules())
    assert all(one is other for one, other in zip(model.modules(), modules, strict=True))
    assert all(parameters[name] is value for name, value in model.named_parameters())
    assert all(value.requires_grad for value in model.parameters())
    assert all(torch.equal(values[name], value) for name, value in model.state_dict().items())
    assert model.config.to_dict() == config
    assert model.config._attn_implementation == attention
    assert all(
        not hooks
        for module in model.modules()
        for hooks in (module._forward_hooks, module._forward_pre_hooks)
    )
    assert tokenizer.backend_tokenizer.to_str() == backend
    assert tokenizer.padding_side == "left"
    model.eval()
    assert generated(model) == words


def test_the_callers_weights_are_shared_and_not_copied() -> None:
    model = tiny_model()
    pruner = tiny_pruner(model=model, reading="joint")
    before = scores(pruner)
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight.mul_(2.0)
    assert scores(pruner) == pytest.approx(
        scores(tiny_pruner(model=model, reading="joint")), abs=1e-7
    )
    assert scores(pruner) != pytest.approx(before, abs=1e-4)


def test_a_deep_copy_is_the_pruner_itself(weights: HeadWeights) -> None:
    pruner = tiny_pruner(weights, chunk_cache={})
    expected = scores(pruner)
    settings = copy.deepcopy({"pruner": pruner, "limits": {"top_k": 3}})
    assert settings["pruner"] is pruner
    assert scores(pruner) == expected


# --- threads ---------------------------------------------------------------------------------


@pytest.mark.parametrize("reading", ["independent", "joint"])
def test_eight_threads_get_what_one_gets(reading: Any) -> None:
    passes: Any = ("joint",) if reading == "joint" else ("together", "apart")
    pruner = tiny_pruner(random_weights(tiny_model(), tiny_tokenizer(), *passes))
    requests = [
        (f"what is number {number}?", [f"{number} {text}" for text in ("a", "river b", "c")])
        for number in range(24)
    ]
    together: list[Any]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda request: scores(pruner, *request), requests))
    alone = tiny_pruner(pruner.head_weights)
    for request, together_scores in zip(requests, together, strict=True):
        assert together_scores == pytest.approx(scores(alone, *request), abs=1e-5)


@pytest.mark.parametrize("reading", ["independent", "joint"])
def test_few_threads_read_at_a_time_and_the_others_say_how_long_they_waited(
    reading: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("at2_rag.pruning.workers._cores", lambda: 2 * torch.get_num_threads())
    pruner = tiny_pruner(reading=reading)
    pruner.prune(QUERY, CHUNKS, top_k=1)  # reads the prefix, alone
    inside: Counter[int] = Counter()  # by thread: one may have several passes under way
    most = 0
    lock, entered = threading.Lock(), threading.Barrier(3)
    original = ScoringModel.run

    def run(self: ScoringModel, *args: Any, **kwargs: Any) -> None:
        nonlocal most
        with lock:
            inside[threading.get_ident()] += 1
            most = max(most, len(+inside))
        with suppress(threading.BrokenBarrierError):
            entered.wait(2)  # three come together; a fourth would be seen, too
        time.sleep(0.02)
        try:
            original(self, *args, **kwargs)
        finally:
            with lock:
                inside[threading.get_ident()] -= 1

    monkeypatch.setattr(ScoringModel, "run", run)
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda _: pruner.prune(QUERY, CHUNKS, top_k=1), range(8)))
    assert most == 3
    waits = sorted(one.timings["wait"] for one in results)
    assert len(waits) == 8 and waits[3] > 0.02, "at least five waited for a pass of another"


def test_the_main_thread_reads_and_for_all_others_a_few_of_the_pruners_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pruner = tiny_pruner(chunk_cache={})
    readers: list[str] = []
    original = ScoringModel.run

    def run(self: ScoringModel, *args: Any, **kwargs: Any) -> None:
        readers.append(threading.current_thread().name)
        original(self, *args, **kwargs)

    monkeypatch.setattr(ScoringModel, "run", run)
    expected = scores(pruner)
    assert set(readers) == {threading.main_thread().name}
    readers.clear()
    with ThreadPoolExecutor(8) as threads:
        for result in threads.map(lambda _: scores(pruner), range(8)):
            assert result == pytest.approx(expected, abs=1e-6)
    assert set(readers) == {"at2_rag"}


def test_an_error_in_another_thread_is_raised_in_the_callers() -> None:
    class Broken(dict[str, Any]):
        def get(self, *_: Any) -> Any:
            raise TimeoutError("the cache is gone")

    pruner = tiny_pruner(chunk_cache=Broken())
    with ThreadPoolExecutor(1) as threads, pytest.raises(TimeoutError, match="the cache is gone"):
        threads.submit(pruner.prune, QUERY, CHUNKS, top_k=1).result(60)


def test_the_number_of_torch_threads_is_the_callers() -> None:
    before = torch.get_num_threads()
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            tiny_pruner().prune(QUERY, CHUNKS, top_k=1)
            assert torch.get_num_threads() == number
            with ThreadPoolExecutor(2) as threads:
                for _ in threads.map(lambda _: scores(tiny_pruner()), range(2)):
                    pass
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(before)


def test_random_numbers_and_gradient_mode_are_the_callers() -> None:
    state = torch.random.get_rng_state()
    tiny_pruner().prune(QUERY, CHUNKS, top_k=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


# --- states of chunks ------------------------------------------------------------------------


def test_another_pruner_of_the_same_model_uses_the_states(weights: HeadWeights) -> None:
    store: dict[str, KeptHeads] = {}
    expected = scores(tiny_pruner(weights, chunk_cache=store))
    second = tiny_pruner(weights, chunk_cache=store)
    assert scores(second) == pytest.approx(expected, abs=1e-6)
    for key, kept in store.items():
        store[key] = KeptHeads(kept.levels * 0)
    assert scores(second) != pytest.approx(expected, abs=1e-2), "it looks nowhere else"
    for key, kept in store.items():
        store[key] = KeptHeads(kept.levels[1:])
    assert scores(second) == pytest.approx(expected, abs=1e-6), "it has read them again"


@pytest.mark.parametrize(
    "other",
    [
        lambda store: tiny_pruner(model=tiny_model(seed=1), chunk_cache=store),
        lambda store: tiny_pruner(
            random_weights(tiny_model(), tiny_tokenizer(), "apart"), chunk_cache=store
        ),
        lambda store: tiny_pruner(tokenizer=tiny_tokenizer(chat_template=False), chunk_cache=store),
        lambda store: tiny_pruner(model=tiny_model().bfloat16(), chunk_cache=store),
    ],
    ids=["model", "depth", "template", "dtype"],
)
def test_states_of_another_model_depth_template_or_dtype_are_never_mixed_up(other: Any) -> None:
    store: dict[str, KeptHeads] = {}
    scores(tiny_pruner(chunk_cache=store))
    assert scores(other(store)) == pytest.approx(scores(other(None)), abs=1e-6)
    assert len(store) == 6
