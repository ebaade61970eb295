"""From requests to scores: layout, reading, features, head weights."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import overload

import numpy as np
import torch

from at2_rag.arrays import Floats
from at2_rag.errors import InputError, PromptTooLongError
from at2_rag.prompt.layout import PromptLayout
from at2_rag.prompt.sentence_tokens import SentenceParts, prompt_spans, sentence_parts
from at2_rag.pruning.request import Request
from at2_rag.pruning.turns import Turns
from at2_rag.reading.attention import SpanAttention
from at2_rag.reading.chunk_states import ChunkState, ChunkStateStore, encode_prefix, encode_sources
from at2_rag.reading.features import FeatureSpec, Pass
from at2_rag.reading.independent import LayoutPasses, read_independent
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.readout.multi_hop import after_multi_hop, multi_hop_question, reads_again, wants_hop
from at2_rag.readout.scores import ChunkScores, Scores, UnitScores, best_by_owner, divided
from at2_rag.stopwatch import Stopwatch, added
from at2_rag.text.chunks import Chunk
from at2_rag.text.units import Place

logger = logging.getLogger(__name__)

BATCH_TOKENS = 16384
"""Most tokens that requests read in the same passes have; a larger request is read by itself."""

MOST_KEPT = 8192
"""Most tokens of chunks whose states are kept, without a cache, for a question read again."""


@dataclass(frozen=True, slots=True, eq=False)
class Failure:
    """Why a request couldn't be scored.

    Attributes:
        error: What was raised.
        seconds: Seconds per stage until then, and in `total`.
    """

    error: Exception
    seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """A request that is laid out.

    Attributes:
        request: The request.
        layout: Its layout.
        hop: Whether the question is read again; None where the first reading decides.
        keeps_states: Whether the states of the chunks are there for a second reading.
        seconds: Seconds of the layout, and in `total`.
    """

    request: Request
    layout: PromptLayout
    hop: bool | None
    keeps_states: bool
    seconds: Mapping[str, float]

    @property
    def units(self) -> Sequence[Place]:
        """The units that are read beside the chunks: the sentences, if they are chosen among."""
        return self.request.units if self.request.by_sentence else ()


class Scorer:
    """Scores chunks and sentences by the attention that a question's tokens pay to them.

    Thread-safe: the prefix is read once, under a lock, and nothing else changes. Only as many
    threads read at a time as keep the cores busy, so that memory doesn't grow with their number.

    Args:
        model: The scoring model, cut to the layers of the head weights.
        weights: Head weights that belong to it.
        cache: Where states of chunks that are read independently are kept; None to keep none.
        scope: As in `encode_sources`.
    """

    def __init__(
        self,
        model: ScoringModel,
        weights: HeadWeights,
        *,
        cache: ChunkStateStore | None = None,
        scope: str = "",
    ) -> None:
        self._model, self._weights = model, weights
        self._cache, self._scope = cache, scope
        self._prefix: ChunkState | None = None
        self._prefix_lock = threading.Lock()
        self._turns = Turns()

    @overload
    def score(self, requests: Sequence[Request]) -> list[Scores]: ...
    @overload
    def score(self, requests: Sequence[Request], *, tolerant: bool) -> list[Scores | Failure]: ...
    def score(
        self, requests: Sequence[Request], *, tolerant: bool = False
    ) -> list[Scores] | list[Scores | Failure]:
        """Score requests, several in the same passes of the model.

        Chunks that several requests have in common are read once.

        Args:
            requests: Requests with at least one chunk each.
            tolerant: Return a `Failure` for a request that can't be scored, instead of raising.

        Raises:
            PromptTooLongError: If a question (in joint reading: a prompt) exceeds the model's
                window.
            ScoringError: If the model's numbers overflowed.
        """
        results: dict[int, Scores | Failure] = {}
        jobs: dict[int, _Job] = {}
        for index, request in enumerate(requests):
            watch = Stopwatch()
            try:
                jobs[index] = self._laid_out(request, watch)
            except Exception as error:
                if not tolerant:
                    raise
                results[index] = Failure(error, watch.seconds())
        for group in self._groups(jobs):
            results |= self._score_group({index: jobs[index] for index in group}, tolerant)
        return [results[index] for index in range(len(requests))]

    def unit_scores(
        self, query: str, chunks: Sequence[Chunk], units: Sequence[Place], *, alone: bool = True
    ) -> Floats:
        """Return the score [U] of each unit of chunks' texts by the head weights of chunks.

        Args:
            query: The question.
            chunks: The chunks.
            units: The U units, in order, at least one, none overlapping another.
            alone: Leave out the readings of whole chunks, which differ from none in nothing but
                rounding.

        Raises:
            PromptTooLongError: As in `score`.
            ScoringError: As in `score`.
        """
        layout = self._lay_out(query, chunks)
        watch = Stopwatch()
        with self._reading(watch):
            if self._weights.reading == "joint":
                [(_, scores)] = self._read_joint([(layout, chunks, units)], watch)
            else:
                cut = sentence_parts(self._model.prompts, layout, chunks, units)
                whole = [] if alone else [LayoutPasses(layout, self._whole_passes)]
                read = self._read_independent([*whole, self._cut_passes(layout, cut)], watch)
                scores = self._cut_scores(read[-1], cut, len(units))
        return scores

    def keep_states(self, chunks: Sequence[Chunk]) -> None:
        """Read chunks that the cache has no states of, and leave them there.

        Raises:
            InputError: If there is no cache, or the chunks are read jointly.
        """
        if self._cache is None:
            raise InputError(
                "there is no cache to keep states in; pass chunk_cache=ChunkCache(...)"
            )
        if self._weights.reading == "joint":
            raise InputError(
                "chunks that are read jointly have no states of their own; leave the joint reading "
                "out, or use head weights for independent reading"
            )
        sources = list(dict.fromkeys(self._model.prompts.windows(chunks)[0]))
        with self._reading(Stopwatch()):
            encode_sources(
                self._model, self._prefix_state(), sources, store=self._cache, scope=self._scope
            )

    # --- one group of requests ---------------------------------------------------------------

    def _score_group(self, jobs: Mapping[int, _Job], tolerant: bool) -> dict[int, Scores | Failure]:
        """Score requests in the same passes; one by one where that fails."""
        watch = Stopwatch()
        try:
            with self._reading(watch):
                scores = self._scores_of(list(jobs.values()), watch)
        except Exception as error:
            if len(jobs) > 1:
                logger.warning(
                    "%d requests failed together, each is tried alone", len(jobs), exc_info=error
                )
                results: dict[int, Scores | Failure] = {}
                for index, job in jobs.items():
                    results |= self._score_group({index: job}, tolerant)
                return results
            if not tolerant:
                raise
            return {
                i: Failure(error, added(job.seconds, watch.seconds())) for i, job in jobs.items()
            }
        shared = watch.seconds(shared_by=len(jobs))
        return {
            index: Scores(chunks, units, added(job.seconds, shared))
            for (index, job), (chunks, units) in zip(jobs.items(), scores, strict=True)
        }

    def _scores_of(
        self, jobs: Sequence[_Job], watch: Stopwatch
    ) -> list[tuple[ChunkScores, UnitScores]]:
        """Read jobs in the same passes and apply the head weights."""
        # Without a cache states are kept for as long as the question may be read again.
        keeps = self._cache is None and any(job.keeps_states for job in jobs)
        cache: ChunkStateStore | None = {} if keeps else self._cache
        scores = []
        for job, (first, sentences) in zip(
            jobs, self._first_scores(jobs, watch, cache), strict=True
        ):
            last = first
            again = job.keeps_states and reads_again(job.request.options, first)
            if again if job.hop is None else job.hop:
                last = self._after_second_reading(job.request, first, watch, cache)
            scores.append((last, self._units_of(job, first, last, sentences)))
        return scores

    def _first_scores(
        self, jobs: Sequence[_Job], watch: Stopwatch, cache: ChunkStateStore | None
    ) -> list[tuple[ChunkScores, Floats]]:
        """Return each job's scores of chunks, and of its sentences by the weights of chunks."""
        if self._weights.reading == "joint":
            read = self._read_joint(
                [(job.layout, job.request.chunks, job.units) for job in jobs], watch
            )
            return [
                (self._chunk_scores(attention, job), sentences)
                for job, (attention, sentences) in zip(jobs, read, strict=True)
            ]
        wanted: list[LayoutPasses] = []
        cuts: list[SentenceParts | None] = []
        for job in jobs:
            wanted.append(LayoutPasses(job.layout, self._whole_passes))
            cut = None
            if job.units:
                cut = sentence_parts(self._model.prompts, job.layout, job.request.chunks, job.units)
                wanted.append(self._cut_passes(job.layout, cut))
            cuts.append(cut)
        attention = iter(self._read_independent(wanted, watch, cache))
        scores = []
        for job, cut in zip(jobs, cuts, strict=True):
            chunks = self._chunk_scores(next(attention), job)
            sentences = np.zeros(0)
            if cut is not None:
                sentences = self._cut_scores(next(attention), cut, len(job.units))
            scores.append((chunks, sentences))
        return scores

    def _after_second_reading(
        self, request: Request, first: ChunkScores, watch: Stopwatch, cache: ChunkStateStore | None
    ) -> ChunkScores:
        """Return the scores once the question was read again beside the best chunk.

        A question that is too long with it isn't read again.
        """
        weights, best = self._weights.multi_hop, int(np.argmax(first.scores))
        others = [chunk for index, chunk in enumerate(request.chunks) if index != best]
        if weights is None or not others:
            return first
        question = multi_hop_question(request.query, request.chunks[best])
        try:
            with watch.stage("layout"):
                layout = self._lay_out(question, others)
        except PromptTooLongError:
            return first
        wanted = LayoutPasses(layout, {"together": None})
        [attention] = self._read_independent([wanted], watch, cache)
        spec = FeatureSpec(self._weights.spec.quantity, ("together",))
        before = np.delete(first.scores, best)[list(layout.owners)]
        second = weights.scores(before, spec.extract(attention).cpu().numpy())
        return after_multi_hop(
            first, best, best_by_owner(second, layout.owners, len(others)), weights
        )

    def _units_of(
        self, job: _Job, first: ChunkScores, last: ChunkScores, sentences: Floats
    ) -> UnitScores:
        """Return the scores of a request's units: its chunks, or its sentences."""
        if not job.request.by_sentence:
            return UnitScores(last.scores, last.probabilities)
        if self._weights.sentences is not None:
            return self._weights.sentences.judge(first.scores, last, sentences, job.request.units)
        additive = self._weights.score_scale == "additive"
        return divided(last, sentences, job.request.units, additive=additive)

    # --- layouts -----------------------------------------------------------------------------

    def _laid_out(self, request: Request, watch: Stopwatch) -> _Job:
        with watch.stage("layout"):
            layout = self._lay_out(request.query, request.chunks)
        hop = wants_hop(
            request.options, len(request.chunks), known=self._weights.multi_hop is not None
        )
        keeps_states = hop is not False
        if hop is None and self._cache is None:
            keeps_states = sum(map(len, set(layout.source_ids))) <= MOST_KEPT
        return _Job(request, layout, hop, keeps_states, watch.seconds())

    def _lay_out(self, query: str, chunks: Sequence[Chunk]) -> PromptLayout:
        prompts = self._model.prompts
        lay_out = prompts.joint if self._weights.reading == "joint" else prompts.independent
        return lay_out(query, chunks)

    def _groups(self, jobs: Mapping[int, _Job]) -> list[list[int]]:
        """Group jobs, by their keys, so that each group has few tokens or one job.

        What counts is what the model reads and has in memory: in joint reading the prompts, padded
        to the longest; else the sources and all copies of the question.
        """
        joint = self._weights.reading == "joint"
        sizes = {
            key: len(job.layout.input_ids) if joint else self._tokens_read(job)
            for key, job in jobs.items()
        }
        groups: list[list[int]] = []
        size = 0
        for key in sorted(jobs, key=sizes.__getitem__):
            size = sizes[key] * (len(groups[-1]) + 1) if joint and groups else size + sizes[key]
            if not groups or size > BATCH_TOKENS:
                groups.append([])
                size = sizes[key]
            groups[-1].append(key)
        return groups

    def _tokens_read(self, job: _Job) -> int:
        """Return how many tokens an independent reading runs through the model."""
        sources = set(job.layout.source_ids)
        copies = sum(
            1 + bool(job.units) if name == "together" else len(sources) + len(job.units)
            for name in self._whole_passes
        )
        return sum(map(len, sources)) + copies * len(job.layout.question_ids)

    # --- readings ----------------------------------------------------------------------------

    @contextmanager
    def _reading(self, watch: Stopwatch) -> Iterator[None]:
        """Wait for a turn to read; not to be entered again within."""
        with self._turns.take(watch), torch.inference_mode():
            yield

    def _read_joint(
        self,
        prompts: Sequence[tuple[PromptLayout, Sequence[Chunk], Sequence[Place]]],
        watch: Stopwatch,
    ) -> list[tuple[dict[Pass, SpanAttention], Floats]]:
        """Return the attention to each prompt's sources, and the scores of its units."""
        spans = [
            [*layout.source_spans, *prompt_spans(self._model.prompts, layout, chunks, units)]
            for layout, chunks, units in prompts
        ]
        with watch.stage("joint"):
            read = self._model.read_joint([layout for layout, _, _ in prompts], spans=spans)
        results: list[tuple[dict[Pass, SpanAttention], Floats]] = []
        for (layout, _, units), attention in zip(prompts, read, strict=True):
            sources = len(layout.source_spans)
            scores = np.zeros(0)
            if units:
                parts: dict[Pass, SpanAttention] = {
                    "joint": attention.part(sources, sources + len(units))
                }
                scores = self._best(parts, range(len(units)), len(units))
            results.append(({"joint": attention.part(0, sources)}, scores))
        return results

    def _read_independent(
        self,
        wanted: Sequence[LayoutPasses],
        watch: Stopwatch,
        cache: ChunkStateStore | None = None,
    ) -> list[dict[Pass, SpanAttention]]:
        """Read layouts, with states from a cache where there is one, and left there."""
        cache = self._cache if cache is None else cache
        with watch.stage("encode"):
            prefix, states = self._prefix_state(), None
            if cache is not None:
                sources = [ids for layout in wanted for ids in layout.layout.source_ids]
                states = encode_sources(
                    self._model,
                    prefix,
                    list(dict.fromkeys(sources)),
                    store=cache,
                    scope=self._scope,
                )
        return read_independent(self._model, prefix, wanted, states=states, watch=watch)

    def _prefix_state(self) -> ChunkState:
        with self._prefix_lock:
            if self._prefix is None:
                self._prefix = encode_prefix(self._model)
            return self._prefix

    # --- from attention to scores ------------------------------------------------------------

    @property
    def _whole_passes(self) -> dict[Pass, None]:
        """The passes of the head weights, each over whole sources."""
        return dict.fromkeys(self._weights.spec.passes)

    def _cut_passes(self, layout: PromptLayout, cut: SentenceParts) -> LayoutPasses:
        """Return the passes of the head weights, each over parts of sources."""
        # Together, tokens of no sentence compete too; apart, the question doesn't see them.
        parts = {"together": (*cut.parts, *cut.rest), "apart": cut.parts}
        return LayoutPasses(layout, {name: parts[name] for name in self._whole_passes})

    def _cut_scores(
        self, attention: Mapping[Pass, SpanAttention], cut: SentenceParts, count: int
    ) -> Floats:
        parts = {name: whole.part(0, len(cut.parts)) for name, whole in attention.items()}
        return self._best(parts, cut.owners, count)

    def _chunk_scores(self, attention: Mapping[Pass, SpanAttention], job: _Job) -> ChunkScores:
        """Return the scores of a job's chunks, and of the call."""
        features = self._features(attention)
        scores = best_by_owner(
            self._weights.score(features), job.layout.owners, len(job.request.chunks)
        )
        if job.request.prior is not None:
            scores = scores + job.request.prior
        calibration = self._weights.calibration
        if calibration is None:
            return ChunkScores(scores)
        evidence = float(calibration.evidence(features).max())
        return ChunkScores(
            scores,
            calibration.probabilities(scores, evidence),
            calibration.answerable(scores, evidence),
            evidence,
        )

    def _features(self, attention: Mapping[Pass, SpanAttention]) -> Floats:
        features: Floats = self._weights.spec.extract(attention).cpu().numpy()  # [S, F]
        return features

    def _best(
        self, attention: Mapping[Pass, SpanAttention], owners: Sequence[int], count: int
    ) -> Floats:
        """Return the best score of each owner's parts, [count]; every owner has one."""
        return best_by_owner(self._weights.score(self._features(attention)), owners, count)
