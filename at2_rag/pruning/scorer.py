"""From requests to scores: layout, reading, features, head weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, overload

import numpy as np

from at2_rag.arrays import Floats
from at2_rag.errors import InputError, PromptTooLongError
from at2_rag.model.forks import ForkLock
from at2_rag.options import PruneOptions
from at2_rag.progress import Stopwatch, added
from at2_rag.prompt.layout import PromptLayout
from at2_rag.prompt.sentence_tokens import prompt_spans, sentence_parts
from at2_rag.pruning.request import Request
from at2_rag.pruning.turns import Turns
from at2_rag.reading.attention import SpanAttention
from at2_rag.reading.chunk_states import ChunkState, ChunkStateStore, encode_prefix, encode_sources
from at2_rag.reading.features import FeatureSpec, Pass
from at2_rag.reading.independent import LayoutPasses, read_independent
from at2_rag.reading.joint import read_joint
from at2_rag.reading.question_pass import APART_TOKENS
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.readout.multi_hop import after_multi_hop, multi_hop_question, reads_again
from at2_rag.readout.scores import ChunkScores, Scores, UnitScores, best_by_owner, divided
from at2_rag.text.chunks import Chunk
from at2_rag.text.echo import without_echoes
from at2_rag.text.units import UnitSpan

logger = logging.getLogger(__name__)

GROUP_TOKENS = 16384
"""Most tokens that requests read in the same passes have; a larger request is read by itself."""

MOST_KEPT = 8192
"""Most tokens of chunks whose states are kept, without a cache, for a question read again."""

_Attention: TypeAlias = Mapping[Pass, SpanAttention]


@dataclass(frozen=True, slots=True, eq=False)
class Failure:
    """What was raised where a request couldn't be scored, and seconds per stage until then."""

    error: Exception
    seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """A request that is laid out."""

    request: Request
    layout: PromptLayout
    may_hop: bool  # whether the question may be read again beside the best chunk
    seconds: Mapping[str, float]  # of the layout

    @property
    def units(self) -> Sequence[UnitSpan]:
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
        self._joint = weights.reading == "joint"
        self._cache, self._scope = cache, scope
        self._prefix: ChunkState | None = None
        self._prefix_lock = ForkLock()
        self._turns = Turns()

    @overload
    def score(self, requests: Sequence[Request]) -> list[Scores]: ...
    @overload
    def score(self, requests: Sequence[Request], *, tolerant: bool) -> list[Scores | Failure]: ...
    def score(
        self, requests: Sequence[Request], *, tolerant: bool = False
    ) -> list[Scores] | list[Scores | Failure]:
        """Score requests, several in the same passes of the model; chunks they share are read once.

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
                with watch.stage("layout"):
                    layout = self._lay_out(request.query, request.read_chunks)
                may_hop = self._may_hop(request, layout)
                jobs[index] = _Job(request, layout, may_hop, watch.seconds())
            except Exception as error:
                if not tolerant:
                    raise
                results[index] = Failure(error, watch.seconds())
        for group in self._groups(jobs):
            results |= self._score_group({index: jobs[index] for index in group}, tolerant)
        return [results[index] for index in range(len(requests))]

    def unit_scores(
        self, query: str, chunks: Sequence[Chunk], units: Sequence[UnitSpan], *, alone: bool = True
    ) -> Floats:
        """Return the score [U] of each unit of chunks' texts by the head weights of chunks.

        `alone` leaves out the readings of whole chunks, which change nothing but rounding. There is
        at least one unit; they are in order and don't overlap. Raises as `score`.
        """
        chunks = without_echoes(query, chunks)
        request = Request(query, chunks, chunks, chunks, PruneOptions(unit="sentence"), units, ())
        job = _Job(request, self._lay_out(query, chunks), may_hop=False, seconds={})
        watch = Stopwatch()
        with self._turns.take(watch):
            [(_, scores)] = self._read([job], watch, self._cache, whole=not alone)
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
        if self._joint:
            raise InputError(
                "chunks that are read jointly have no states; leave the joint reading out, or use "
                "head weights for independent reading"
            )
        with self._turns.take(Stopwatch()):
            self._states(self._prefix_state(), self._model.prompts.windows(chunks)[0], self._cache)

    # --- one group of requests ---------------------------------------------------------------

    def _groups(self, jobs: Mapping[int, _Job]) -> list[list[int]]:
        """Group jobs, by their keys, so that each group has few tokens or one job.

        What counts is what the model reads and has in memory: in joint reading the prompts, padded
        to the longest; else the sources and all copies of the question.
        """
        sizes = {
            key: len(job.layout.input_ids) if self._joint else self._tokens_read(job)
            for key, job in jobs.items()
        }
        groups: list[list[int]] = []
        size = 0
        for key in sorted(jobs, key=sizes.__getitem__):
            padded = self._joint and groups
            size = sizes[key] * (len(groups[-1]) + 1) if padded else size + sizes[key]
            if not groups or size > GROUP_TOKENS:
                groups.append([])
                size = sizes[key]
            groups[-1].append(key)
        return groups

    def _tokens_read(self, job: _Job) -> int:
        """Return how many tokens an independent reading runs through the model."""
        layout = job.layout
        sources, tokens = set(layout.source_ids), len(layout.question_ids)
        questions = {
            "together": (1 + bool(job.units)) * tokens,
            "apart": (len(sources) + len(job.units)) * min(tokens, layout.target[0] + APART_TOKENS),
        }
        return sum(map(len, sources)) + sum(questions[name] for name in self._weights.spec.passes)

    def _score_group(self, jobs: Mapping[int, _Job], tolerant: bool) -> dict[int, Scores | Failure]:
        """Score requests in the same passes; one by one where that fails."""
        watch = Stopwatch()
        try:
            with self._turns.take(watch):
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
            index: Scores(chunks, units, added(job.seconds, shared), self._notes(job.layout))
            for (index, job), (chunks, units) in zip(jobs.items(), scores, strict=True)
        }

    def _notes(self, layout: PromptLayout) -> tuple[str, ...]:
        """Return what is out of the ordinary with a question, which is logged, too."""
        tokens = layout.target[1] - layout.target[0]
        if "apart" not in self._weights.spec.passes or tokens <= APART_TOKENS:
            return ()
        note = (
            f"The question has {tokens:,} tokens, more than {APART_TOKENS}: only its first and "
            f"last {APART_TOKENS // 2} are compared with each chunk by itself. Pass just what is "
            "asked."
        )
        logger.warning(note)
        return (note,)

    def _scores_of(
        self, jobs: Sequence[_Job], watch: Stopwatch
    ) -> list[tuple[ChunkScores, UnitScores]]:
        """Read jobs in the same passes and apply the head weights."""
        cache = self._cache
        if cache is None and any(job.may_hop for job in jobs):
            cache = {}  # for as long as the question may be read again
        scores = []
        for job, (attention, sentences) in zip(jobs, self._read(jobs, watch, cache), strict=True):
            options = job.request.options
            first = last = self._chunk_scores(attention, job)
            if job.may_hop and (options.multi_hop or reads_again(options, first)):
                last = self._after_second_reading(job.request, first, watch, cache)
            scores.append((last, self._units_of(job, first, last, sentences)))
        return scores

    def _chunk_scores(self, attention: _Attention, job: _Job) -> ChunkScores:
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

    # --- the question read again -------------------------------------------------------------

    def _may_hop(self, request: Request, layout: PromptLayout) -> bool:
        options = request.options
        if self._weights.multi_hop is None or len(request.chunks) < 2:
            return False
        if options.multi_hop is not None:
            return options.multi_hop
        if options.max_missed is None:
            return False
        # Without a cache the chunks' states stay in memory until the first scores are there.
        tokens = sum(map(len, set(layout.source_ids)))
        return self._cache is not None or tokens <= MOST_KEPT

    def _after_second_reading(
        self, request: Request, first: ChunkScores, watch: Stopwatch, cache: ChunkStateStore | None
    ) -> ChunkScores:
        """Return the scores once the question was read again beside the best chunk.

        A question that is too long with it isn't read again.
        """
        weights, best = self._weights.multi_hop, int(np.argmax(first.scores))
        assert weights is not None  # as `_may_hop` made sure
        others = [chunk for index, chunk in enumerate(request.read_chunks) if index != best]
        question = multi_hop_question(request.query, request.read_chunks[best])
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
        second = best_by_owner(second, layout.owners, len(others))
        return after_multi_hop(first, best, second, weights, self._weights.calibration)

    # --- readings ----------------------------------------------------------------------------

    def _lay_out(self, query: str, chunks: Sequence[Chunk]) -> PromptLayout:
        prompts = self._model.prompts
        return (prompts.joint if self._joint else prompts.independent)(query, chunks)

    def _read(
        self,
        jobs: Sequence[_Job],
        watch: Stopwatch,
        cache: ChunkStateStore | None,
        *,
        whole: bool = True,
    ) -> list[tuple[_Attention, Floats]]:
        """Return the attention to each job's sources, and the scores of its units.

        `whole=False` skips the pass over whole chunks if only sentences are wanted.
        """
        if self._joint:
            return self._read_joint(jobs, watch)
        passes = self._weights.spec.passes
        wanted: list[LayoutPasses] = []
        cuts = []
        for job in jobs:
            if whole:
                wanted.append(LayoutPasses(job.layout, dict.fromkeys(passes)))
            cut = None
            if job.units:
                chunks = job.request.read_chunks
                cut = sentence_parts(self._model.prompts, job.layout, chunks, job.units)
                # Together, tokens of no sentence compete too; apart, the question doesn't see them.
                parts = {"together": (*cut.parts, *cut.rest), "apart": cut.parts}
                wanted.append(LayoutPasses(job.layout, {name: parts[name] for name in passes}))
            cuts.append(cut)
        read = iter(self._read_independent(wanted, watch, cache))
        results: list[tuple[_Attention, Floats]] = []
        for job, cut in zip(jobs, cuts, strict=True):
            attention = next(read) if whole else {}
            scores = np.zeros(0)
            if cut is not None:
                sentences = {name: one.part(0, len(cut.parts)) for name, one in next(read).items()}
                scores = self._best(sentences, cut.owners, len(job.units))
            results.append((attention, scores))
        return results

    def _read_joint(
        self, jobs: Sequence[_Job], watch: Stopwatch
    ) -> list[tuple[_Attention, Floats]]:
        prompts = self._model.prompts
        spans = [
            [
                *job.layout.source_spans,
                *prompt_spans(prompts, job.layout, job.request.read_chunks, job.units),
            ]
            for job in jobs
        ]
        with watch.stage("joint"):
            read = read_joint(self._model, [job.layout for job in jobs], spans=spans)
        results: list[tuple[_Attention, Floats]] = []
        for job, attention in zip(jobs, read, strict=True):
            sources, units = len(job.layout.source_spans), len(job.units)
            scores = np.zeros(0)
            if units:
                sentences = attention.part(sources, sources + units)
                scores = self._best({"joint": sentences}, range(units), units)
            results.append(({"joint": attention.part(0, sources)}, scores))
        return results

    def _read_independent(
        self, wanted: Sequence[LayoutPasses], watch: Stopwatch, cache: ChunkStateStore | None
    ) -> list[dict[Pass, SpanAttention]]:
        """Read layouts, with states from a cache where there is one, and left there."""
        with watch.stage("encode"):
            prefix, states = self._prefix_state(), None
            if cache is not None:
                sources = [ids for layout in wanted for ids in layout.layout.source_ids]
                states = self._states(prefix, sources, cache)
        return read_independent(self._model, prefix, wanted, states=states, watch=watch)

    def _states(
        self, prefix: ChunkState, sources: Sequence[tuple[int, ...]], cache: ChunkStateStore
    ) -> Mapping[tuple[int, ...], ChunkState]:
        """Return the states of sources; reads those that the cache lacks and adds them."""
        different = list(dict.fromkeys(sources))
        return encode_sources(self._model, prefix, different, store=cache, scope=self._scope)

    def _prefix_state(self) -> ChunkState:
        with self._prefix_lock:
            if self._prefix is None:
                self._prefix = encode_prefix(self._model)
            return self._prefix

    def _features(self, attention: _Attention) -> Floats:
        features: Floats = self._weights.spec.extract(attention).cpu().numpy()  # [S, F]
        return features

    def _best(self, attention: _Attention, owners: Sequence[int], count: int) -> Floats:
        """Return the best score of each owner's parts, [count]; every owner has one."""
        return best_by_owner(self._weights.score(self._features(attention)), owners, count)
