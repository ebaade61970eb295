"""What the speed benchmark reads: prompts of ten chunks, and as many more chunks as wanted."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
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


@dataclass(frozen=True, slots=True)
class PromptSet:
    """What a run reads.

    Attributes:
        prompts: The prompts that are timed, `CHUNKS` chunks each.
        source: What they are made of, for people.
        others: Further chunks for larger prompts, distinct.
    """

    prompts: tuple[Prompt, ...]
    source: str
    others: tuple[Chunk, ...]

    def chunks(self) -> Iterator[Chunk]:
        """Yield distinct chunks without end, those of the first prompt first.

        When all have been yielded they come again with a number in the title, so that none is
        the same text as another.
        """
        given = [chunk for prompt in self.prompts for chunk in prompt.chunks]
        distinct = list({chunk.rendered: chunk for chunk in [*given, *self.others]}.values())
        yield from distinct
        for copy in itertools.count(2):
            for chunk in distinct:
                yield Chunk(chunk.text, f"{chunk.title or 'Passage'} ({copy})")

    def of_size(self, count: int) -> Prompt:
        """Return the first prompt with `count` chunks."""
        return Prompt(self.prompts[0].query, tuple(itertools.islice(self.chunks(), count)))

    def of_one_chunk(self, size: int) -> Prompt:
        """Return the first prompt's question with one chunk of `size` bytes, of many chunks."""
        text = bytearray()
        for chunk in self.chunks():
            text += f"{chunk.rendered}\n\n".encode()
            if len(text) >= size:
                break
        return Prompt(self.prompts[0].query, (Chunk(text[:size].decode(errors="ignore")),))


def read_prompts(
    data: Path | None, layouts: PromptBuilder, *, count: int, lengths: tuple[int, int]
) -> PromptSet:
    """Choose the prompts to time: the first `count` of the wanted length.

    Args:
        data: A `.jsonl` or `.jsonl.gz` file of questions with chunks, see
            `at2_rag.data.examples`; None for the passages of this project's examples.
        layouts: Lays out prompts for the model.
        count: How many prompts.
        lengths: Least and most tokens of a prompt in joint reading.

    Raises:
        InputError: If no prompt has that many chunks and that length.
    """
    candidates, others = _own_prompts() if data is None else _prompts_of(data)
    source = "the passages of examples/" if data is None else data.name
    least, most = lengths
    fitting = (p for p in candidates if least <= (joint_tokens(layouts, p) or 0) <= most)
    prompts = tuple(itertools.islice(fitting, count))
    if not prompts:
        raise InputError(
            f"{source}: none of {len(candidates)} questions with {CHUNKS} chunks makes a prompt of "
            f"{least} to {most} tokens; pass another --data or other --prompt-tokens"
        )
    return PromptSet(prompts, source, others)


def joint_tokens(layouts: PromptBuilder, prompt: Prompt) -> int | None:
    """Return the tokens of a prompt in joint reading; None if the model can't take so many."""
    try:
        return len(layouts.joint(prompt.query, prompt.chunks).input_ids)
    except PromptTooLongError:
        return None


def _own_prompts() -> tuple[list[Prompt], tuple[Chunk, ...]]:
    lines = [json.loads(line) for line in _PASSAGES.read_text(encoding="utf-8").splitlines()]
    passages = [Chunk(line["text"], line["title"]) for line in lines]
    around = [*passages, *passages]
    step = len(passages) // len(_QUESTIONS)
    prompts = [
        Prompt(question, tuple(around[start : start + CHUNKS]))
        for start, question in zip(itertools.count(0, step), _QUESTIONS, strict=False)
    ]
    return prompts, tuple(passages)


def _prompts_of(data: Path) -> tuple[list[Prompt], tuple[Chunk, ...]]:
    examples = read_examples(data)
    prompts = [
        Prompt(example.query, _plain(example.chunks))
        for example in examples
        if len(example.chunks) == CHUNKS
    ]
    return prompts, tuple(chunk for example in examples for chunk in _plain(example.chunks))


def _plain(chunks: Sequence[Chunk]) -> tuple[Chunk, ...]:
    """Return the chunks without what the scoring model doesn't read."""
    return tuple(Chunk(chunk.text, chunk.title) for chunk in chunks)
