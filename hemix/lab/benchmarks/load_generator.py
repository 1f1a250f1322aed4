"""Load generator for a ranking server: an open loop with fixed rates.

Every request has a due time, whether earlier ones were answered or not, and latency counts from it.
``python -m hemix.lab.benchmarks.load_generator`` reads a plan from stdin and prints the results.
"""

from __future__ import annotations

import json
import queue
import random
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any, Literal

from hemix.connections import Connections

__all__ = ["LoadPlan", "RequestStream", "generate_load"]

_WORKERS = 24
_TIMEOUT_SECONDS = 30.0
_EVENT_LEAD_SECONDS = 0.05
_STREAM_OFFSET_SECONDS = 0.003
_QUANTILES = (50, 95, 99)


@dataclass(frozen=True, kw_only=True)
class RequestStream:
    """Requests of one kind at a fixed rate."""

    kind: Literal["rank", "events"]
    per_second: float
    size: int
    """Candidates of a ranking, or events of a body"""
    users: tuple[str, ...]
    fresh: bool = False
    """Send an event of the user 50 ms before a ranking, which outdates the user's cached state"""

    @property
    def name(self) -> str:
        """Kind and size, such as ``rank 500``."""
        return f"{self.kind} {self.size}"


@dataclass(frozen=True, kw_only=True)
class LoadPlan:
    """The requests to send to a server."""

    port: int
    seconds: float
    warm_up_seconds: float
    streams: tuple[RequestStream, ...]
    items: tuple[str, ...]
    actions: tuple[str, ...]
    context: dict[str, Any]
    seed: int = 0


@dataclass(frozen=True)
class _ScheduledRequest:
    due: float
    """In seconds of perf_counter"""
    stream: int
    seed: int
    counted: bool
    """Whether it is due after the warm-up"""
    event_only: bool
    """Whether it is the event before a fresh ranking"""


@dataclass(frozen=True)
class _Response:
    status: str
    """HTTP status, or the name of the error"""
    time: float
    """When the last byte arrived, in seconds of perf_counter"""
    stages_ms: dict[str, float] = field(default_factory=dict)
    content: dict[str, Any] = field(default_factory=dict)


@dataclass
class _StreamResults:
    """The responses of a stream after the warm-up."""

    latencies_ms: list[float] = field(default_factory=list)
    """Since the due time"""
    stages_ms: dict[str, list[float]] = field(default_factory=dict)
    statuses: Counter[str] = field(default_factory=Counter)
    degraded: int = 0
    accepted: int = 0

    def add(self, response: _Response, latency_ms: float) -> None:
        """Count a response.

        Args:
            response: The response.
            latency_ms: Milliseconds since the request was due.
        """
        self.statuses[response.status] += 1
        self.latencies_ms.append(latency_ms)
        self.degraded += bool(response.content.get("degraded"))
        self.accepted += response.content.get("accepted", 0)
        for stage, duration_ms in response.stages_ms.items():
            self.stages_ms.setdefault(stage, []).append(duration_ms)


