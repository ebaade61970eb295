"""`AT2Attributor`: from a finished answer back to the chunks and sentences it rests on.

As B. Cohen-Wang, Y. Chuang and A. Madry, "Learning to Attribute with Attention", 2025: question,
chunks and answer are read in one causal prompt, and the attention of the tokens that predict the
answer's tokens is weighted by head. The answer may come from any LLM; it is only read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from at2_rag.arrays import Floats, check_finite
from at2_rag.errors import InputError, brief
from at2_rag.model.hub import DEFAULT_MODEL
from at2_rag.model.loading import LoadedModel, checked_model, source_of
from at2_rag.model.pickling import reduced
from at2_rag.prompt.layout import AnswerLayout
from at2_rag.prompt.sentence_tokens import prompt_spans, sentence_spans_of, tokens_over
from at2_rag.reading.attention import Span
from at2_rag.reading.joint import read_answer
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.readout.shipped import check_match, resolve_head_weights
from at2_rag.results import Attribution, CitedAnswer, CitedSentence, scored_chunks, scored_sentences
from at2_rag.text.chunks import ChunkLike, checked_chunks
from at2_rag.text.sentences import sentence_spans

Unit = Literal["chunk", "sentence"]


class AT2Attributor:
    """Says which chunks, and which of their sentences, an answer rests on.

    Thread-safe; the caller's model, chunks and torch settings are never changed. Copied and pickled
    like an `AT2Pruner`.

    Args:
        model: The scoring model.
        head_weights: `HeadWeights` with the target rule "answer" (see
            `read_score_estimator`), the name of shipped ones, "uniform" (the plain mean over all
            heads), or a folder as a `Path`. None for shipped weights of this rule fitted on this
            very model; the default model has them.
        allow_question_weights: Take weights fitted on the question's attention too, and apply
            them to the answer's. How well they serve there has not been measured.

    Raises:
        UnsupportedModelError: If the model can't be captured.
        HeadWeightsNotFoundError: If `head_weights` is None and there are none for this model.
        HeadWeightsError: If the weights are for another model, target rule or reading.
    """

    def __init__(
        self,
        model: LoadedModel,
        *,
        head_weights: HeadWeights | str | Path | None = None,
        allow_question_weights: bool = False,
    ) -> None:
        # Weights that are looked up or made here are for joint reading.
        weights = resolve_head_weights(
            head_weights, checked_model(model), reading="joint", target_rule="answer"
        )
        self.head_weights = weights
        self.scoring_model = ScoringModel(model.model, model.tokenizer, depth=weights.layers)
        check_match(
            weights,
            model,
            template_hash=self.scoring_model.prompts.template_hash("joint"),
            target_rule=weights.target_rule if allow_question_weights else "answer",
        )
        self._source, self._allow_question_weights = source_of(model), allow_question_weights

    def __copy__(self) -> AT2Attributor:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> AT2Attributor:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        allow = self._allow_question_weights
        arguments = {"head_weights": self.head_weights, "allow_question_weights": allow}
        return reduced(type(self), self._source, arguments)

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | os.PathLike[str] = DEFAULT_MODEL,
        *,
        revision: str | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        head_weights: HeadWeights | str | Path | None = None,
        allow_question_weights: bool = False,
    ) -> AT2Attributor:
        """Load a scoring model and its head weights.

        Args:
            name_or_folder: As in `LoadedModel.from_pretrained`.
            revision: As in `LoadedModel.from_pretrained`.
            device: As in `LoadedModel.from_pretrained`.
            dtype: As in `LoadedModel.from_pretrained`.
            head_weights: As in the constructor.
            allow_question_weights: As in the constructor.

        Raises:
            ModelNotFoundError: If the model can't be found, fetched or read.
            UnsupportedModelError: As in the constructor, like `HeadWeightsError`.
        """
        model = LoadedModel.from_pretrained(
            name_or_folder, revision=revision, device=device, dtype=dtype
        )
        return cls(model, head_weights=head_weights, allow_question_weights=allow_question_weights)

    def attribute(
        self,
        query: str,
        chunks: Iterable[ChunkLike],
        answer: str,
        *,
        span: tuple[int, int] | None = None,
        unit: Unit = "chunk",
    ) -> Attribution:
        """Score what an answer, or a part of it, rests on.

        Args:
            query: The question.
            chunks: Strings, mappings (`text`, optional `title`, `id`, `metadata`) or `Chunk`s.
            answer: The answer, by whatever LLM or person.
            span: Half-open range of characters of the answer; its tokens that overlap the range
                are attributed. None for the whole answer.
            unit: "sentence" to score the chunks' sentences too.

        Returns:
            Scores of all chunks; without chunks an empty result and no model call.

        Raises:
            InputError: If query or answer is blank or not a string, the span is empty or out of
                range, a chunk isn't text, or the unit is unknown.
            PromptTooLongError: If question, chunks and answer exceed the model's window.
            ScoringError: If the model's numbers overflowed.
        """
        if unit not in ("chunk", "sentence"):
            raise InputError(f"unit is {brief(unit)}; pass 'chunk' or 'sentence'")
        objects, views = checked_chunks(query, chunks)
        _check_answer(answer)
        part = _checked_span(span, answer)
        if not views:
            return Attribution(query, answer, part, ())
        layout = self.scoring_model.prompts.conversation(query, views, answer)
        spans = sentence_spans_of(views) if unit == "sentence" else []
        within = prompt_spans(self.scoring_model.prompts, layout.prompt, views, spans)
        sources = [*layout.prompt.source_spans, *within]
        [scores] = self._scores(layout, [_target(layout, part)], sources)
        sentences = scored_sentences(views, spans, scores[len(views) :])
        scored = scored_chunks(objects, views, scores[: len(views)])
        return Attribution(query, answer, part, scored, sentences)

    def cite(
        self,
        query: str,
        chunks: Iterable[ChunkLike],
        answer: str,
        *,
        max_sources: int = 1,
        min_share: float = 0.0,
    ) -> CitedAnswer:
        """Number the chunks that each sentence of an answer rests on most.

        A chunk's share of a sentence is its part of the scores above zero (without the weights'
        constant) where the weights' score scale is "additive"; else its part of a softmax. It
        compares chunks with each other and doesn't say whether any of them supports the sentence.
        A sentence of which the model's tokenizer leaves nothing has no sources.

        Args:
            query: As in `attribute`.
            chunks: As in `attribute`.
            answer: As in `attribute`.
            max_sources: Most sources of a sentence, at least 1.
            min_share: Least share of a source, in [0, 1].

        Raises:
            InputError: As in `attribute`, or if a limit is out of range.
            PromptTooLongError: As in `attribute`.
            ScoringError: As in `attribute`.
        """
        if isinstance(max_sources, bool) or not isinstance(max_sources, int) or max_sources < 1:
            raise InputError(f"max_sources is {brief(max_sources)}; pass a whole number from 1")
        if not isinstance(min_share, (int, float)) or not 0 <= min_share <= 1:
            raise InputError(f"min_share is {brief(min_share)}; pass a number from 0 to 1")
        objects, views = checked_chunks(query, chunks)
        _check_answer(answer)
        parts = sentence_spans(answer)
        if not views:
            bare = tuple(CitedSentence(*part, answer[slice(*part)], (), ()) for part in parts)
            return CitedAnswer(query, answer, bare, ())
        layout = self.scoring_model.prompts.conversation(query, views, answer)
        tokens = [tokens_over(layout.spans, part) for part in parts]
        whole_answer = _target(layout, (0, len(answer)))
        targets = [whole_answer, *(span for span in tokens if span is not None)]
        whole, *by_part = self._scores(layout, targets, layout.prompt.source_spans)
        scored = scored_chunks(objects, views, whole)
        numbers: dict[int, int] = {}
        sentences = []
        for part, span in zip(parts, tokens, strict=True):
            cited: list[int] = []  # a sentence of which the tokenizer leaves nothing has none
            if span is not None:
                shares = self._shares(by_part.pop(0))
                best = np.argsort(-shares, kind="stable")[:max_sources].tolist()
                cited = [index for index in best if shares[index] >= min_share and shares[index]]
            sources = tuple(numbers.setdefault(index, len(numbers) + 1) for index in cited)
            sentences.append(
                CitedSentence(
                    *part, answer[slice(*part)], sources, tuple(float(shares[i]) for i in cited)
                )
            )
        return CitedAnswer(query, answer, tuple(sentences), tuple(scored[i] for i in numbers))

    def _scores(
        self, layout: AnswerLayout, targets: Sequence[Span], sources: Sequence[Span]
    ) -> list[Floats]:
        """Return for each target the finite scores [S] of the sources."""
        with torch.inference_mode():
            read = read_answer(self.scoring_model, layout, targets, sources)
            features = [self.head_weights.spec.extract({"joint": one}) for one in read]
        scores = [self.head_weights.score(matrix.cpu().numpy()) for matrix in features]
        check_finite(np.concatenate(scores))
        return scores

    def _shares(self, scores: Floats) -> Floats:
        """Return each chunk's share [S] of a sentence's scores [S]; all 0 where none is above 0."""
        if self.head_weights.score_scale == "additive":
            parts = np.maximum(scores - self.head_weights.bias, 0.0)
        else:
            parts = np.exp(scores - scores.max())
        total = parts.sum()
        shares: Floats = parts / total if total > 0 else parts
        return shares


def _check_answer(answer: str) -> None:
    if not isinstance(answer, str) or not answer.strip():
        raise InputError(f"answer is blank or no text ({brief(answer)}); pass the answer as text")


def _checked_span(span: tuple[int, int] | None, answer: str) -> Span:
    if span is None:
        return 0, len(answer)
    if (
        not isinstance(span, (tuple, list))
        or len(span) != 2
        or not all(type(number) is int for number in span)
    ):
        raise InputError(f"span is {brief(span)}; pass two whole numbers, start and end")
    start, end = span
    if not 0 <= start < end <= len(answer):
        raise InputError(
            f"span is {brief(span)}, the answer has {len(answer)} characters; pass a start and a "
            f"larger end from 0 to {len(answer)}"
        )
    return start, end


def _target(layout: AnswerLayout, span: Span) -> Span:
    """Return the answer's tokens that overlap a range of its characters."""
    tokens = tokens_over(layout.spans, span)
    if tokens is None:
        raise InputError(f"no token of the answer overlaps the span {span}; pass a longer span")
    return tokens
