"""What models of frameworks share: asked for a text, cut, counted, asked again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from at2_rag_evals.qa.generators.base import Answer, Failure
from at2_rag_evals.qa.generators.first_tokens import first_tokens
from at2_rag_evals.qa.generators.imported_object import import_object, object_record
from at2_rag_evals.qa.generators.retrying import (
    EmptyAnswerError,
    Patience,
    TransientError,
    answer_patiently,
)


class FrameworkModel:
    """A model object of the user's, which is set up as it is to answer.

    What can go wrong in it isn't known, so whatever it raises is asked again. Its answer is cut to
    the first words that make up the tokens allowed. Stored answers are bound to the import path
    and to the file that it names, not to what that file reads.

    Args:
        path: "module:object".
        count: Counts tokens as the model does.
        answer_tokens: Most tokens of an answer.
        patience: How often and how soon to ask again.

    Raises:
        InputError: If the object can't be imported, or isn't a model of the framework.
    """

    framework = ""
    method = ""

    def __init__(
        self,
        path: str,
        *,
        count: Callable[[str], int],
        answer_tokens: int = 32,
        patience: Patience | None = None,
    ) -> None:
        self.name = f"{self.framework}:{path}"
        self._model = import_object(path, method=self.method)
        self._count, self._answer_tokens = count, answer_tokens
        self._patience = patience or Patience(attempts=3)
        self.settings: Mapping[str, object] = {
            "framework": self.framework,
            **object_record(path, self._model),
            "answer_tokens": answer_tokens,
        }

    def count(self, text: str) -> int:
        """Return the tokens of a text by the counter that was passed."""
        return self._count(text)

    def answer(self, prompts: Sequence[str]) -> Iterator[tuple[int, Answer | Failure]]:
        """Yield answers as they come.

        Raises:
            GenerationError: If several prompts in a row fail to the last attempt.
        """
        yield from answer_patiently(prompts, self._ask, self._patience)

    def text_of(self, response: Any) -> str:
        """Return the text of what the model's method returned."""
        raise NotImplementedError

    def _ask(self, prompt: str) -> Answer:
        start = time.perf_counter()
        try:
            text = self.text_of(getattr(self._model, self.method)(prompt)).strip()
        except Exception as error:
            raise TransientError(f"{type(error).__name__}: {error}") from error
        seconds = time.perf_counter() - start
        cut = first_tokens(text, self._answer_tokens, self._count)
        answer = Answer(
            text=cut,
            prompt_tokens=self._count(prompt),
            new_tokens=self._count(cut),
            seconds=seconds,
        )
        if not text:
            raise EmptyAnswerError(answer)
        return answer
