"""Forward passes that go through the layers together."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

import pytest

from at2_rag.progress import Stopwatch
from at2_rag.reading.lockstep import between_layers, run_in_lockstep


def forward_pass(name: str, seen: list[str], layers: int = 3) -> Callable[[], None]:
    def run() -> None:
        for layer in range(layers):
            between_layers()
            seen.append(f"{name}{layer}")

    return run


def test_each_layer_is_run_in_the_order_given() -> None:
    seen: list[str] = []
    watch = Stopwatch()
    passes = [("one", forward_pass("a", seen)), ("two", forward_pass("b", seen, layers=2))]
    run_in_lockstep(passes, watch)
    assert seen == ["a0", "b0", "a1", "b1", "a2"]
    assert set(watch.seconds()) == {"one", "two", "total"}


def test_passes_run_in_the_callers_context_and_keep_what_they_set() -> None:
    variable = ContextVar("variable", default="unset")
    seen: list[str] = []

    def setting(name: str) -> Callable[[], None]:
        def run() -> None:
            seen.append(variable.get())
            variable.set(name)
            between_layers()
            seen.append(variable.get())

        return run

    token = variable.set("caller's")
    run_in_lockstep([("one", setting("a")), ("two", setting("b"))], Stopwatch())
    assert seen == ["caller's", "caller's", "a", "b"]
    assert variable.get() == "caller's"
    variable.reset(token)


def test_a_pass_by_itself_waits_for_none() -> None:
    seen: list[str] = []
    forward_pass("a", seen)()
    assert seen == ["a0", "a1", "a2"]


def test_an_error_gives_up_the_others_and_is_told() -> None:
    seen: list[str] = []
    ended: list[str] = []

    def failing() -> None:
        between_layers()
        between_layers()
        raise ValueError("overflow")

    def other() -> None:
        try:
            forward_pass("a", seen)()
        finally:
            ended.append("a")

    with pytest.raises(ValueError, match="overflow"):
        run_in_lockstep([("one", other), ("two", failing)], Stopwatch())
    assert seen == ["a0", "a1"]
    assert ended == ["a"]
    run_in_lockstep([("one", forward_pass("b", seen))], Stopwatch())
    assert seen[-3:] == ["b0", "b1", "b2"]
