"""From a question and its chunks to numbers: layout, reading, features, head weights."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from at2_rag.attention import SpanAttention
from at2_rag.chunk_states import ChunkState, ChunkStateStore, encode_prefix, encode_sources
from at2_rag.chunks import Chunk
from at2_rag.citations import ScoredSentence
from at2_rag.errors import InputError, ScoringError
from at2_rag.features import Pass
from at2_rag.head_weights import HeadWeights
from at2_rag.layerwise import read_layerwise
from at2_rag.prompt import PromptLayout
from at2_rag.question_pass import read_apart, read_together
from at2_rag.scoring_model import ScoringModel
from at2_rag.sentence_tokens import (
    SentenceParts,
    prompt_spans,
    scored_sentences,
    sentence_parts,
    sentence_places,
)
from at2_rag.state_groups import SourcePart, gather_states
from at2_rag.stopwatch import Stopwatch

Floats = npt.NDArray[np.float64]


class SourceScorer:
    """Scores chunks, or their sentences, by the attention that a question's tokens pay to them.

    Thread-safe: the prefix is read once, under a lock, and nothing else changes.

    Args:
        model: The scoring model, cut to the layers of the head weights.
        head_weights: Weights that belong to it.
        states: Where states of chunks read independently are kept; None for nowhere.
        scope: As in `state_groups.ready_states`.
    """

    def __init__(
        self,
        model: ScoringModel,
        head_weights: HeadWeights,
        *,
        states: ChunkStateStore | None = None,
        scope: str = "",
    ) -> None:
        self._model, self._weights = model, head_weights
        self._states, self._scope = states, scope
        self._prefix: ChunkState | None = None
        self._prefix_lock = threading.Lock()

    def chunks(self, query: str, chunks: Sequence[Chunk], watch: Stopwatch) -> Floats:
        """Return one finite score a chunk; that of its best window where it has several.

        Args:
            query: The question.
            chunks: The chunks.
            watch: Takes the time of each stage.

        Raises:
            PromptTooLongError: If the question (in joint reading: the prompt) exceeds the model's
                window.
            ScoringError: If the model's numbers overflowed.
        """
        if not chunks:
            return np.zeros(0)
        layout = self._layout(query, chunks, watch)
        if self._weights.reading == "joint":
            with watch.stage("joint"):
                attention: dict[Pass, SpanAttention] = {
                    "joint": self._model.read_joint([layout])[0]
                }
        else:
            attention = self._read_independent(layout, None, watch)
        return self._scores(attention, layout.owners, len(chunks))

    def keep_states(self, chunks: Sequence[Chunk]) -> None:
        """Read chunks that the store has no states of, and leave them there.

        Raises:
            InputError: If there is no store, or the chunks are to be read jointly.
        """
        if self._states is None:
            raise InputError(
                "there is no store to keep states in; pass chunk_states=StateStore(...)"
            )
        if self._weights.reading == "joint":
            raise InputError(
                "chunks that are read jointly have no states of their own; use head weights for "
                'reading "independent"'
            )
        sources = list(dict.fromkeys(self._model.prompts.windows(chunks)[0]))
        with torch.inference_mode():
            prefix = self._prefix_state()
            encode_sources(self._model, prefix, sources, store=self._states, scope=self._scope)

    def sentences(self, query: str, chunks: Sequence[Chunk]) -> tuple[ScoredSentence, ...]:
        """Return the chunks' sentences with finite scores, in order.

        Args:
            query: The question.
            chunks: The chunks.

        Raises:
            PromptTooLongError: As in `chunks`.
            ScoringError: As in `chunks`.
        """
        places = sentence_places(chunks)
        if not places:
            return ()
        layout, prompts = self._layout(query, chunks, Stopwatch()), self._model.prompts
        if self._weights.reading == "joint":
            spans = prompt_spans(prompts, layout, chunks, places)
            read = self._model.read_joint([layout], spans=[spans])
            scores = self._scores({"joint": read[0]}, range(len(places)), len(places))
        else:
            parts = sentence_parts(prompts, layout, chunks, places)
            attention = self._read_independent(layout, parts, Stopwatch())
            scores = self._scores(attention, parts.owners, len(places))
        return scored_sentences(chunks, places, scores)

    def _layout(self, query: str, chunks: Sequence[Chunk], watch: Stopwatch) -> PromptLayout:
        prompts = self._model.prompts
        with watch.stage("layout"):
            lay_out = prompts.joint if self._weights.reading == "joint" else prompts.independent
            return lay_out(query, chunks)

    def _read_independent(
        self, layout: PromptLayout, sentences: SentenceParts | None, watch: Stopwatch
    ) -> dict[Pass, SpanAttention]:
        """Read a layout in the passes of the head weights: its sources, or parts of sentences."""
        passes: dict[Pass, tuple[SourcePart, ...] | None] = dict.fromkeys(self._weights.spec.passes)
        if sentences is not None:
            # Together, tokens of no sentence compete too; apart, nothing is asked of them.
            parts = {"together": (*sentences.parts, *sentences.rest), "apart": sentences.parts}
            passes = {name: parts[name] for name in passes}
        with torch.inference_mode():
            with watch.stage("encode"):
                prefix = self._prefix_state()
            if self._states is None:
                attention = read_layerwise(self._model, prefix, layout, passes, watch)
            else:
                attention = self._read_stored(prefix, layout, passes, self._states, watch)
        if sentences is not None and "together" in attention:
            count, found = len(sentences.parts), attention["together"]
            attention["together"] = SpanAttention(
                found.mass[..., :count], found.log_ratio[..., :count]
            )
        return attention

    def _read_stored(
        self,
        prefix: ChunkState,
        layout: PromptLayout,
        passes: Mapping[Pass, tuple[SourcePart, ...] | None],
        store: ChunkStateStore,
        watch: Stopwatch,
    ) -> dict[Pass, SpanAttention]:
        """Read as `layerwise.read_layerwise` does, with states from a store, or for it."""
        read = {"together": read_together, "apart": read_apart}
        with watch.stage("encode"):
            sources = list(dict.fromkeys(layout.source_ids))
            encoded = encode_sources(self._model, prefix, sources, store=store, scope=self._scope)
            ready = {
                parts: gather_states(prefix, encoded, layout, parts=parts)
                for parts in dict.fromkeys(passes.values())
            }
        attention: dict[Pass, SpanAttention] = {}
        for name, parts in passes.items():
            with watch.stage(name):
                attention[name] = read[name](self._model, ready[parts], layout)
        return attention

    def _scores(
        self, attention: dict[Pass, SpanAttention], owners: Sequence[int], count: int
    ) -> Floats:
        """Return the best score of each owner's sources, [count]; every owner has one."""
        features = self._weights.spec.extract(attention)
        by_source = self._weights.score(features.cpu().numpy())
        unusable = np.count_nonzero(~np.isfinite(by_source))
        if unusable:
            raise ScoringError(
                f"{unusable} of {len(by_source)} scores are not finite numbers; the scoring "
                'model\'s numbers overflowed, try dtype="float32"'
            )
        scores = np.full(count, -np.inf)
        np.maximum.at(scores, np.array(owners), by_source)
        return scores

    def _prefix_state(self) -> ChunkState:
        with self._prefix_lock:
            if self._prefix is None:
                self._prefix = encode_prefix(self._model)
            return self._prefix