class _LoadGenerator:
    def __init__(self, plan: LoadPlan) -> None:
        self.results = [_StreamResults() for _ in plan.streams]
        self._plan = plan
        self._queue: queue.Queue[_ScheduledRequest | None] = queue.Queue()
        self._connections = Connections(f"http://127.0.0.1:{plan.port}")
        self._lock = threading.Lock()

    def run(self) -> None:
        """Send all requests at their due times and wait for the responses."""
        workers = [threading.Thread(target=self._work, daemon=True) for _ in range(_WORKERS)]
        for worker in workers:
            worker.start()
        for request in self._schedule(time.perf_counter() + _EVENT_LEAD_SECONDS):
            time.sleep(max(request.due - time.perf_counter(), 0))
            self._queue.put(request)
        for _ in workers:
            self._queue.put(None)
        for worker in workers:
            worker.join(_TIMEOUT_SECONDS)

    def _schedule(self, start: float) -> list[_ScheduledRequest]:
        """List every request by its due time; ``start`` in seconds of perf_counter."""
        plan, requests = self._plan, []
        for index, stream in enumerate(plan.streams):
            for n in range(int((plan.warm_up_seconds + plan.seconds) * stream.per_second)):
                offset = n / stream.per_second + index * _STREAM_OFFSET_SECONDS
                counted = offset >= plan.warm_up_seconds
                seed = (plan.seed * 1_000 + index) * 1_000_003 + n
                due = start + offset
                requests.append(_ScheduledRequest(due, index, seed, counted, event_only=False))
                if stream.fresh:
                    due -= _EVENT_LEAD_SECONDS
                    requests.append(_ScheduledRequest(due, index, seed, counted, event_only=True))
        return sorted(requests, key=lambda request: request.due)

    def _work(self) -> None:
        """Send requests of the queue."""
        while (request := self._queue.get()) is not None:
            path, body = self._make_request(request)
            response = _send(self._connections, path, body)
            if not request.counted:
                continue
            results = self.results[request.stream]
            with self._lock:
                if not request.event_only:
                    results.add(response, (response.time - request.due) * 1000)
                elif response.status != "200":
                    results.statuses[f"event {response.status}"] += 1

    def _make_request(self, request: _ScheduledRequest) -> tuple[str, Any]:
        """Return path and body; the ranking and the event of one seed have the same user."""
        plan, stream = self._plan, self._plan.streams[request.stream]
        rng = random.Random(request.seed)
        user = rng.choice(stream.users)
        if request.event_only:
            return "/v1/events", [self._event(rng, user)]
        if stream.kind == "rank":
            items = [{"id": item} for item in rng.choices(plan.items, k=stream.size)]
            return "/v1/rank", {"user": user, "items": items, "context": plan.context}
        events = [self._event(rng, rng.choice(stream.users)) for _ in range(stream.size)]
        return "/v1/events", events

    def _event(self, rng: random.Random, user: str) -> dict[str, Any]:
        return {
            "event": "interaction",
            "id": uuid.UUID(int=rng.getrandbits(128)).hex,
            "user": user,
            "item": rng.choice(self._plan.items),
            "type": rng.choice(self._plan.actions),
        }


def _send(connections: Connections, path: str, body: Any) -> _Response:
    headers = {"content-type": "application/json"}
    try:
        response = connections.send(
            "POST", path, json.dumps(body).encode(), headers, timeout_seconds=_TIMEOUT_SECONDS
        )
        arrival = time.perf_counter()
        content = json.loads(response.content)
    except (OSError, HTTPException, ValueError) as error:
        return _Response(type(error).__name__, time.perf_counter())
    stages = {}
    for entry in (response.headers.get("server-timing") or "").split(", "):
        stage, separator, duration = entry.partition(";dur=")
        if separator:
            stages[stage] = float(duration)
    return _Response(str(response.status), arrival, stages, content)


def _quantiles(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    last = len(ordered) - 1
    return [round(ordered[min(len(ordered) * q // 100, last)], 3) for q in _QUANTILES]


def generate_load(plan: LoadPlan) -> list[dict[str, Any]]:
    """Send the requests of a plan.

    Returns a dict per stream: responses by status, and quantiles in ms of the latency since the due
    time and of the server's stages. Errors count failed events before fresh rankings as
    ``event STATUS``.
    """
    generator = _LoadGenerator(plan)
    generator.run()
    return [
        {
            "stream": stream.name,
            "asked_per_second": stream.per_second,
            "answered_per_second": round(results.statuses["200"] / plan.seconds, 2),
            "requests": len(results.latencies_ms),
            "errors": {
                status: count
                for status, count in sorted(results.statuses.items())
                if status != "200"
            },
            "degraded": results.degraded,
            "accepted_events": results.accepted,
            "quantiles": list(_QUANTILES),
            "latency_ms": _quantiles(results.latencies_ms) if results.latencies_ms else None,
            **{f"{stage}_ms": _quantiles(values) for stage, values in results.stages_ms.items()},
        }
        for stream, results in zip(plan.streams, generator.results, strict=True)
    ]


def _main() -> None:
    content = json.load(sys.stdin)
    streams = tuple(
        RequestStream(**{**stream, "users": tuple(stream["users"])})
        for stream in content.pop("streams")
    )
    content |= {key: tuple(content[key]) for key in ("items", "actions")}
    json.dump(generate_load(LoadPlan(streams=streams, **content)), sys.stdout)


if __name__ == "__main__":
    _main()
