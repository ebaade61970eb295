"""Lays out query and chunks as the token ids that the scoring model reads.

The prompt is one user turn: the *prefix* (whatever the chat template puts before the user's words,
and a short instruction), then the chunks, then the question. Each part is tokenised alone and the
ids are joined, so spans are known by construction and never searched for. Control tokens in text
from outside stay text, see `TextEncoder`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from tokenizers import Tokenizer

from at2_rag.errors import InputError, PromptTooLongError, UnsupportedModelError
from at2_rag.prompt.encoder import TextEncoder
from at2_rag.text.chunks import Chunk

INSTRUCTION = "Answer the question using only the passages below.\n\n"
CHUNK_END = "\n\n"
QUESTION_START = "Question: "
ANSWER_START = "\n\nAnswer:"
"""Text between question and answer for models without a chat template."""

WINDOW_TOKENS = 1024
"""Longest window of a chunk that independent reading reads at once."""

QUESTION_ROOM = 64
"""Tokens left for the question where the model's context is short."""

WINDOW_OVERLAP = 128
"""Tokens shared by two neighbouring windows of a long chunk."""

_SENTINEL = "AT2RAGUSERCONTENT"
_FIXED_DATE = "01 Jan 2025"
# In front of a template, this hides transformers' clock from it and prints nothing.
_FIXED_CLOCK = f"{{% macro strftime_now(format) %}}{_FIXED_DATE}{{% endmacro %}}{{{{ '' }}}}"


@dataclass(frozen=True, slots=True)
class PromptLayout:
    """The token ids of a prompt's parts, with their spans.

    A *source* is a chunk, or one window of a chunk that is too long to be read at once.

    Attributes:
        prefix_ids: Ids before the first source; never empty.
        source_ids: Ids of each source. Since every chunk ends in the chunk separator, only a
            tokenizer that drops white space leaves none, of a blank chunk.
        owners: For each source the index of its chunk, ascending.
        question_ids: Ids of the question with its introduction.
        target: Half-open range within `question_ids` of the query's tokens, whose attention is
            read; never empty.
    """

    prefix_ids: tuple[int, ...]
    source_ids: tuple[tuple[int, ...], ...]
    owners: tuple[int, ...]
    question_ids: tuple[int, ...]
    target: tuple[int, int]

    @property
    def input_ids(self) -> tuple[int, ...]:
        """The whole prompt, as in joint reading."""
        sources = (token for ids in self.source_ids for token in ids)
        return (*self.prefix_ids, *sources, *self.question_ids)

    @property
    def source_spans(self) -> tuple[tuple[int, int], ...]:
        """Half-open range of each source in `input_ids`."""
        spans, start = [], len(self.prefix_ids)
        for ids in self.source_ids:
            spans.append((start, start + len(ids)))
            start += len(ids)
        return tuple(spans)

    @property
    def target_span(self) -> tuple[int, int]:
        """Half-open range of the query's tokens in `input_ids`."""
        start = len(self.prefix_ids) + sum(map(len, self.source_ids))
        return start + self.target[0], start + self.target[1]


