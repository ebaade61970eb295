"""What the benchmarks read: prompts of ten chunks, and as many more chunks as are wanted."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

from at2_rag.data.examples import read_examples
from at2_rag.errors import InputError, PromptTooLongError
from at2_rag.prompt.layout import PromptBuilder
from at2_rag.text.chunks import Chunk

CHUNKS = 10
"""Chunks of a prompt that is timed."""

_PASSAGES = Path(__file__).parents[1] / "examples" / "passages.jsonl"
_QUESTIONS = (
    "Which river flows through four national capitals?",
    "Who worked out nuclear fission together with Otto Frisch?",
    "Who first produced a nuclear chain reaction that sustained itself?",
    "Who took over the building of the Brooklyn Bridge when its designer had died?",
    "Which novel did Jane Austen dedicate to the Prince Regent?",
    "Which moon is the most volcanically active body known in the solar system?",
    "Which moon is the only one known to make a magnetic field of its own?",
    "Which eruption in 1815 was followed by a year without a summer?",
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question with its chunks."""

    query: str
    chunks: tuple[Chunk, ...]


WARM_UP = Prompt(
    "Who wrote Emma?",
    (
        Chunk("Emma is a novel by Jane Austen."),
        Chunk("The Danube flows into the Black Sea."),
    ),
)
"""A short prompt that makes a process load and allocate what it keeps from then on."""


@dataclass(frozen=True, slots=True)
class PromptSet:
    """What a run reads.

    Attributes:
        prompts: The prompts that are timed, `CHUNKS` chunks each.
        source: Where they are from, for people.
        pool: All chunks there are, to fill larger prompts from.
    """

    prompts: tuple[Prompt, ...]
    source: str
    pool: tuple[Chunk, ...]

    def of_size(self, count: int, index: int = 0) -> Prompt:
        """Return a prompt with `count` chunks: those it has, then others, no text twice.

        When the pool is used up, its chunks come again with numbered titles.
        """
        prompt = self.prompts[index]
        copies = (
            Chunk(chunk.text, f"{chunk.title or 'Passage'} ({copy})")
            for copy in itertools.count(2)
            for chunk in self.pool
        )
        chunks = {chunk.rendered: chunk for chunk in prompt.chunks}
        for chunk in itertools.chain(self.pool, copies):
            if len(chunks) >= count:
                break
            chunks.setdefault(chunk.rendered, chunk)
        return Prompt(prompt.query, tuple(chunks.values())[:count])


def read_prompts(
    data: Path | None, layouts: PromptBuilder, *, count: int, lengths: tuple[int, int]
) -> PromptSet:
    """Choose the prompts to time: the first `count` of the wanted length.

    Args:
        data: A file of questions with chunks, as `at2-rag train` reads; None for the passages of
            examples/.
        layouts: Lays out prompts for the model.
        count: Number of prompts.
        lengths: Fewest and most tokens of a prompt in joint reading.

    Raises:
        InputError: If no prompt has `CHUNKS` chunks and that length.
    """
    candidates, pool = _example_prompts() if data is None else _prompts_of(data)
    source = "the passages of examples/" if data is None else data.name
    least, most = lengths
    fitting = (p for p in candidates if least <= (joint_tokens(layouts, p) or 0) <= most)
    prompts = tuple(itertools.islice(fitting, count))
    if not prompts:
        raise InputError(
            f"{source}: none of {len(candidates)} questions with {CHUNKS} chunks makes a prompt of "
            f"{least} to {most} tokens; pass another --data or other --prompt-tokens"
        )
    return PromptSet(prompts, source, pool)


def joint_tokens(layouts: PromptBuilder, prompt: Prompt) -> int | None:
    """Return the tokens of a prompt in joint reading; None if they exceed the model's window."""
    try:
        return len(layouts.joint(prompt.query, prompt.chunks).input_ids)
    except PromptTooLongError:
        return None


def _example_prompts() -> tuple[list[Prompt], tuple[Chunk, ...]]:
    lines = [json.loads(line) for line in _PASSAGES.read_text(encoding="utf-8").splitlines()]
    passages = tuple(Chunk(line["text"], line["title"]) for line in lines)
    step = len(passages) // len(_QUESTIONS)
    prompts = [
        Prompt(question, (passages * 2)[step * index : step * index + CHUNKS])
        for index, question in enumerate(_QUESTIONS)
    ]
    return prompts, passages


def _prompts_of(data: Path) -> tuple[list[Prompt], tuple[Chunk, ...]]:
    prompts = [
        Prompt(example.query, tuple(Chunk(chunk.text, chunk.title) for chunk in example.chunks))
        for example in read_examples(data)
    ]
    pool = tuple(chunk for prompt in prompts for chunk in prompt.chunks)
    return [prompt for prompt in prompts if len(prompt.chunks) == CHUNKS], pool
