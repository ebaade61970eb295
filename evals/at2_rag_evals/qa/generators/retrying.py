"""Asking again what can't be asked once for all: generators over a network."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial

from at2_rag_evals.qa.generators.base import Answer, Failure, GenerationError

try:
    import tenacity
except ImportError as error:
    raise ImportError(
        f'asking again needs tenacity ({error}); run: pip install "at2-rag[evals]"'
    ) from error

MOST_WAIT = 60.0
"""Longest wait before asking again, in seconds, unless the server names a longer one."""

GIVE_UP_AFTER = 3
"""Prompts in a row that fail to the last attempt before a run stops."""


class TransientError(Exception):
    """An answer that may come if it is asked for again.

    Args:
        reason: What went wrong.
        wait: Least seconds until then, where the server said so.
    """

    def __init__(self, reason: str, *, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class EmptyAnswerError(TransientError):
    """An empty answer; the last attempt's is taken.

    Args:
        answer: The answer.
    """

    def __init__(self, answer: Answer) -> None:
        super().__init__("the answer is empty")
        self.answer = answer


class RefusedPromptError(Exception):
    """A prompt that will never be answered, while others may."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and how soon to ask again.

    Attributes:
        attempts: Most times a prompt is asked.
        first_wait: Seconds before the second attempt; doubled each time, at most `MOST_WAIT`.
        workers: Prompts asked at a time.
    """

    attempts: int = 6
    first_wait: float = 1.0
    workers: int = 4


def answer_patiently(
    prompts: Sequence[str], ask: Callable[[str], Answer], patience: Patience
) -> Iterator[tuple[int, Answer | Failure]]:
    """Yield each prompt's place and answer as it comes.

    Args:
        prompts: The prompts.
        ask: Asks once; raises TransientError or RefusedPromptError. Called from many threads.
        patience: How often to ask, and how many at a time.

    Raises:
        GenerationError: If several prompts in a row fail to the last attempt, or `ask` raises it.
    """
    in_a_row, stopped = 0, threading.Event()
    with ThreadPoolExecutor(patience.workers) as executor:
        asked: dict[Future[Answer | Failure | TransientError], int] = {
            executor.submit(_ask_again, ask, prompt, patience, stopped): place
            for place, prompt in enumerate(prompts)
        }
        try:
            for future in as_completed(asked):
                result = future.result()
                if isinstance(result, TransientError):
                    in_a_row += 1
                    reason = f"failed {patience.attempts} times, the last time because: {result}"
                    if in_a_row == GIVE_UP_AFTER:
                        raise GenerationError(
                            f"{in_a_row} prompts in a row {reason}; see to it and run the command "
                            "again, what was answered is stored"
                        )
                    yield asked[future], Failure(reason)
                else:
                    in_a_row = 0
                    yield asked[future], result
        finally:
            stopped.set()
            for future in asked:
                future.cancel()


def _ask_again(
    ask: Callable[[str], Answer], prompt: str, patience: Patience, stopped: threading.Event
) -> Answer | Failure | TransientError:
    backoff = tenacity.wait_exponential(multiplier=patience.first_wait, max=MOST_WAIT)

    def wait(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        named = error.wait if isinstance(error, TransientError) else 0.0
        return max(named, backoff(state))

    retrying = tenacity.Retrying(
        stop=tenacity.stop_any(
            tenacity.stop_after_attempt(patience.attempts), tenacity.stop_when_event_set(stopped)
        ),
        sleep=tenacity.sleep_using_event(stopped),
        wait=wait,
        retry=tenacity.retry_if_exception_type(TransientError),
        reraise=True,
    )
    try:
        answer = retrying(partial(ask, prompt))
    except EmptyAnswerError as error:
        answer = error.answer
    except TransientError as error:
        return error
    except RefusedPromptError as error:
        return Failure(str(error))
    return replace(answer, attempts=int(retrying.statistics["attempt_number"]))
