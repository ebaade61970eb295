"""From requests to scores: layout, reading, features, head weights."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar, overload

import numpy as np
import torch

from at2_rag.arrays import Floats
from at2_rag.errors import InputError, PromptTooLongError
from at2_rag.options import PruneOptions
from at2_rag.progress import Stopwatch, added
from at2_rag.prompt.layout import PromptLayout
from at2_rag.pruning.features import LaidOut, independent_features, joint_features, matrix
from at2_rag.pruning.legibility import Legibility, Unread
from at2_rag.pruning.request import Request
from at2_rag.pruning.workers import Workers, most_readers
from at2_rag.reading.chunk_states import StateStore
from at2_rag.reading.features import FeatureSpec
from at2_rag.reading.independent import IndependentReader, LayoutPasses, States
from at2_rag.reading.late import TARGET_TOKENS
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.readout.multi_hop import (
    after_multi_hop,
    chunks_read_again,
    multi_hop_question,
    reads_again,
)
from at2_rag.readout.scores import (
    ChunkScores,
    Scores,
    UnitScores,
    best_by_owner,
    divided,
    doubted,
)
from at2_rag.text.chunks import Chunk
from at2_rag.text.echo import without_echoes
from at2_rag.text.units import UnitSpan

logger = logging.getLogger(__name__)

T = TypeVar("T")

GROUP_TOKENS = 16384
"""Most tokens that requests read in the same passes have; a larger request is read by itself."""


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
    unread: Unread = Unread()

    @property
    def units(self) -> Sequence[UnitSpan]:
        """The units that are read beside the chunks: the sentences, if they are chosen among."""
        return self.request.units if self.request.by_sentence else ()


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """What the head weights make of what was read for a job."""

    features: Floats  # [sources, F]
    chunks: Floats  # [S] scores
    units: Floats  # [U] scores


def tokens_read(weights: HeadWeights, layout: PromptLayout, units: Sequence[UnitSpan] = ()) -> int:
    """Return how many tokens a first reading runs through the model, if the cache has nothing.

    Chunks and units with all copies of the question; of a shortlist that is the most there can be.
    """
    if weights.reading == "joint":
        return len(layout.input_ids)
    question = len(layout.question_ids)
    copies = Counter(layout.owners) + Counter(owner for owner, _, _ in units)
    most = None if weights.shortlist is None else weights.shortlist.most
    apart = sum(count for _, count in copies.most_common(most))
    questions = {
        "together": (1 + bool(units)) * question,
        "late": question,
        "apart": apart * min(question, layout.target[0] + TARGET_TOKENS),
    }
    sources = sum(map(len, set(layout.source_ids)))
    return sources + sum(questions[name] for name in weights.spec.passes)


class Scorer:
    """Scores chunks and sentences by the attention that a question's tokens pay to them.

    Thread-safe: the prefix is read once, under a lock, and nothing else changes. The main thread
    reads for itself, and a few threads for all others, see `Workers.call`.

    Args:
        model: The scoring model, cut to the layers of the head weights.
        weights: Head weights that belong to it.
        cache: Where what is kept of chunks that are read independently is; None to keep nothing.
        scope: As in `IndependentReader`.
    """

    def __init__(
        self,
        model: ScoringModel,
        weights: HeadWeights,
        *,
        cache: StateStore | None = None,
        scope: str = "",
    ) -> None:
        self._model, self._weights = model, weights
        self._reader: IndependentReader | None = None
        if weights.reading == "independent":
            # None, which is all, where no head has a weight.
            heads = weights.key_heads(model.key_heads) or None
            self._reader = IndependentReader(model, heads=heads, store=cache, scope=scope)
        self._legibility = Legibility(model.prompts)
        self._readers = Workers(most_readers)
        self._logged_unread = False  # that a text can hardly be read

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
                    query, chunks = request.read_query, request.read_chunks
                    layout = self._lay_out(query, chunks)
                    unread = self._legibility.unread(layout, query, chunks)
                jobs[index] = _Job(request, layout, self._may_hop(request), watch.seconds(), unread)
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
        options = PruneOptions(unit="sentence")
        request = Request(query, query, chunks, chunks, chunks, options, units, ())
        job = _Job(request, self._lay_out(query, chunks), may_hop=False, seconds={})
        watch = Stopwatch()
        [read] = self._in_turn(partial(self._read, [job], watch, {}, whole=not alone), watch)
        return read.units

    def keep(self, chunks: Sequence[Chunk]) -> None:
        """Read chunks that the cache has nothing of, and leave there what a first reading needs.

        Raises:
            InputError: If the chunks are read jointly.
        """
        if self._reader is None:
            raise InputError(
                "nothing is kept of chunks that are read jointly; leave the joint reading out, or "
                "use head weights for independent reading"
            )
        late = "late" in self._weights.spec.passes
        keep: Callable[..., object] = self._reader.keep_keys if late else self._reader.states
        self._in_turn(lambda: keep(self._model.prompts.windows(chunks)[0]), Stopwatch())

    def warm_up(self) -> None:
        """Score a short request, and leave nothing of it in the cache."""
        chunks = [Chunk("Jane Austen wrote Emma.")]
        layout = self._lay_out("Who wrote Emma?", chunks)
        weights, texts, watch = self._weights, [LaidOut(layout, chunks)], Stopwatch()
        if self._reader is None:
            self._in_turn(partial(joint_features, self._model, weights, texts, watch), watch)
        else:
            reader = self._reader.forgetful()
            self._in_turn(partial(independent_features, reader, weights, texts, {}, watch), watch)

    def _in_turn(self, read: Callable[[], T], watch: Stopwatch) -> T:
        """Return what `read` returns in inference mode, in a thread that may read."""
        return self._readers.call(torch.inference_mode()(read), watch)

    # --- one group of requests ---------------------------------------------------------------

    def _groups(self, jobs: Mapping[int, _Job]) -> list[list[int]]:
        """Group jobs, by their keys, so that each group has few tokens or one job.

        What counts is what the model reads and has in memory: in joint reading the prompts, padded
        to the longest; else the sources and all copies of the question.
        """
        sizes = {
            key: tokens_read(self._weights, job.layout, job.units) for key, job in jobs.items()
        }
        groups: list[list[int]] = []
        size = 0
        for key in sorted(jobs, key=sizes.__getitem__):
            padded = self._reader is None and groups
            size = sizes[key] * (len(groups[-1]) + 1) if padded else size + sizes[key]
            if not groups or size > GROUP_TOKENS:
                groups.append([])
                size = sizes[key]
            groups[-1].append(key)
        return groups

    def _score_group(self, jobs: Mapping[int, _Job], tolerant: bool) -> dict[int, Scores | Failure]:
        """Score requests in the same passes; one by one where that fails."""
        watch = Stopwatch()
        try:
            scores = self._in_turn(partial(self._scores_of, list(jobs.values()), watch), watch)
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
            index: Scores(chunks, units, added(job.seconds, shared), self._notes(job))
            for (index, job), (chunks, units) in zip(jobs.items(), scores, strict=True)
        }

    def _notes(self, job: _Job) -> tuple[str, ...]:
        """Return what is out of the ordinary with the texts, which is logged, too."""
        notes = []
        tokens = job.layout.target[1] - job.layout.target[0]
        if self._reader is not None and tokens > TARGET_TOKENS:
            notes.append(
                f"The question has {tokens:,} tokens, more than {TARGET_TOKENS}: only its first "
                f"and last {TARGET_TOKENS // 2} are compared with each chunk by itself. Pass just "
                "what is asked."
            )
            logger.warning(notes[-1])
        calibration = self._weights.calibration
        if calibration and (note := job.unread.note(calibration.unread)):
            notes.append(note)
            if not self._logged_unread:
                logger.warning("%s (This is logged once.)", note)
            self._logged_unread = True
        return tuple(notes)

    def _scores_of(
        self, jobs: Sequence[_Job], watch: Stopwatch
    ) -> list[tuple[ChunkScores, UnitScores]]:
        """Read jobs in the same passes and apply the head weights."""
        scores = []
        states: States = {}
        for job, read in zip(jobs, self._read(jobs, watch, states), strict=True):
            options = job.request.options
            first = last = self._chunk_scores(read, job)
            if job.may_hop and (options.multi_hop or reads_again(options, first)):
                last = self._after_second_reading(job.request, first, watch, states)
            scores.append((last, self._units_of(job, first, last, read.units)))
        return scores

    def _chunk_scores(self, read: _Read, job: _Job) -> ChunkScores:
        """Return the scores of a job's chunks, and of the call."""
        scores = read.chunks
        if job.request.prior is not None:
            scores = scores + job.request.prior
        calibration = self._weights.calibration
        if calibration is None:
            return ChunkScores(scores)
        evidence = calibration.evidence(read.features, job.layout.owners)
        answerable = calibration.answerable(scores, evidence)
        likely = calibration.probabilities(scores, answerable)
        result = ChunkScores(scores, likely, answerable)
        return doubted(result, self._doubt(job))

    def _doubt(self, job: _Job) -> float:
        calibration = self._weights.calibration
        return 0.0 if calibration is None else job.unread.doubt(calibration.unread)

    def _units_of(
        self, job: _Job, first: ChunkScores, last: ChunkScores, sentences: Floats
    ) -> UnitScores:
        """Return the scores of a request's units: its chunks, or its sentences."""
        if not job.request.by_sentence:
            return UnitScores(last.scores, last.probabilities)
        if self._weights.sentences is not None:
            units, doubt = job.request.units, self._doubt(job)
            return self._weights.sentences.judge(first.scores, last, sentences, units, doubt=doubt)
        additive = self._weights.score_scale == "additive"
        return divided(last, sentences, job.request.units, additive=additive)

    # --- the question read again -------------------------------------------------------------

    def _may_hop(self, request: Request) -> bool:
        options = request.options
        if self._weights.multi_hop is None or len(request.chunks) < 2:
            return False
        if options.multi_hop is not None:
            return options.multi_hop
        return options.min_p is not None or options.max_missed is not None

    def _after_second_reading(
        self, request: Request, first: ChunkScores, watch: Stopwatch, states: States
    ) -> ChunkScores:
        """Return the scores once the question was read again beside the best chunk.

        A question that is too long with it isn't read again, nor are chunks of known `states`.
        """
        weights = self._weights.multi_hop
        assert weights is not None  # as `_may_hop` made sure
        best, others = chunks_read_again(first.scores)
        question = multi_hop_question(request.read_query, request.read_chunks[best])
        try:
            with watch.stage("layout"):
                layout = self._lay_out(question, [request.read_chunks[index] for index in others])
        except PromptTooLongError:
            return first
        assert self._reader is not None  # joint weights have none for it
        passes = LayoutPasses(layout, {"together": None})
        [attention] = self._reader.read([passes], states=states, watch=watch)
        spec = FeatureSpec(self._weights.spec.quantity, ("together",))
        before = first.scores[others][list(layout.owners)]
        second = weights.scores(before, matrix(spec, attention))
        second = best_by_owner(second, layout.owners, len(others))
        return after_multi_hop(first, best, others, second, weights, self._weights.calibration)

    # --- readings ----------------------------------------------------------------------------

    def _lay_out(self, query: str, chunks: Sequence[Chunk]) -> PromptLayout:
        prompts = self._model.prompts
        return (prompts.joint if self._reader is None else prompts.independent)(query, chunks)

    def _read(
        self, jobs: Sequence[_Job], watch: Stopwatch, states: States, *, whole: bool = True
    ) -> list[_Read]:
        """Read jobs and apply the head weights; `whole=False` leaves the chunks out.

        `states` are as in `independent_features`.
        """
        weights = self._weights
        texts = [LaidOut(job.layout, job.request.read_chunks, job.units, whole) for job in jobs]
        if self._reader is None:
            features = joint_features(self._model, weights, texts, watch)
        else:
            features = independent_features(self._reader, weights, texts, states, watch)
        results = []
        for job, read in zip(jobs, features, strict=True):
            chunks = units = np.zeros(0)
            if whole:
                owners, count = job.layout.owners, len(job.request.chunks)
                chunks = best_by_owner(weights.score(read.chunks), owners, count)
            if job.units:
                of_parts = weights.score(read.units)
                units = best_by_owner(of_parts, read.unit_owners, len(job.units))
            results.append(_Read(read.chunks, chunks, units))
        return results
