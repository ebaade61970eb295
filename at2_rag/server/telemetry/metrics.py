"""What /metrics shows, in a registry of the app's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from at2_rag.results import PruneResult
from at2_rag.states.files import StateCounts

_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS = tuple(4**power for power in range(2, 10))

_STAGES: Mapping[str, str] = {
    "count": "tokenisation",
    "layout": "tokenisation",
    "wait": "queue",
    "encode": "reading",
    "question": "reading",
    "joint": "reading",
    "select": "selection",
}
"""Stage of a result's timings -> the stage that /metrics shows it as."""


class Metrics:
    """Counters and histograms of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "at2_rag_requests",
            "Requests, by path and status.",
            ["path", "status"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "at2_rag_request_seconds",
            "Seconds from a request's headers to the end of its answer.",
            ["path"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._stage_seconds = Histogram(
            "at2_rag_stage_seconds",
            "Seconds of a question in each stage: queue, tokenisation, reading, selection.",
            ["stage"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batch_requests = Histogram(
            "at2_rag_batch_questions",
            "Questions that are read together.",
            buckets=_SIZES,
            registry=self.registry,
        )
        self.batch_tokens = Histogram(
            "at2_rag_batch_tokens",
            "Tokens that are read together.",
            buckets=_TOKENS,
            registry=self.registry,
        )
        self.documents = Counter(
            "at2_rag_documents", "Documents that were scored.", registry=self.registry
        )
        self._tokens_before = Counter(
            "at2_rag_prune_tokens_before", "Tokens that came to be pruned.", registry=self.registry
        )
        self._tokens_saved = Counter(
            "at2_rag_prune_tokens_saved", "Tokens that pruning took out.", registry=self.registry
        )

    def watch(
        self,
        *,
        in_flight: Callable[[], float],
        body_bytes: Callable[[], float],
        queued: Callable[[], float],
        queued_tokens: Callable[[], float],
        cache: Callable[[], StateCounts] | None,
    ) -> None:
        """Show numbers that are looked up whenever /metrics is read."""
        looked_up = {
            ("in_flight", "Requests in flight."): in_flight,
            ("body_bytes", "Bytes of the bodies of requests in flight."): body_bytes,
            ("queue_questions", "Questions that wait."): queued,
            ("queue_tokens", "Tokens that wait or are read."): queued_tokens,
        }
        for (name, help), number in looked_up.items():
            gauge = Gauge(f"at2_rag_{name}", help, registry=self.registry)
            gauge.set_function(number)
        if cache is not None:
            self.registry.register(_CacheCollector(cache))

    def observe_result(self, result: PruneResult, *, queue_seconds: float) -> None:
        """Count a question that was answered."""
        seconds = {"queue": queue_seconds}
        for name, took in result.timings.items():
            if stage := _STAGES.get(name):
                seconds[stage] = seconds.get(stage, 0.0) + took
        for stage, took in seconds.items():
            self._stage_seconds.labels(stage).observe(took)
        if result.scored:
            self.documents.inc(len(result.kept) + len(result.dropped))

    def observe_batch(self, tokens: Sequence[int]) -> None:
        """Count a batch by the tokens of its questions."""
        self.batch_requests.observe(len(tokens))
        self.batch_tokens.observe(sum(tokens))

    def observe_pruning(self, result: PruneResult) -> None:
        """Count what pruning saved."""
        self._tokens_before.inc(result.tokens_before)
        self._tokens_saved.inc(max(0, result.tokens_before - result.tokens_after))

    def page(self) -> bytes:
        """Return what /metrics answers."""
        return generate_latest(self.registry)


class _CacheCollector(Collector):
    """Shows what a chunk cache counts."""

    def __init__(self, counts: Callable[[], StateCounts]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        counts = self._counts()
        reads = CounterMetricFamily(
            "at2_rag_cache_reads", "Chunks looked up in the cache, by outcome.", labels=["outcome"]
        )
        reads.add_metric(["memory_hit"], counts.memory_hits)
        reads.add_metric(["disk_hit"], counts.disk_hits)
        reads.add_metric(["miss"], counts.misses)
        yield reads
