"""What attribution and the scoring of sentences give back: plain frozen values, no torch."""

from __future__ import annotations

from dataclasses import dataclass

from at2_rag.text.chunks import ScoredChunk


@dataclass(frozen=True, slots=True)
class ScoredSentence:
    """A sentence of a chunk with its score.

    Attributes:
        chunk_index: The chunk's place in the caller's list, from 0.
        start: Where the sentence starts in the chunk's text, in characters.
        end: Where it ends, exclusive.
        text: The sentence, `chunk.text[start:end]` to the letter.
        score: By the same head weights as the chunk's; larger means that more attention went
            there, the answer's in attribution, the question's from `AT2Pruner.score_sentences`.
            With the quantity "mass", read jointly or together, the scores of a chunk's sentences,
            title and separator add up to the chunk's, but for the constant and for tokens that
            two of them share; read apart, each sentence has a softmax of its own.
    """

    chunk_index: int
    start: int
    end: int
    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Attribution:
    """What an answer, or a part of it, rests on.

    Attributes:
        query: The question.
        answer: The answer, whole.
        span: The part attributed, a half-open range of characters in the answer.
        chunks: Every chunk with its score, in the order given.
        sentences: Every sentence of every chunk, in order; empty unless asked for.
    """

    query: str
    answer: str
    span: tuple[int, int]
    chunks: tuple[ScoredChunk, ...]
    sentences: tuple[ScoredSentence, ...] = ()

    @property
    def best_chunks(self) -> tuple[ScoredChunk, ...]:
        """The chunks by score, best first; equal ones in the order given."""
        return tuple(sorted(self.chunks, key=lambda chunk: -chunk.score))

    @property
    def best_sentences(self) -> tuple[ScoredSentence, ...]:
        """The sentences by score, best first; equal ones in the order given."""
        return tuple(sorted(self.sentences, key=lambda sentence: -sentence.score))


@dataclass(frozen=True, slots=True)
class CitedSentence:
    """A sentence of an answer with its sources.

    Attributes:
        start: Where it starts in the answer, in characters.
        end: Where it ends, exclusive.
        text: The sentence, `answer[start:end]` to the letter.
        sources: Numbers of its sources, from 1, best first; empty where no chunk has the share.
        shares: What part of the sentence's score each of them has, in (0, 1].
    """

    start: int
    end: int
    text: str
    sources: tuple[int, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class CitedAnswer:
    """An answer with numbered sources.

    Attributes:
        query: The question.
        answer: The answer, as given.
        sentences: Its sentences, in order.
        sources: The cited chunks; number n of a marker is `sources[n - 1]`. Their scores are for
            the whole answer.
    """

    query: str
    answer: str
    sentences: tuple[CitedSentence, ...]
    sources: tuple[ScoredChunk, ...]

    @property
    def text(self) -> str:
        """The answer with a marker such as ` [1][3]` after each sentence that has sources."""
        parts, place = [], 0
        for sentence in self.sentences:
            markers = "".join(f"[{number}]" for number in sentence.sources)
            parts.append(self.answer[place : sentence.end] + (f" {markers}" if markers else ""))
            place = sentence.end
        return "".join(parts) + self.answer[place:]