@dataclass(frozen=True, slots=True)
class AnswerLayout:
    """A prompt with an answer.

    Attributes:
        prompt: The prompt.
        bridge_ids: Ids between the question and the answer.
        answer_ids: Ids of the answer.
        spans: For each answer token its half-open range of characters in the answer's text.
    """

    prompt: PromptLayout
    bridge_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]

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

    Args:
        tokenizer: The model's fast tokenizer; its chat template is used where it has one.
        max_tokens: The model's longest context, in tokens.

    Raises:
        UnsupportedModelError: If the tokenizer has no fast backend, or its chat template changes
            the user's words.
    """

    def __init__(self, tokenizer: Any, *, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self._encoder = TextEncoder(tokenizer)
        self._head, tail = _text_around_user(tokenizer)
        # A copy, since calling a tokenizer sets the truncation and padding of its backend.
        whole = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        whole.no_padding()
        whole.no_truncation()
        prefix = whole.encode(
            self._head + INSTRUCTION, add_special_tokens=tokenizer.chat_template is None
        ).ids
        if tokenizer.chat_template is None and prefix and prefix[-1] == tokenizer.eos_token_id:
            prefix = prefix[:-1]
        self._prefix_ids = tuple(prefix)
        # Without a template the answer is the next word after plain text.
        self._answer_lead = " " if tail is None else ""
        bridge = whole.encode(ANSWER_START if tail is None else tail, add_special_tokens=False)
        self._bridge_ids = tuple(bridge.ids)
        self._question_start = self._encoder.encode(QUESTION_START)

    @property
    def template_hash(self) -> str:
        """SHA-256 over the prompt's wording and the template's text before the user's words."""
        wording = (self._head, INSTRUCTION, CHUNK_END, QUESTION_START, WINDOW_TOKENS)
        return hashlib.sha256(json.dumps(wording).encode()).hexdigest()

    @property
    def prefix_ids(self) -> tuple[int, ...]:
        """Ids of the prefix, the same for every prompt."""
        return self._prefix_ids

    @property
    def bridge_ids(self) -> tuple[int, ...]:
        """Ids between the question and the answer, the same for every prompt."""
        return self._bridge_ids

    def answer(self, prompt: PromptLayout, answer: str) -> AnswerLayout:
        """Add an answer to a prompt.

        Raises:
            InputError: If the answer is blank.
            PromptTooLongError: If question and answer don't fit into the model's context with the
                longest source alone.
        """
        layout = self._with_answer(prompt, answer)
        longest = max(map(len, prompt.source_ids), default=0)
        needed = len(self._prefix_ids) + longest + len(layout.query_ids)
        if needed > self.max_tokens:
            raise PromptTooLongError(
                f"question and answer need {needed} tokens with the longest chunk alone, the "
                f"scoring model takes {self.max_tokens}; pass shorter chunks or a shorter answer"
            )
        return layout

    def joint(self, query: str, chunks: Sequence[Chunk]) -> PromptLayout:
        """Lay out one prompt with all chunks.

        Raises:
            InputError: If the query is blank or has no token.
            PromptTooLongError: If the prompt is longer than the model's context.
        """
        layout = self._all_chunks(query, chunks)
        total = len(layout.input_ids)
        if total > self.max_tokens:
            raise PromptTooLongError(
                f"prompt has {total} tokens, the scoring model takes {self.max_tokens}; "
                'pass fewer chunks or use reading="independent"'
            )
        return layout

    def conversation(self, query: str, chunks: Sequence[Chunk], answer: str) -> AnswerLayout:
        """Lay out one prompt with all chunks and an answer.

        Raises:
            InputError: If the query or the answer is blank.
            PromptTooLongError: If prompt and answer together are longer than the model's context.
        """
        layout = self._with_answer(self._all_chunks(query, chunks), answer)
        if len(layout.input_ids) > self.max_tokens:
            raise PromptTooLongError(
                f"prompt and answer have {len(layout.input_ids)} tokens, the scoring model takes "
                f"{self.max_tokens}; pass fewer or shorter chunks, or a shorter answer"
            )
        return layout

    def token_spans(self, chunk: Chunk) -> tuple[tuple[int, int], ...]:
        """Return the character range of each token of a chunk, its separator included."""
        return self._encoder.encode_with_spans(chunk.rendered + CHUNK_END)[1]

    def independent(self, query: str, chunks: Sequence[Chunk]) -> PromptLayout:
        """Lay out chunks that are each read alone after the prefix.

        A chunk longer than `WINDOW_TOKENS`, or than the model's context has room for beside prefix
        and question, becomes several overlapping windows.

        Raises:
            InputError: If the query is blank or has no token.
            PromptTooLongError: If the question alone leaves no room for chunks.
        """
        question = self._question(query)
        sources, owners = self.windows(chunks, question_tokens=len(question))
        return self._layout(sources, owners, question)

    def windows(
        self, chunks: Sequence[Chunk], *, question_tokens: int = QUESTION_ROOM
    ) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]:
        """Return the windows of chunks that are read independently.

        If the model's context is hardly longer than `WINDOW_TOKENS` they depend on the question's
        length, but are the same for all questions of up to `QUESTION_ROOM` tokens.

        Args:
            chunks: The chunks.
            question_tokens: Tokens of the question.

        Returns:
            Ids of each window, and the index of its chunk.

        Raises:
            PromptTooLongError: If the model's context leaves no room for chunks.
        """
        room = self.max_tokens - len(self._prefix_ids)
        # In a short context windows shrink, so that there is room for any question.
        kept_free = max(question_tokens, min(QUESTION_ROOM, room // 2))
        window = min(WINDOW_TOKENS, room - kept_free)
        if window < 1:
            raise PromptTooLongError(
                f"the prompt around the chunks has {len(self._prefix_ids) + question_tokens} "
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
        question, sources = self._question(query), tuple(self._sources(chunks))
        return self._layout(sources, tuple(range(len(sources))), question)

    def _with_answer(self, prompt: PromptLayout, answer: str) -> AnswerLayout:
        if not isinstance(answer, str) or not answer.strip():
            raise InputError(f"answer is blank ({answer!r}); pass the answer as text")
        lead = self._answer_lead
        ids, spans = self._encoder.encode_with_spans(lead + answer)
        spans = tuple((max(0, start - len(lead)), end - len(lead)) for start, end in spans)
        return AnswerLayout(prompt, self._bridge_ids, ids, spans)

    def _layout(
        self,
        sources: tuple[tuple[int, ...], ...],
        owners: tuple[int, ...],
        question: tuple[int, ...],
    ) -> PromptLayout:
        target = (len(self._question_start), len(question))
        return PromptLayout(self._prefix_ids, sources, owners, question, target)

    def _sources(self, chunks: Sequence[Chunk]) -> list[tuple[int, ...]]:
        return self._encoder.encode_all([chunk.rendered + CHUNK_END for chunk in chunks])

    def _question(self, query: str) -> tuple[int, ...]:
        if not query.strip():
            raise InputError(f"query is blank ({query!r}); pass the question as text")
        query_ids = self._encoder.encode(query)
        if not query_ids:
            raise InputError(
                f"the query {query!r} has no token, since the scoring model's tokenizer drops all "
                "of its characters; use a model that reads its script, or word it differently"
            )
        question = self._question_start + query_ids
        room = self.max_tokens - len(self._prefix_ids) - 2 * WINDOW_OVERLAP
        if len(question) > room:
            raise PromptTooLongError(
                f"question has {len(question)} tokens, the scoring model's context of "
                f"{self.max_tokens} leaves {max(room, 0)} for it; shorten the question"
            )
        return question


def window_starts(tokens: int, size: int) -> range:
    """Return the starts of the windows of `size` tokens in a text of `tokens` tokens."""
    if tokens <= size:
        return range(1)
    step = size - min(WINDOW_OVERLAP, size // 2)
    return range(0, tokens - size + step, step)


def _text_around_user(tokenizer: Any) -> tuple[str, str | None]:
    """Return the chat template's text before and after the user's words.

    Without a template these are "" and None.
    """
    if tokenizer.chat_template is None:
        return "", None
    try:
        rendered: str = tokenizer.apply_chat_template(
            [{"role": "user", "content": _SENTINEL}],
            chat_template=_FIXED_CLOCK + tokenizer.get_chat_template(),
            tokenize=False,
            add_generation_prompt=True,
            date_string=_FIXED_DATE,
        )
    except TemplateError as error:
        raise UnsupportedModelError(
            f"the model's chat template refuses a single user turn: {error}; use another model"
        ) from error
    head, sentinel, tail = rendered.partition(_SENTINEL)
    if not sentinel:
        raise UnsupportedModelError(
            "the model's chat template changes or drops the user's words, so that their spans are "
            "unknown; use a model whose template keeps them, or one without a template"
        )
    return head, tail
