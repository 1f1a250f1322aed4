"""Prometheus metrics of a server, in a registry of its own: a process may run several servers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from hemix.serving.types import Ranking

__all__ = ["Metrics"]

disable_created_metrics()  # type: ignore[no-untyped-call]  # they double the series

_BUCKETS_MS = (1, 2, 5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 1000, 2000, 5000)
_BUCKETS_SECONDS = tuple(ms / 1000 for ms in _BUCKETS_MS)


class Metrics:
    """Counters, histograms and gauges of one server. Every method is cheap and thread-safe."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "Answers by route and status", "route", "status")
        self.seconds = self._histogram("request_seconds", "Time to answer", "route")
        self.stages = self._histogram("stage_seconds", "Time of a stage of a ranking", "stage")
        self.refused = self._counter("refused", "Answers that are errors, by code", "code")
        self.events = self._counter("events", "Events by outcome", "outcome")
        self._unusable = self._counter(
            "unusable_values",
            "Values of accepted events that a model cannot read and another one can",
            "model",
        )
        self.store_errors = self._counter("store_errors", "Failures of the store", "during")
        self.unknown = self._counter(
            "unknown_ids", "Users and items of rank requests that the run does not know", "kind"
        )
        self.degraded = self._counter(
            "degraded_rankings", "Rankings that lacked an input", "missing"
        )
        self.rankings = self._counter(
            "rankings", "Rankings by model and version", "model", "version"
        )
        self.candidates = self._counter("ranked_candidates", "Candidates scored")
        self.user_states = self._counter(
            "user_states", "Rankings by use of the cached user state: hit, extended, miss", "cache"
        )
        self._in_use = self._gauge("queue", "Requests in work and waiting", "gate")
        age = self._gauge(
            "newest_event_age_seconds", "Age of the newest accepted event; NaN before the first"
        )
        age.set_function(self._newest_event_age)
        self._newest_ms = 0
        ProcessCollector(registry=self.registry)

    def _counter(self, name: str, help: str, *labels: str) -> Counter:
        return Counter(f"hemix_{name}", help, labels, registry=self.registry)

    def _gauge(self, name: str, help: str, *labels: str) -> Gauge:
        return Gauge(f"hemix_{name}", help, labels, registry=self.registry)

    def _histogram(self, name: str, help: str, *labels: str) -> Histogram:
        return Histogram(
            f"hemix_{name}", help, labels, buckets=_BUCKETS_SECONDS, registry=self.registry
        )

    def _newest_event_age(self) -> float:
        return time.time() - self._newest_ms / 1000 if self._newest_ms else float("nan")

    def watch_queue(self, executor: str, in_use: Callable[[], int]) -> None:
        """Export the number of slots in use of an executor.

        Args:
            executor: Name of the executor.
            in_use: Returns the number.
        """
        self._in_use.labels(executor).set_function(in_use)

    def watch_log(self, dropped: Callable[[], int]) -> None:
        """Export the number of entries that the ranking log has dropped.

        Args:
            dropped: Returns the number.
        """
        gauge = self._gauge("log_left_out", "Rankings and bodies of events that the log dropped")
        gauge.set_function(dropped)

    def count_events(self, newest_ms: int, outcomes: Mapping[str, int]) -> None:
        """Count the events of a body.

        Args:
            newest_ms: Time of the newest accepted event, ms UTC; 0 for none.
            outcomes: Number of events by outcome: accepted, duplicate, rejected.
        """
        self._newest_ms = max(self._newest_ms, newest_ms)
        for outcome, count in outcomes.items():
            self.events.labels(outcome).inc(count)

    def count_unusable(self, counts: Mapping[str, int]) -> None:
        """Count, by model, values of accepted events that the model cannot read."""
        for model, count in counts.items():
            self._unusable.labels(model).inc(count)

    def count_ranking(self, ranking: Ranking, waited_ms: float) -> None:
        """Count a ranking.

        Args:
            ranking: The ranking.
            waited_ms: Time that its request waited for a thread.
        """
        self.rankings.labels(ranking.model, ranking.version).inc()
        self.candidates.inc(len(ranking.items))
        self.user_states.labels(ranking.cache).inc()
        self.stages.labels("queue").observe(waited_ms / 1000)
        for stage, took_ms in ranking.stages_ms.items():
            self.stages.labels(stage).observe(took_ms / 1000)
        if not ranking.user_known:
            self.unknown.labels("user").inc()
        unknown_items = sum(item.status == "UNKNOWN_ITEM" for item in ranking.items)
        if unknown_items:
            self.unknown.labels("item").inc(unknown_items)
        for missing in ranking.degraded:
            self.degraded.labels(missing).inc()
        if {"history", "features"} & set(ranking.degraded):
            self.store_errors.labels("rank").inc()

    def page(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)
