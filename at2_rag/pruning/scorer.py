"""From a question and its chunks to numbers: layout, reading, features, head weights."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

import numpy as np
import numpy.typing as npt
import torch

from at2_rag.errors import InputError, PromptTooLongError, ScoringError
from at2_rag.prompt.layout import PromptLayout
from at2_rag.pruning.turns import Turns
from at2_rag.reading.attention import SpanAttention
from at2_rag.reading.chunk_states import ChunkState, ChunkStateStore, encode_prefix, encode_sources
from at2_rag.reading.features import FeatureSpec, Pass
from at2_rag.reading.layerwise import LayoutPasses, read_layerwise
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.reading.sentence_tokens import (
    SentenceParts,
    prompt_spans,
    scored_sentences,
    sentence_parts,
    sentence_places,
)
from at2_rag.reading.state_groups import SourcePart
from at2_rag.readout.calibration import ChunkScores
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.readout.multi_hop import after_multi_hop, multi_hop_question
from at2_rag.readout.trimming import UnitScores, divided
from at2_rag.results import ScoredSentence
from at2_rag.stopwatch import Stopwatch
from at2_rag.text.chunks import Chunk
from at2_rag.text.units import Place

BATCH_TOKENS = 16384
"""Most tokens that layouts of one group have; a larger layout is by itself."""

Floats = npt.NDArray[np.float64]


class SourceScorer:
    """Scores chunks, or their sentences, by the attention that a question's tokens pay to them.

    Thread-safe: the prefix is read once, under a lock, and nothing else changes. Of many threads
    only so many read at a time as keep the cores busy; the others wait for their turn, so that
    memory doesn't grow with their number.

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
        self.states, self._scope = states, scope
        self._prefix: ChunkState | None = None
        self._prefix_lock = threading.Lock()
        self._turns = Turns()

    def turn(self, watch: Stopwatch) -> AbstractContextManager[None]:
        """Wait for a turn, which all readings within share.

        Args:
            watch: Takes the time of "wait".
        """
        return self._turns.take(watch)

    def chunks(self, query: str, chunks: Sequence[Chunk], watch: Stopwatch) -> ChunkScores:
        """Return what a reading says of chunks; without any there is none.

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
            return ChunkScores(np.zeros(0))
        return self.read([self.lay_out(query, chunks, watch)], watch, priors=[None])[0]

    def lay_out(self, query: str, chunks: Sequence[Chunk], watch: Stopwatch) -> PromptLayout:
        """Lay out a question with its chunks.

        Raises:
            PromptTooLongError: As in `chunks`.
        """
        prompts = self._model.prompts
        with watch.stage("layout"):
            lay_out = prompts.joint if self._weights.reading == "joint" else prompts.independent
            return lay_out(query, chunks)

    def groups(self, layouts: Mapping[int, PromptLayout]) -> list[list[int]]:
        """Group layouts, by their keys, so that each group has few tokens or one layout.

        What counts is what the model reads and has in memory: in joint reading the prompts, padded
        to the longest; else the sources and all copies of the question.
        """
        joint = self._weights.reading == "joint"
        sizes = {
            key: len(own.input_ids) if joint else self._tokens_read(own)
            for key, own in layouts.items()
        }
        found: list[list[int]] = []
        size = 0
        for key in sorted(layouts, key=sizes.__getitem__):
            size = sizes[key] * (len(found[-1]) + 1) if joint and found else size + sizes[key]
            if not found or size > BATCH_TOKENS:
                found.append([])
                size = sizes[key]
            found[-1].append(key)
        return found

    def read(
        self,
        layouts: Sequence[PromptLayout],
        watch: Stopwatch,
        *,
        priors: Sequence[Floats | None],
        states: ChunkStateStore | None = None,
    ) -> list[ChunkScores]:
        """Return what reading several layouts in the same passes says of their chunks.

        Chunks that several have in common are read once. All their states (in joint reading: all
        prompts, padded) are in memory at a time.

        Args:
            layouts: Layouts with at least one chunk each.
            watch: Takes the time of each stage, all layouts together.
            priors: For each layout what a prior adds to its chunks' scores, [S], or None.
            states: Where states are looked for and left, in place of the scorer's own store.

        Raises:
            ScoringError: As in `chunks`.
        """
        attention: list[dict[Pass, SpanAttention]]
        if self._weights.reading == "joint":
            with self._turns.take(watch), watch.stage("joint"):
                attention = [{"joint": own} for own in self._model.read_joint(layouts)]
        else:
            passes = self._passes
            wanted = [LayoutPasses(layout, passes) for layout in layouts]
            attention = self._read_independent(wanted, watch, states=states)
        return [
            self._judged(own, layout.owners, max(layout.owners) + 1, prior)
            for own, layout, prior in zip(attention, layouts, priors, strict=True)
        ]

    def _tokens_read(self, layout: PromptLayout) -> int:
        """Return how many tokens an independent reading runs through the model."""
        sources = set(layout.source_ids)
        copies = sum(1 if name == "together" else len(sources) for name in self._passes)
        return sum(map(len, sources)) + copies * len(layout.question_ids)

    def multi_hop(
        self,
        query: str,
        chunks: Sequence[Chunk],
        read: ChunkScores,
        watch: Stopwatch,
        *,
        states: ChunkStateStore | None = None,
    ) -> ChunkScores:
        """Return what is said of chunks once the question was asked again beside the best of them.

        A question that is too long with it isn't asked again.

        Args:
            query: The question.
            chunks: The chunks.
            read: What a first reading said of them.
            watch: Takes the time of each stage.
            states: As in `read`; where the first left its states nothing is read twice.

        Raises:
            ScoringError: As in `chunks`.
        """
        own, best = self._weights.multi_hop, int(np.argmax(read.scores))
        others = [chunk for place, chunk in enumerate(chunks) if place != best]
        if own is None or not others:
            return read
        try:
            layout = self.lay_out(multi_hop_question(query, chunks[best]), others, watch)
        except PromptTooLongError:
            return read
        wanted = [LayoutPasses(layout, {"together": None})]
        [attention] = self._read_independent(wanted, watch, states=states)
        spec = FeatureSpec(self._weights.spec.quantity, ("together",))
        first = np.delete(read.scores, best)
        by_source = own.scores(first[list(layout.owners)], spec.extract(attention).cpu().numpy())
        return after_multi_hop(read, best, _best_of(by_source, layout.owners, len(others)), own)

    def keep_states(self, chunks: Sequence[Chunk]) -> None:
        """Read chunks that the store has no states of, and leave them there.

        Raises:
            InputError: If there is no store, or the chunks are to be read jointly.
        """
        if self.states is None:
            raise InputError(
                "there is no store to keep states in; pass chunk_cache=ChunkCache(...)"
            )
        if self._weights.reading == "joint":
            raise InputError(
                "chunks that are read jointly have no states of their own; leave the joint reading "
                "out, or use head weights for independent reading"
            )
        sources = list(dict.fromkeys(self._model.prompts.windows(chunks)[0]))
        with self._turns.take(Stopwatch()), torch.inference_mode():
            prefix = self._prefix_state()
            encode_sources(self._model, prefix, sources, store=self.states, scope=self._scope)

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
        watch = Stopwatch()
        layout = self.lay_out(query, chunks, watch)
        if self._weights.reading == "joint":
            _, scores = self.read_units(layout, chunks, places, watch)
        else:
            cut = sentence_parts(self._model.prompts, layout, chunks, places)
            [read] = self._read_independent([self._cut_passes(layout, cut)], watch)
            scores = self._cut_scores(read, cut, len(places))
        return scored_sentences(chunks, places, scores)

    def read_units(
        self,
        layout: PromptLayout,
        chunks: Sequence[Chunk],
        places: Sequence[Place],
        watch: Stopwatch,
        *,
        prior: Floats | None = None,
        states: ChunkStateStore | None = None,
    ) -> tuple[ChunkScores, Floats]:
        """Return what one reading says of a layout's chunks, and scores of units of their texts.

        Args:
            layout: A layout with at least one chunk.
            chunks: Its chunks.
            places: Where the units are, in order, none overlapping another.
            watch: Takes the time of each stage.
            prior: What a prior adds to the chunks' scores, [S]; None for none.
            states: As in `read`.

        Raises:
            ScoringError: As in `chunks`.
        """
        if not places:
            return self.read([layout], watch, priors=[prior], states=states)[0], np.zeros(0)
        prompts, sources = self._model.prompts, len(layout.source_ids)
        if self._weights.reading == "joint":
            spans = [*layout.source_spans, *prompt_spans(prompts, layout, chunks, places)]
            with self._turns.take(watch), watch.stage("joint"):
                [read] = self._model.read_joint([layout], spans=[spans])
            whole: dict[Pass, SpanAttention] = {"joint": read.part(0, sources)}
            scores = self._judged(whole, layout.owners, len(chunks), prior)
            units: dict[Pass, SpanAttention] = {"joint": read.part(sources, len(spans))}
            return scores, self._best(self._features(units), range(len(places)), len(places))
        cut = sentence_parts(prompts, layout, chunks, places)
        wanted = [LayoutPasses(layout, self._passes), self._cut_passes(layout, cut)]
        whole, parts = self._read_independent(wanted, watch, states=states)
        scores = self._judged(whole, layout.owners, len(chunks), prior)
        return scores, self._cut_scores(parts, cut, len(places))

    def judge_units(
        self, first: ChunkScores, read: ChunkScores, own: Floats, places: Sequence[Place]
    ) -> UnitScores:
        """Return what is said of units, by sentence weights if there are any.

        Args:
            first: What a first reading said of the chunks.
            read: What is said of them in the end.
            own: [U], each unit's own score.
            places: Where the units are.
        """
        if self._weights.sentences is None:
            additive = self._weights.score_scale == "additive"
            return divided(read, own, places, additive=additive)
        return self._weights.sentences.judge(first.scores, read, own, places)

    @property
    def _passes(self) -> dict[Pass, tuple[SourcePart, ...] | None]:
        """The passes of the head weights, each over whole sources."""
        return dict.fromkeys(self._weights.spec.passes)

    def _cut_passes(self, layout: PromptLayout, cut: SentenceParts) -> LayoutPasses:
        """The passes of the head weights, each over parts of sources."""
        # Together, tokens of no sentence compete too; apart, nothing is asked of them.
        parts = {"together": (*cut.parts, *cut.rest), "apart": cut.parts}
        return LayoutPasses(layout, {name: parts[name] for name in self._passes})

    def _cut_scores(
        self, read: Mapping[Pass, SpanAttention], cut: SentenceParts, count: int
    ) -> Floats:
        parts = {name: own.part(0, len(cut.parts)) for name, own in read.items()}
        return self._best(self._features(parts), cut.owners, count)

    def _read_independent(
        self,
        wanted: Sequence[LayoutPasses],
        watch: Stopwatch,
        *,
        states: ChunkStateStore | None = None,
    ) -> list[dict[Pass, SpanAttention]]:
        """Read layouts, with states from a store where there is one, and left there."""
        store = self.states if states is None else states
        with self._turns.take(watch), torch.inference_mode():
            with watch.stage("encode"):
                prefix, ready = self._prefix_state(), None
                if store is not None:
                    sources = [ids for own in wanted for ids in own.layout.source_ids]
                    ready = encode_sources(
                        self._model,
                        prefix,
                        list(dict.fromkeys(sources)),
                        store=store,
                        scope=self._scope,
                    )
            return read_layerwise(self._model, prefix, wanted, watch, states=ready)

    def _judged(
        self,
        attention: Mapping[Pass, SpanAttention],
        owners: Sequence[int],
        count: int,
        prior: Floats | None,
    ) -> ChunkScores:
        """Return what attention says of chunks, and of all together."""
        features = self._features(attention)
        scores, calibration = self._best(features, owners, count), self._weights.calibration
        if prior is not None:
            scores = scores + prior
        if calibration is None:
            return ChunkScores(scores)
        evidence = float(calibration.evidence(features).max())
        likely = calibration.probabilities(scores, evidence)
        return ChunkScores(scores, likely, calibration.answerable(scores, evidence), evidence)

    def _features(self, attention: Mapping[Pass, SpanAttention]) -> Floats:
        features: Floats = self._weights.spec.extract(attention).cpu().numpy()
        return features

    def _best(self, features: Floats, owners: Sequence[int], count: int) -> Floats:
        """Return the best score of each owner's sources, [count]; every owner has one."""
        return _best_of(self._weights.score(features), owners, count)

    def _prefix_state(self) -> ChunkState:
        with self._prefix_lock:
            if self._prefix is None:
                self._prefix = encode_prefix(self._model)
            return self._prefix


def _best_of(by_source: Floats, owners: Sequence[int], count: int) -> Floats:
    """Return the best score of each owner's sources, [count].

    Raises:
        ScoringError: If a score isn't finite.
    """
    unusable = np.count_nonzero(~np.isfinite(by_source))
    if unusable:
        raise ScoringError(
            f"{unusable} of {len(by_source)} scores are not finite numbers; the scoring "
            'model\'s numbers overflowed, try dtype="float32"'
        )
    scores = np.full(count, -np.inf)
    np.maximum.at(scores, np.array(owners), by_source)
    return scores
