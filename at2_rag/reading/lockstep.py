"""Several forward passes of one thread, a layer of each at a time.

A pass that is to wait for others between layers runs in a greenlet: at the entry of every layer it
hands control back, and goes on when its turn comes. So what a layer leaves for other passes need be
in memory only until they have had their own turn in that layer.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Sequence
from typing import Any

import torch
from greenlet import getcurrent, greenlet
from torch import Tensor, nn

from at2_rag.model.forks import forks
from at2_rag.progress import Stopwatch, check_wanted


class _ForwardPass(greenlet):
    """A forward pass that stops at every layer, in a copy of its caller's context."""

    def __init__(self, run: Callable[[], None]) -> None:
        super().__init__(run)
        self.gr_context = contextvars.copy_context()


def between_layers(*_: Any) -> None:
    """Wait for the other passes of `run_in_lockstep`, if there are any; a hook before a layer.

    Work that nobody waits for any more ends here, and forks have their moment.
    """
    forks.let_pass()
    check_wanted()
    current = getcurrent()
    if isinstance(current, _ForwardPass) and current.parent is not None:
        current.parent.switch()


def reuse_input(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
    """Write a layer's output over its input, in a pass that runs in lockstep; a hook after a layer.

    Many passes wait between layers at a time, and transformers' models hold the first layer's input
    until they are through: so there is one of both.
    """
    if isinstance(getcurrent(), _ForwardPass) and isinstance(output, Tensor):
        hidden = inputs[0]
        if hidden.shape == output.shape and hidden.dtype == output.dtype:
            return hidden.copy_(output)
    return output


def run_in_lockstep(passes: Sequence[tuple[str, Callable[[], None]]], watch: Stopwatch) -> None:
    """Run forward passes layer by layer, in each layer in the order given, in inference mode.

    The mode is the thread's and not a pass's: it is entered around all of them, because passes
    that enter it by themselves don't leave it in reverse order. The same goes for a lock: passes
    that take one must not be run here. If a pass raises, the others are given up. Each pass, one
    model call, comes with the stage of `watch` that its time counts to.
    """
    running = [(stage, _ForwardPass(run)) for stage, run in passes]
    with torch.inference_mode():
        try:
            while running:
                for stage, forward_pass in running:
                    with watch.stage(stage):
                        forward_pass.switch()
                running = [(stage, left) for stage, left in running if not left.dead]
        finally:
            for _, left in running:
                if not left.dead:
                    left.throw()
