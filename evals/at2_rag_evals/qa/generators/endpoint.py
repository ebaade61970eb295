"""Any endpoint that speaks OpenAI's chat completions."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from at2_rag_evals.qa.generators.base import Answer, Failure, GenerationError
from at2_rag_evals.qa.generators.retrying import (
    EmptyAnswerError,
    Patience,
    RefusedPromptError,
    TransientError,
    answer_patiently,
)

try:
    import httpx
except ImportError as error:
    raise ImportError(
        f'asking an endpoint needs httpx ({error}); run: pip install "at2-rag[evals]"'
    ) from error

_HOPELESS = (401, 403, 404, 405)
_TRANSIENT = (408, 409, 425, 429)
_SHOWN = 200


class EndpointGenerator:
    """Asks a server, several prompts at a time, and again where it was busy or answered nonsense.

    Asked again, with exponentially growing waits or those that the server names: 429, 5xx,
    timeouts and broken connections, what isn't a JSON chat completion, and empty answers, of which
    the last attempt's is taken. A prompt refused with another 4xx has no answer; without the right
    key or address the run stops.

    Args:
        model: The model's name at the server.
        url: The address that `/chat/completions` follows, such as "https://api.openai.com/v1".
        count: Counts tokens as the model does.
        key: API key; None for none. Neither stored nor shown.
        answer_tokens: Most new tokens, asked for as `max_tokens`.
        timeout: Seconds to wait for an answer.
        patience: How often and how soon to ask again.
    """

    def __init__(
        self,
        model: str,
        url: str,
        *,
        count: Callable[[str], int],
        key: str | None = None,
        answer_tokens: int = 32,
        timeout: float = 60.0,
        patience: Patience | None = None,
    ) -> None:
        self.name = model
        self._url = url.rstrip("/") + "/chat/completions"
        self._count, self._answer_tokens = count, answer_tokens
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._timeout = timeout
        self._patience = patience or Patience()
        self.settings: Mapping[str, object] = {
            "endpoint": "openai chat completions",
            "model": model,
            "url_sha256": hashlib.sha256(self._url.encode()).hexdigest(),
            "answer_tokens": answer_tokens,
            "temperature": 0,
        }

    def count(self, text: str) -> int:
        """Return the tokens of a text by the counter that was passed."""
        return self._count(text)

    def answer(self, prompts: Sequence[str]) -> Iterator[tuple[int, Answer | Failure]]:
        """Yield answers as they come.

        Raises:
            GenerationError: If the server refuses the key or the address, or several prompts in a
                row fail to the last attempt.
        """
        with httpx.Client(timeout=self._timeout, headers=self._headers) as client:
            yield from answer_patiently(
                prompts, lambda prompt: self._ask(client, prompt), self._patience
            )

    def _ask(self, client: httpx.Client, prompt: str) -> Answer:
        body = {
            "model": self.name,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": self._answer_tokens,
            "temperature": 0,
        }
        start = time.perf_counter()
        try:
            response = client.post(self._url, json=body)
        except (httpx.TransportError, httpx.DecodingError) as error:
            said = f": {error}" if str(error) else ""
            raise TransientError(f"{type(error).__name__}{said}") from error
        except httpx.InvalidURL as error:
            raise GenerationError(f"the endpoint's address can't be used: {error}") from error
        seconds = time.perf_counter() - start
        self._check_status(response)
        return self._read(response, prompt, seconds)

    def _check_status(self, response: httpx.Response) -> None:
        status = response.status_code
        if status == 200:
            return
        said = " ".join(response.text.split())[:_SHOWN] or "nothing"
        reason = f"the endpoint answered {status} and said {said}"
        if status in _TRANSIENT or status >= 500:
            raise TransientError(reason, wait=_named_wait(response))
        if status in _HOPELESS or status < 400:
            raise GenerationError(f"{reason}; check --endpoint, the model's name and the key")
        raise RefusedPromptError(reason)

    def _read(self, response: httpx.Response, prompt: str, seconds: float) -> Answer:
        try:
            values = response.json()
            text = values["choices"][0]["message"]["content"]
            usage = values.get("usage") or {}
            given, made = usage.get("prompt_tokens"), usage.get("completion_tokens")
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            said = " ".join(response.text.split())[:_SHOWN]
            raise TransientError(
                f"the endpoint's answer is no chat completion ({said!r})"
            ) from error
        text = "" if text is None else text
        if not isinstance(text, str):
            raise TransientError(f"the answer is a {type(text).__name__}; expected a string")
        answer = Answer(
            text=text.strip(),
            prompt_tokens=self._tokens(given, prompt),
            new_tokens=self._tokens(made, text),
            seconds=seconds,
        )
        if not answer.text:
            raise EmptyAnswerError(answer)
        return answer

    def _tokens(self, told: Any, text: str) -> int:
        """Return what the server told, if it is a number of tokens, else our own count."""
        known = isinstance(told, int) and not isinstance(told, bool) and told >= 0
        return int(told) if known else self._count(text)


def _named_wait(response: httpx.Response) -> float:
    try:
        return max(0.0, float(response.headers.get("retry-after", 0)))
    except ValueError:  # a date; the growing waits will do
        return 0.0
