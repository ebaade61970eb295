"""A model behind any server that speaks OpenAI's chat completions."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import openai

from at2_rag.errors import AT2Error

GIVE_UP_AFTER = 3  # prompts in a row that fail to the last attempt

_logger = logging.getLogger(__name__)


class ChatError(AT2Error, RuntimeError):
    """The server can't be asked at all."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model said to a prompt, without the space around it; may be empty."""

    text: str
    tokens: tuple[int, int] | None  # of prompt and reply, if the server counts them
    seconds: float
    attempts: int  # how often the prompt was sent


@dataclass(frozen=True, slots=True)
class NoReply:
    """Why a prompt has no reply, in a sentence; asking again may help."""

    reason: str


class ChatModel:
    """Sends several prompts at a time; the `openai` client sends again to busy servers.

    It does so after timeouts, broken connections and the statuses 408, 409, 429 and 5xx, and waits
    between attempts as long as the server says, or exponentially longer. A prompt that the server
    refuses, or that fails to the last attempt, has no reply. A wrong key or address ends it all.

    Args:
        name: What the server calls the model.
        api_key: Sent with each request; None for a local server, which needs none.
        base_url: Address of the server; None for OPENAI_BASE_URL, or else OpenAI's.
        reply_tokens: Most tokens of a reply.
        timeout: Seconds to wait for a reply.
        attempts: Most times that a prompt is sent.
        parallel: Prompts that are sent at a time.
    """

    def __init__(
        self,
        name: str,
        *,
        api_key: str | None,
        base_url: str | None,
        reply_tokens: int,
        timeout: float,
        attempts: int,
        parallel: int,
    ) -> None:
        self._client = openai.OpenAI(
            api_key=api_key or "none",
            base_url=base_url,
            timeout=timeout,
            max_retries=attempts - 1,
        )
        self.name, self.base_url = name, str(self._client.base_url)
        self._parallel = parallel
        self.reply_tokens = reply_tokens
        self._parameters: dict[str, Any] = {"max_tokens": reply_tokens, "temperature": 0}

    def replies(self, prompts: Sequence[str]) -> Iterator[tuple[int, Reply | NoReply]]:
        """Yield each prompt's index and reply, in the order in which they come.

        Raises:
            ChatError: If there is no use in going on.
        """
        failed = 0
        executor = ThreadPoolExecutor(self._parallel)
        try:
            futures = {
                executor.submit(self._ask, prompt): index for index, prompt in enumerate(prompts)
            }
            for future in as_completed(futures):
                result: Reply | NoReply
                try:
                    result = future.result()
                    failed = 0
                except (openai.OpenAIError, ValueError) as error:
                    failed += 1
                    reason = f"{type(error).__name__}: {error}"
                    if failed == GIVE_UP_AFTER:
                        raise ChatError(
                            f"{failed} prompts in a row failed after all attempts, the last one "
                            f"with {reason}; run the command again once the server answers: what "
                            "was answered is stored"
                        ) from error
                    result = NoReply(reason)
                yield futures[future], result
        finally:
            executor.shutdown(cancel_futures=True)

    def _ask(self, prompt: str) -> Reply | NoReply:
        start = time.perf_counter()
        try:
            response = self._send(prompt)
            completion = response.parse()
        except (
            openai.AuthenticationError,
            openai.PermissionDeniedError,
            openai.NotFoundError,
        ) as error:
            raise ChatError(
                f"the server refused the request ({error}); check --base-url, the model's name and "
                "the key"
            ) from error
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            return NoReply(f"the server refused the prompt: {error}")
        seconds = time.perf_counter() - start
        if not getattr(completion, "choices", None):
            raise ValueError(f"the server's answer is no chat completion: {response.text:.200}")
        usage = completion.usage
        return Reply(
            text=(completion.choices[0].message.content or "").strip(),
            tokens=(usage.prompt_tokens, usage.completion_tokens) if usage else None,
            seconds=seconds,
            attempts=response.retries_taken + 1,
        )

    def _send(self, prompt: str) -> Any:
        """Send a prompt, again without a parameter that the server says the model doesn't take."""
        while True:
            parameters = dict(self._parameters)
            try:
                return self._client.chat.completions.with_raw_response.create(
                    model=self.name,
                    messages=[{"role": "user", "content": prompt}],
                    **parameters,
                )
            except openai.BadRequestError as error:
                if error.param not in parameters:
                    raise
                self._leave_out(error.param)

    def _leave_out(self, parameter: str) -> None:
        """Leave a parameter out from now on; reasoning models take neither of the two."""
        known = dict(self._parameters)
        value = known.pop(parameter, None)
        if value is not None:  # else another thread was first
            if parameter == "max_tokens":
                known["max_completion_tokens"] = value
            _logger.warning("the server takes no %s for %s; left out", parameter, self.name)
            self._parameters = known
