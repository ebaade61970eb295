"""Answers kept on disk as they are made, under all that decides them.

One JSON Lines file a generator and its settings; a line holds the hash of a prompt and its answer.
Prompts that are word for word the same, from whatever pruner and item, are answered once.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from at2_rag_evals.line_log import append_line, read_lines
from at2_rag_evals.qa.generators.base import Answer, Failure, Generator
from at2_rag_evals.record_store import settings_key

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


class AnswerStore:
    """The answers of one generator under one set of settings.

    Args:
        generator: The generator.
        folder: Where the file is; None to remember for this run only.
    """

    def __init__(self, generator: Generator, folder: Path | None) -> None:
        self._generator = generator
        self._answers: dict[str, Answer] = {}
        self._path = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            name = _UNSAFE.sub("_", generator.name)[:60]
            self._path = folder / f"{name}-{settings_key(generator)[:16]}.jsonl"
            read_lines(self._path, self._take)

    def __len__(self) -> int:
        return len(self._answers)

    def missing(self, prompts: Sequence[str]) -> list[str]:
        """Return the prompts that have no answer yet, each once, in order."""
        return [own for own in dict.fromkeys(prompts) if prompt_key(own) not in self._answers]

    def answers(
        self,
        prompts: Sequence[str],
        *,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[Answer | Failure]:
        """Return each prompt's answer; those that aren't stored are made now and stored.

        Args:
            prompts: The prompts.
            progress: Called with the prompts answered and in all, once before the first answer.

        Raises:
            GenerationError: If the generator gives up.
        """
        missing = self.missing(prompts)
        failures: dict[str, Failure] = {}
        total = len(dict.fromkeys(prompts))
        done = total - len(missing)
        if missing:
            progress(done, total)
            for place, result in self._generator.answer(missing):
                key = prompt_key(missing[place])
                if isinstance(result, Failure):
                    failures[key] = result
                else:
                    self._add(key, result)
                done += 1
                progress(done, total)
        keys = [prompt_key(prompt) for prompt in prompts]
        return [failures[key] if key in failures else self._answers[key] for key in keys]

    def _add(self, key: str, answer: Answer) -> None:
        self._answers[key] = answer
        if self._path is not None:
            append_line(self._path, {"prompt": key, **asdict(answer)})

    def _take(self, record: Any) -> None:
        self._answers[str(record["prompt"])] = Answer.from_record(record)


def prompt_key(prompt: str) -> str:
    """Return a SHA-256 over a prompt."""
    return hashlib.sha256(prompt.encode("utf-8")).hexdigest()
