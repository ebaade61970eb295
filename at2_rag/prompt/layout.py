"""Lays out query and chunks as the token ids that the scoring model reads.

The prompt is one user turn: the *prefix* (whatever the chat template puts before the user's words,
and a short instruction), then the chunks, then the question. Each part is tokenised alone, so that
spans are known by construction and never searched for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

from tokenizers import Tokenizer

from at2_rag.errors import InputError, PromptTooLongError, UnsupportedModelError
from at2_rag.prompt.encoder import TextEncoder
from at2_rag.text.chunks import Chunk
from at2_rag.text.function_words import FUNCTION_WORDS, content_spans

INSTRUCTION = "Answer the question using only the passages below.\n\n"
CHUNK_END = "\n\n"
QUESTION_START = "Question: "
ANSWER_START = "\n\nAnswer:"  # between question and answer, without a chat template

WINDOW_TOKENS = 1024  # longest window of a chunk that independent reading reads at once
WINDOW_OVERLAP = 128  # tokens shared by two neighbouring windows of a long chunk
QUESTION_ROOM = 64  # tokens left for the question where the model's context is short

_SENTINEL = "AT2RAGUSERCONTENT"
_FIXED_DATE = "01 Jan 2025"
# In front of a template, this hides transformers' clock from it and prints nothing.
_FIXED_CLOCK = f"{{% macro strftime_now(format) %}}{_FIXED_DATE}{{% endmacro %}}{{{{ '' }}}}"


@dataclass(frozen=True, slots=True)
class PromptLayout:
    """The token ids of a prompt's parts, with their spans.

    A *source* is a chunk, or one window of a chunk that is too long to be read at once. The
    *target* are the query's tokens, whose attention is read; in late reading that of content words
    alone, since what function words attend to says little of a chunk.
    """

    prefix_ids: tuple[int, ...]  # before the first source; never empty
    source_ids: tuple[tuple[int, ...], ...]  # empty only if the tokenizer drops white space
    owners: tuple[int, ...]  # for each source the index of its chunk, ascending
    question_ids: tuple[int, ...]  # with its introduction
    target: tuple[int, int]  # half-open range within `question_ids`; never empty
    content: tuple[int, ...] = ()  # tokens of content words, in `question_ids`; none: the target

    @property
    def input_ids(self) -> tuple[int, ...]:
        """The whole prompt, as in joint reading."""
        sources = (token for ids in self.source_ids for token in ids)
        return (*self.prefix_ids, *sources, *self.question_ids)

    @property
    def source_spans(self) -> tuple[tuple[int, int], ...]:
        """Half-open range of each source in `input_ids`."""
        edges = accumulate(map(len, self.source_ids), initial=len(self.prefix_ids))
        return tuple(pairwise(edges))

    @property
    def target_span(self) -> tuple[int, int]:
        """Half-open range of the query's tokens in `input_ids`."""
        start = len(self.prefix_ids) + sum(map(len, self.source_ids))
        return start + self.target[0], start + self.target[1]

    @property
    def rows(self) -> tuple[int, ...]:
        """Where in `question_ids` the tokens are whose attention late reading reads."""
        return self.content or tuple(range(*self.target))

    def with_short_query(self, most: int) -> PromptLayout:
        """Return the layout without the middle of a query of more than `most` tokens."""
        start, end = self.target
        if end - start <= most:
            return self
        first, last = start + most // 2, end - (most - most // 2)
        return replace(
            self,
            question_ids=self.question_ids[:first] + self.question_ids[last:],
            target=(start, start + most),
            content=(
                *(token for token in self.content if token < first),
                *(token - last + first for token in self.content if token >= last),
            ),
        )


@dataclass(frozen=True, slots=True)
class AnswerLayout:
    """A prompt with an answer."""

    prompt: PromptLayout
    bridge_ids: tuple[int, ...]  # between the question and the answer
    answer_ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]  # each answer token's range of characters in the answer

    @property
    def input_ids(self) -> tuple[int, ...]:
        """Prompt and answer, as in joint reading."""
        return (*self.prompt.input_ids, *self.bridge_ids, *self.answer_ids)

    @property
    def query_ids(self) -> tuple[int, ...]:
        """Ids after the sources: question, bridge and answer."""
        return (*self.prompt.question_ids, *self.bridge_ids, *self.answer_ids)


