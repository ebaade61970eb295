"""Answers by prompt: stored ones are read, and new ones are stored as they are made.

Prompts that are word for word the same, from whatever pruner and item, are answered once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from at2_rag_evals.qa.generators.base import Answer, Failure, Generator
from at2_rag_evals.store import Store, settings_key


class AnswerStore:
    """The answers of one generator under one set of settings.

    Args:
        generator: The generator.
        path: The store's file; None to remember answers for this run only.
    """

    def __init__(self, generator: Generator, path: Path | None) -> None:
        self._generator = generator
        self._store = Store(path, settings_key(generator), Answer)

    def __len__(self) -> int:
        return len(self._store)

    def missing(self, prompts: Sequence[str]) -> list[str]:
        """Return the prompts that have no answer yet, each once, in order."""
        return [prompt for prompt in dict.fromkeys(prompts) if _key(prompt) not in self._store]

    def answers(
        self,
        prompts: Sequence[str],
        *,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[Answer | Failure]:
        """Return each prompt's answer; those that aren't stored are made now.

        `progress` is called with the prompts answered and in all, once before the first answer.

        Raises:
            GenerationError: If the generator gives up.
        """
        missing = self.missing(prompts)
        failures: dict[str, Failure] = {}
        total = len(dict.fromkeys(prompts))
        done = total - len(missing)
        if missing:
            progress(done, total)
            for index, result in self._generator.answer(missing):
                if isinstance(result, Failure):
                    failures[missing[index]] = result
                else:
                    self._store[_key(missing[index])] = result
                done += 1
                progress(done, total)
        return [
            failures[prompt] if prompt in failures else self._store[_key(prompt)]
            for prompt in prompts
        ]


def _key(prompt: str) -> str:
    return hashlib.sha256(prompt.encode("utf-8")).hexdigest()
