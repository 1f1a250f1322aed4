"""What the server tells Prometheus. One registry a server, so that two in a process do not mix."""

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

disable_created_metrics()  # type: ignore[no-untyped-call]  # twice the series for nothing that is read

_SECONDS = (
    0.001,
    0.002,
    0.005,
    0.01,
    0.02,
    0.03,
    0.05,
    0.075,
    0.1,
    0.15,
    0.2,
    0.3,
    0.5,
    1.0,
    2.0,
    5.0,
)


class Metrics:
    """Counters, histograms and gauges of one server.

    Every method is cheap and safe from any thread.
    """

    def __init__(self) -> None:
        own = self.registry = CollectorRegistry()
        self.requests = Counter(
            "hemix_requests", "Answers by route and status", ["route", "status"], registry=own
        )
        self.seconds = Histogram(
            "hemix_request_seconds", "Time to answer", ["route"], buckets=_SECONDS, registry=own
        )
        self.stages = Histogram(
            "hemix_stage_seconds",
            "Time of a stage of a ranking",
            ["stage"],
            buckets=_SECONDS,
            registry=own,
        )
        self.refused = Counter(
            "hemix_refused", "Answers that are errors, by code", ["code"], registry=own
        )
        self.events = Counter(
            "hemix_events", "Events by what became of them", ["outcome"], registry=own
        )
        self._unusable = Counter(
            "hemix_unusable_values",
            "Values of accepted events that a model cannot read and another one can",
            ["model"],
            registry=own,
        )
        self.store_errors = Counter(
            "hemix_store_errors", "Failures of the store", ["during"], registry=own
        )
        self.unknown = Counter(
            "hemix_unknown_ids",
            "Users and items of rank requests that the run does not know",
            ["kind"],
            registry=own,
        )
        self.degraded = Counter(
            "hemix_degraded_rankings", "Rankings without something", ["missing"], registry=own
        )
        self.rankings = Counter(
            "hemix_rankings", "Rankings by model and version", ["model", "version"], registry=own
        )
        self.candidates = Counter("hemix_ranked_candidates", "Candidates scored", registry=own)
        self.user_states = Counter(
            "hemix_user_states",
            "Rankings by whether the user's state was cached, but for new events, or made",
            ["cache"],
            registry=own,
        )
        self._waiting = Gauge("hemix_queue", "Requests in work and waiting", ["gate"], registry=own)
        age = Gauge(
            "hemix_newest_event_age_seconds",
            "Age of the newest accepted event; NaN before the first",
            registry=own,
        )
        age.set_function(
            lambda: time.time() - self._newest_ms / 1000 if self._newest_ms else float("nan")
        )
        self._newest_ms = 0
        ProcessCollector(registry=own)

    def watch(self, gate: str, taken: Callable[[], int]) -> None:
        """Show how full a gate is."""
        self._waiting.labels(gate).set_function(taken)

    def watch_log(self, left_out: Callable[[], int]) -> None:
        """Show how much of what was served no file holds."""
        gauge = Gauge(
            "hemix_log_left_out",
            "Rankings and bodies of events that the log left out",
            registry=self.registry,
        )
        gauge.set_function(left_out)

    def accepted(self, newest_ms: int, accepted: int, duplicate: int, rejected: int) -> None:
        """A body of events was taken."""
        self._newest_ms = max(self._newest_ms, newest_ms)
        for outcome, count in (
            ("accepted", accepted),
            ("duplicate", duplicate),
            ("rejected", rejected),
        ):
            self.events.labels(outcome).inc(count)

    def unusable(self, counts: Mapping[str, int]) -> None:
        """By model: values of accepted events that it cannot read."""
        for model, count in counts.items():
            self._unusable.labels(model).inc(count)

    def ranked(self, ranking: Ranking, waited_ms: float) -> None:
        """A ranking was made."""
        self.rankings.labels(ranking.model, ranking.version).inc()
        self.candidates.inc(len(ranking.items))
        self.user_states.labels(ranking.cache).inc()
        self.stages.labels("queue").observe(waited_ms / 1000)
        for stage, took_ms in ranking.stages_ms.items():
            self.stages.labels(stage).observe(took_ms / 1000)
        if not ranking.user_known:
            self.unknown.labels("user").inc()
        strangers = sum(item.status == "UNKNOWN_ITEM" for item in ranking.items)
        if strangers:
            self.unknown.labels("item").inc(strangers)
        for missing in ranking.degraded:
            self.degraded.labels(missing).inc()
        if {"history", "features"} & set(ranking.degraded):
            self.store_errors.labels("rank").inc()

    def page(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)