class PromptBuilder:
    """Lays out prompts for one scoring model.

    Its methods raise `InputError` for a blank query or answer, or a query of which the tokenizer
    leaves nothing, and `PromptTooLongError` for what doesn't fit into the model's context of
    `max_tokens`. The tokenizer's chat template is used if it has one.
    """

    def __init__(self, tokenizer: Any, *, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self._encoder = TextEncoder(tokenizer)
        self._head, tail = _text_around_user(tokenizer)
        # A copy, since calling a tokenizer sets the truncation and padding of its backend.
        whole = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        whole.no_padding()
        whole.no_truncation()
        plain = tokenizer.chat_template is None
        prefix = whole.encode(self._head + INSTRUCTION, add_special_tokens=plain).ids
        if plain and prefix and prefix[-1] == tokenizer.eos_token_id:
            prefix = prefix[:-1]
        self.prefix_ids = tuple(prefix)
        self.bridge_ids = tuple(whole.encode(tail, add_special_tokens=False).ids)
        # Without a template the answer is the next word after plain text.
        self._answer_lead = " " if plain else ""
        self._question_start = self._encoder.encode(QUESTION_START)

    def template_hash(self, reading: str) -> str:
        """Return a SHA-256 over the prompt's wording and the template's text before the user's.

        That of independent reading is over the function words, too.
        """
        wording: list[Any] = [self._head, INSTRUCTION, CHUNK_END, QUESTION_START, WINDOW_TOKENS]
        if reading == "independent":
            wording += sorted(FUNCTION_WORDS)
        return hashlib.sha256(json.dumps(wording).encode()).hexdigest()

    def answer(self, prompt: PromptLayout, answer: str) -> AnswerLayout:
        """Add an answer to a prompt; both have to fit into the context with its longest source."""
        layout = self._with_answer(prompt, answer)
        longest = max(map(len, prompt.source_ids), default=0)
        self._check_length(
            len(self.prefix_ids) + longest + len(layout.query_ids),
            "question and answer with the longest chunk alone need",
            "pass shorter chunks or a shorter answer",
        )
        return layout

    def joint(self, query: str, chunks: Sequence[Chunk]) -> PromptLayout:
        """Lay out one prompt with all chunks."""
        layout = self._all_chunks(query, chunks)
        fix = 'pass fewer chunks or use reading="independent"'
        self._check_length(len(layout.input_ids), "prompt has", fix)
        return layout

    def conversation(self, query: str, chunks: Sequence[Chunk], answer: str) -> AnswerLayout:
        """Lay out one prompt with all chunks and an answer."""
        layout = self._with_answer(self._all_chunks(query, chunks), answer)
        fix = "pass fewer or shorter chunks, or a shorter answer"
        self._check_length(len(layout.input_ids), "prompt and answer have", fix)
        return layout

    def token_spans(self, chunk: Chunk) -> tuple[tuple[int, int], ...]:
        """Return the character range of each token of a chunk, its separator included."""
        return self._encoder.encode_with_spans(chunk.rendered + CHUNK_END)[1]

    def text_spans(self, text: str) -> tuple[tuple[int, int], ...]:
        """Return the character range of each token of a text by itself."""
        return self._encoder.encode_with_spans(text)[1]

    def independent(self, query: str, chunks: Sequence[Chunk]) -> PromptLayout:
        """Lay out chunks that are each read alone after the prefix.

        A chunk longer than `WINDOW_TOKENS`, or than the model's context has room for beside prefix
        and question, becomes several overlapping windows.
        """
        question = self._question(query)
        sources, owners = self.windows(chunks, question_tokens=len(question[0]))
        return self._layout(sources, owners, *question)

    def windows(
        self, chunks: Sequence[Chunk], *, question_tokens: int = QUESTION_ROOM
    ) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]:
        """Return each window's ids, and the index of its chunk, as `independent` lays them out.

        In a context hardly longer than `WINDOW_TOKENS` windows shrink to leave room for the
        question, but are the same for all questions of up to `QUESTION_ROOM` tokens.
        """
        room = self.max_tokens - len(self.prefix_ids)
        kept_free = max(question_tokens, min(QUESTION_ROOM, room // 2))
        window = min(WINDOW_TOKENS, room - kept_free)
        if window < 1:
            raise PromptTooLongError(
                f"the prompt around the chunks has {len(self.prefix_ids) + question_tokens} "
                f"tokens, the scoring model takes {self.max_tokens}; use another model"
            )
        sources: list[tuple[int, ...]] = []
        owners: list[int] = []
        for index, ids in enumerate(self._sources(chunks)):
            starts = window_starts(len(ids), window)
            sources.extend(ids[start : start + window] for start in starts)
            owners.extend([index] * len(starts))
        return tuple(sources), tuple(owners)

    def _all_chunks(self, query: str, chunks: Sequence[Chunk]) -> PromptLayout:
        sources = tuple(self._sources(chunks))
        return self._layout(sources, tuple(range(len(sources))), *self._question(query))

    def _with_answer(self, prompt: PromptLayout, answer: str) -> AnswerLayout:
        if not isinstance(answer, str) or not answer.strip():
            raise InputError(f"answer is blank ({answer!r}); pass the answer as text")
        lead = self._answer_lead
        ids, spans = self._encoder.encode_with_spans(lead + answer)
        spans = tuple((max(0, start - len(lead)), end - len(lead)) for start, end in spans)
        return AnswerLayout(prompt, self.bridge_ids, ids, spans)

    def _layout(
        self,
        sources: tuple[tuple[int, ...], ...],
        owners: tuple[int, ...],
        question: tuple[int, ...],
        content: tuple[int, ...],
    ) -> PromptLayout:
        target = (len(self._question_start), len(question))
        return PromptLayout(self.prefix_ids, sources, owners, question, target, content)

    def _sources(self, chunks: Sequence[Chunk]) -> list[tuple[int, ...]]:
        return self._encoder.encode_all([chunk.rendered + CHUNK_END for chunk in chunks])

    def _question(self, query: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the ids of the question, and which of them are tokens of content words."""
        if not query.strip():
            raise InputError(f"query is blank ({query!r}); pass the question as text")
        query_ids, spans = self._encoder.encode_with_spans(query)
        if not query_ids:
            raise InputError(
                f"the query {query!r} has no token, since the scoring model's tokenizer drops all "
                "of its characters; use a model that reads its script, or word it differently"
            )
        question = self._question_start + query_ids
        room = self.max_tokens - len(self.prefix_ids) - 2 * WINDOW_OVERLAP
        if len(question) > room:
            raise PromptTooLongError(
                f"question has {len(question)} tokens, the scoring model's context of "
                f"{self.max_tokens} leaves {max(room, 0)} for it; shorten the question"
            )
        is_content = bytearray(len(query))
        for start, end in content_spans(query):
            is_content[start:end] = b"\1" * (end - start)
        numbered = enumerate(spans, len(self._question_start))
        return question, tuple(row for row, (start, end) in numbered if any(is_content[start:end]))

    def _check_length(self, tokens: int, what: str, fix: str) -> None:
        if tokens > self.max_tokens:
            raise PromptTooLongError(
                f"{what} {tokens} tokens, the scoring model takes {self.max_tokens}; {fix}"
            )


def window_starts(tokens: int, size: int) -> range:
    """Return the starts of the windows of `size` tokens in a text of `tokens` tokens."""
    if tokens <= size:
        return range(1)
    step = size - min(WINDOW_OVERLAP, size // 2)
    return range(0, tokens - size + step, step)


def _text_around_user(tokenizer: Any) -> tuple[str, str]:
    """Return the chat template's text before and after the user's words."""
    if tokenizer.chat_template is None:
        return "", ANSWER_START
    try:
        rendered: str = tokenizer.apply_chat_template(
            [{"role": "user", "content": _SENTINEL}],
            chat_template=_FIXED_CLOCK + tokenizer.get_chat_template(),
            tokenize=False,
            add_generation_prompt=True,
            date_string=_FIXED_DATE,
        )
    except Exception as error:  # a template is a program from outside, and may raise anything
        raise UnsupportedModelError(
            f"the model's chat template fails on a single user turn ({type(error).__name__}: "
            f"{error}); use another model"
        ) from error
    head, sentinel, tail = rendered.partition(_SENTINEL)
    if not sentinel:
        raise UnsupportedModelError(
            "the model's chat template changes or drops the user's words, so that their spans are "
            "unknown; use a model whose template keeps them, or one without a template"
        )
    return head, tail
