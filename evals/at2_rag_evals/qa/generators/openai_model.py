"""A model behind any server that speaks OpenAI's chat completions."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from at2_rag_evals.extras import import_extra
from at2_rag_evals.qa.generators.base import Answer, Failure, GenerationError

GIVE_UP_AFTER = 3  # prompts in a row that fail to the last attempt


class OpenAIGenerator:
    """Sends several prompts at a time; the `openai` client retries busy servers and timeouts.

    The client reads its key from OPENAI_API_KEY and waits between attempts as long as the server
    says, or exponentially longer. A prompt that the server refuses, or that fails to the last
    attempt, has no answer. With a wrong key or address the run stops.

    Args:
        model: The model's name at the server.
        count: Counts tokens as the model does.
        base_url: The server's address, such as "http://localhost:8000/v1"; None for
            OPENAI_BASE_URL, or else OpenAI's.
        answer_tokens: Most new tokens of an answer.
        timeout: Seconds to wait for an answer.
        attempts: Most times that a prompt is sent.
        parallel: Most prompts sent at a time.

    Raises:
        ImportError: If `openai` isn't installed.
    """

    def __init__(
        self,
        model: str,
        *,
        count: Callable[[str], int],
        base_url: str | None = None,
        answer_tokens: int,
        timeout: float,
        attempts: int,
        parallel: int = 4,
    ) -> None:
        self._openai = import_extra("openai")
        self._client = self._openai.OpenAI(
            api_key=os.environ.get("OPENAI_API_KEY") or "none",  # a local server needs no key
            base_url=base_url,
            timeout=timeout,
            max_retries=attempts - 1,
        )
        self._count, self._answer_tokens, self._parallel = count, answer_tokens, parallel
        self.name = model
        self.settings: Mapping[str, object] = {
            "server": "openai chat completions",
            "model": model,
            "url_sha256": hashlib.sha256(str(self._client.base_url).encode()).hexdigest(),
            "answer_tokens": answer_tokens,
            "temperature": 0,
        }

    def count(self, text: str) -> int:
        """Return the number of tokens of a text."""
        return self._count(text)

    def answer(self, prompts: Sequence[str]) -> Iterator[tuple[int, Answer | Failure]]:
        """Yield each prompt's index and answer, in the order in which they come.

        Raises:
            GenerationError: If the server refuses the key or the address, or several prompts in a
                row fail to the last attempt.
        """
        failed = 0
        executor = ThreadPoolExecutor(self._parallel)
        try:
            futures = {
                executor.submit(self._ask, prompt): index for index, prompt in enumerate(prompts)
            }
            for future in as_completed(futures):
                try:
                    result = future.result()
                    failed = 0
                except (self._openai.OpenAIError, ValueError) as error:
                    failed += 1
                    reason = f"{type(error).__name__}: {error}"
                    if failed == GIVE_UP_AFTER:
                        raise GenerationError(
                            f"{failed} prompts in a row failed after all attempts, the last one "
                            f"with {reason}; run the command again once the server answers: what "
                            "was answered is stored"
                        ) from error
                    result = Failure(reason)
                yield futures[future], result
        finally:
            executor.shutdown(cancel_futures=True)

    def _ask(self, prompt: str) -> Answer | Failure:
        errors = self._openai
        start = time.perf_counter()
        try:
            response = self._client.chat.completions.with_raw_response.create(
                model=self.name,
                messages=[{"role": "user", "content": prompt}],
                max_tokens=self._answer_tokens,
                temperature=0,
            )
            completion = response.parse()
        except (
            errors.AuthenticationError,
            errors.PermissionDeniedError,
            errors.NotFoundError,
        ) as error:
            raise GenerationError(
                f"the server refused the request ({error}); check --base-url, the model's name and "
                "OPENAI_API_KEY"
            ) from error
        except (errors.BadRequestError, errors.UnprocessableEntityError) as error:
            return Failure(f"the server refused the prompt: {error}")
        seconds = time.perf_counter() - start
        if not getattr(completion, "choices", None):
            raise ValueError(f"the server's answer is no chat completion: {response.text:.200}")
        text = (completion.choices[0].message.content or "").strip()
        usage = completion.usage
        return Answer(
            text=text,
            prompt_tokens=usage.prompt_tokens if usage else self._count(prompt),
            new_tokens=usage.completion_tokens if usage else self._count(text),
            seconds=seconds,
            attempts=response.retries_taken + 1,
        )
