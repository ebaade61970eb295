"""A model behind any server that speaks OpenAI's chat completions."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence

from at2_rag.training.labelling.chat_model import ChatError, ChatModel, Reply
from at2_rag_evals.qa.generators.base import Answer, Failure, GenerationError


class OpenAIGenerator:
    """Answers with a `ChatModel`, several prompts at a time; its key is in OPENAI_API_KEY.

    A prompt that the server refuses, or that fails to the last attempt, has no answer. A wrong key
    or address stops the run.

    The arguments are the command's options; `count` counts tokens as the model does.
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
        self._model = ChatModel(
            model,
            api_key=os.environ.get("OPENAI_API_KEY"),
            base_url=base_url,
            reply_tokens=answer_tokens,
            timeout=timeout,
            attempts=attempts,
            parallel=parallel,
        )
        self._count = count
        self.name = model
        self.settings: Mapping[str, object] = {
            "server": "openai chat completions",
            "model": model,
            "url_sha256": hashlib.sha256(self._model.base_url.encode()).hexdigest(),
            "answer_tokens": answer_tokens,
            "temperature": 0,
        }

    def count(self, text: str) -> int:
        """Return the number of tokens of a text."""
        return self._count(text)

    def answer(self, prompts: Sequence[str]) -> Iterator[tuple[int, Answer | Failure]]:
        """Yield each prompt's index and answer, in the order in which they come."""
        try:
            for index, reply in self._model.replies(prompts):
                if isinstance(reply, Reply):
                    yield index, self._answer(prompts[index], reply)
                else:
                    yield index, Failure(reply.reason)
        except ChatError as error:
            raise GenerationError(str(error)) from error

    def _answer(self, prompt: str, reply: Reply) -> Answer:
        prompt_tokens, new_tokens = reply.tokens or (self._count(prompt), self._count(reply.text))
        return Answer(
            text=reply.text,
            prompt_tokens=prompt_tokens,
            new_tokens=new_tokens,
            seconds=reply.seconds,
            attempts=reply.attempts,
        )
