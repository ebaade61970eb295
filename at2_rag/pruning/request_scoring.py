"""Requests to their results: scored together where they can be, each by itself where that fails."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

from at2_rag.prompt.layout import PromptLayout
from at2_rag.pruning.request import PruneRequest
from at2_rag.pruning.scorer import SourceScorer
from at2_rag.reading.chunk_states import ChunkStateStore
from at2_rag.results import PruneResult
from at2_rag.stopwatch import Stopwatch

logger = logging.getLogger(__name__)

MOST_KEPT = 8192
"""Tokens of chunks whose states are kept, without a store, where a question may be asked again."""


class RequestScoring:
    """Scores requests and lets them choose.

    Where a max_missed holds and the best chunk alone doesn't meet it, the question is asked again
    beside it, if head weights learned to: over states that a store has, or that were kept
    meanwhile, of `MOST_KEPT` tokens at most.

    Args:
        scorer: Scores chunks, and units of their texts.
        keep_all: Whether a request that can't be scored keeps all its chunks; else it raises.
    """

    def __init__(self, scorer: SourceScorer, *, keep_all: bool) -> None:
        self._scorer, self._keep_all = scorer, keep_all

    def results(self, requests: Sequence[PruneRequest]) -> list[PruneResult]:
        """Return the requests' results, in order; several are scored in the same passes.

        A request that chooses among units of its texts is scored by itself.

        Raises:
            Exception: What scoring a request raises, unless all is kept then.
        """
        found: dict[int, PruneResult] = {}
        layouts: dict[int, PromptLayout] = {}
        for place, request in enumerate(requests):
            try:
                layouts[place] = self._scorer.lay_out(*request.pair, request.watch)
            except Exception as error:
                found[place] = self._after_failure(request, error)
        whole = {place: own for place, own in layouts.items() if not requests[place].by_unit}
        for group in self._scorer.groups(whole):
            found |= self._scored_together({place: requests[place] for place in group}, whole)
        for place in layouts.keys() - whole.keys():
            found[place] = self._scored_by_unit(requests[place], layouts[place])
        return [found[place] for place in range(len(requests))]

    def _scored_together(
        self, requests: Mapping[int, PruneRequest], layouts: Mapping[int, PromptLayout]
    ) -> dict[int, PruneResult]:
        """Score the requests of a group in the same passes; one by one where that fails."""
        watch = Stopwatch()
        try:
            at_hand = [self._at_hand(own, layouts[place]) for place, own in requests.items()]
            with self._scorer.turn(watch):
                states = self._states_for(at_hand)
                scores = self._scorer.read(
                    [layouts[place] for place in requests],
                    watch,
                    priors=[own.prior for own in requests.values()],
                    states=states,
                )
                scores = [
                    self._scorer.multi_hop(*own.pair, found, watch, states=states)
                    if own.asks_again(found, at_hand=kept)
                    else found
                    for own, found, kept in zip(requests.values(), scores, at_hand, strict=True)
                ]
        except Exception as error:
            if len(requests) == 1:
                return {
                    place: self._after_failure(own, error, watch) for place, own in requests.items()
                }
            logger.warning(
                "%d requests failed together, each is tried alone", len(requests), exc_info=error
            )
            return {
                place: result
                for place, own in requests.items()
                for result in self._scored_together({place: own}, layouts).values()
            }
        shared = watch.part(len(requests))
        return {
            place: own.with_scores(found, shared=shared)
            for (place, own), found in zip(requests.items(), scores, strict=True)
        }

    def _scored_by_unit(self, request: PruneRequest, layout: PromptLayout) -> PruneResult:
        watch = Stopwatch()
        try:
            kept = self._at_hand(request, layout)
            with self._scorer.turn(watch):
                states = self._states_for([kept])
                first, own = self._scorer.read_units(
                    layout, request.views, request.places, watch, prior=request.prior, states=states
                )
                scores = first
                if request.asks_again(first, at_hand=kept):
                    scores = self._scorer.multi_hop(*request.pair, first, watch, states=states)
            units = self._scorer.judge_units(first, scores, own, request.places)
        except Exception as error:
            return self._after_failure(request, error, watch)
        return request.with_unit_scores(scores, units, shared=watch.part(1))

    def _at_hand(self, request: PruneRequest, layout: PromptLayout) -> bool:
        """Tell whether a request's states are there, or kept, for a question asked again."""
        if request.multi_hop is not None or self._scorer.states is not None:
            return request.multi_hop is not False
        return sum(map(len, set(layout.source_ids))) <= MOST_KEPT

    def _states_for(self, at_hand: Iterable[bool]) -> ChunkStateStore | None:
        """Return where states are kept meanwhile; None for the scorer's own store, or nowhere."""
        return {} if any(at_hand) and self._scorer.states is None else None

    def _after_failure(
        self, request: PruneRequest, error: Exception, watch: Stopwatch | None = None
    ) -> PruneResult:
        """Return the result of a request that can't be scored.

        Raises:
            Exception: The error, unless all is kept then.
        """
        if not self._keep_all:
            raise error
        logger.error("scoring failed, all %d chunks are kept", len(request.views), exc_info=error)
        return request.after_failure(error, shared={} if watch is None else watch.part(1))
