"""Drive a ranking server from a process of its own.

``python -m hemix.lab.benchmarks.drive`` reads a plan from stdin and prints what it measured.

Open loop: every request has its moment, whether earlier ones were answered or not, and its latency
counts from that moment to the last byte of the answer. Knows the API's shapes, and no model.
"""

from __future__ import annotations

import http.client
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
from typing import Any

__all__ = ["Plan", "Stream", "drive"]

_CALLERS = 24
_TIMEOUT_S = 30.0
_BEFORE_S = 0.05
"""The event of a fresh ranking is due so long before it"""


@dataclass(frozen=True, kw_only=True)
class Stream:
    """One kind of request at a fixed rate."""

    kind: str
    """rank or events"""
    per_second: float
    size: int
    """Candidates of a ranking, or events of a body"""
    users: tuple[str, ...]
    fresh: bool = False
    """A ranking whose user has an event 50 ms before, so that nothing of the user is cached"""

    @property
    def name(self) -> str:
        """``rank 500`` or ``events 50``."""
        return f"{self.kind} {self.size}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do to which server."""

    port: int
    seconds: float
    warm_up_seconds: float
    streams: tuple[Stream, ...]
    items: tuple[str, ...]
    actions: tuple[str, ...]
    context: dict[str, Any]
    seed: int = 0


@dataclass(frozen=True)
class _Job:
    """A request with its moment."""

    due: float
    """On the clock of perf_counter"""
    stream: int
    seed: int
    counted: bool
    event_only: bool
    """The event before a fresh ranking: a request of its own, with a moment of its own"""


@dataclass(frozen=True)
class _Answer:
    """What a request came to."""

    status: str
    """Of HTTP, or the name of the error that kept it from coming"""
    at: float
    """When its last byte was there, on the clock of perf_counter"""
    stages_ms: dict[str, float] = field(default_factory=dict)
    content: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Seen:
    """The answers to one stream after the warm-up."""

    late_ms: list[float] = field(default_factory=list)
    """From the moment planned"""
    stages_ms: dict[str, list[float]] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)
    degraded: int = 0
    accepted: int = 0


class _Driver:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.seen = [_Seen() for _ in plan.streams]
        self.jobs: queue.Queue[_Job | None] = queue.Queue()
        self.lock = threading.Lock()

    def caller(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.plan.port, timeout=_TIMEOUT_S)
        while (job := self.jobs.get()) is not None:
            stream, seen, rng = (
                self.plan.streams[job.stream],
                self.seen[job.stream],
                random.Random(job.seed),
            )
            user = rng.choice(stream.users)
            if job.event_only:
                answer = self.ask(connection, "/v1/events", self.events(rng, user, 1))
                if job.counted and answer.status != "200":
                    with self.lock:
                        seen.answers[f"event {answer.status}"] += 1
                continue
            if stream.kind == "rank":
                items = [{"id": item} for item in rng.choices(self.plan.items, k=stream.size)]
                body: Any = {"user": user, "items": items, "context": self.plan.context}
                answer = self.ask(connection, "/v1/rank", body)
            else:
                body = [
                    event
                    for _ in range(stream.size)
                    for event in self.events(rng, rng.choice(stream.users), 1)
                ]
                answer = self.ask(connection, "/v1/events", body)
            if job.counted:
                self.count(seen, answer, (answer.at - job.due) * 1000)

    def count(self, seen: _Seen, answer: _Answer, late_ms: float) -> None:
        with self.lock:
            seen.answers[answer.status] += 1
            seen.late_ms.append(late_ms)
            seen.degraded += bool(answer.content.get("degraded"))
            seen.accepted += answer.content.get("accepted", 0)
            for stage, took_ms in answer.stages_ms.items():
                seen.stages_ms.setdefault(stage, []).append(took_ms)

    def events(self, rng: random.Random, user: str, count: int) -> list[dict[str, Any]]:
        return [
            {
                "event": "interaction",
                "id": uuid.UUID(int=rng.getrandbits(128)).hex,
                "user": user,
                "item": rng.choice(self.plan.items),
                "type": rng.choice(self.plan.actions),
            }
            for _ in range(count)
        ]

    def ask(self, connection: http.client.HTTPConnection, path: str, body: Any) -> _Answer:
        try:
            connection.request(
                "POST", path, json.dumps(body).encode(), {"content-type": "application/json"}
            )
            answer = connection.getresponse()
            read = answer.read()
            at = time.perf_counter()
            content = json.loads(read)
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            return _Answer(type(error).__name__, time.perf_counter())
        stages = {}
        for part in (answer.headers.get("server-timing") or "").split(", "):
            stage, separator, took = part.partition(";dur=")
            if separator:
                stages[stage] = float(took)
        return _Answer(str(answer.status), at, stages, content)

    def planned(self, began: float) -> list[_Job]:
        """Every request of the plan, by its moment."""
        plan, jobs = self.plan, []
        for index, stream in enumerate(plan.streams):
            for n in range(int((plan.warm_up_seconds + plan.seconds) * stream.per_second)):
                moment = n / stream.per_second + index * 0.003
                counted, seed = (
                    moment >= plan.warm_up_seconds,
                    (plan.seed * 1_000 + index) * 1_000_003 + n,
                )
                jobs.append(_Job(began + moment, index, seed, counted, event_only=False))
                if stream.fresh:
                    jobs.append(
                        _Job(began + moment - _BEFORE_S, index, seed, counted, event_only=True)
                    )
        return sorted(jobs, key=lambda job: job.due)

    def run(self) -> None:
        callers = [threading.Thread(target=self.caller, daemon=True) for _ in range(_CALLERS)]
        for caller in callers:
            caller.start()
        for job in self.planned(time.perf_counter() + _BEFORE_S):
            time.sleep(max(job.due - time.perf_counter(), 0))
            self.jobs.put(job)
        for _ in callers:
            self.jobs.put(None)
        for caller in callers:
            caller.join(_TIMEOUT_S)


def _quantiles(values: Sequence[float]) -> list[float]:
    """p50, p95, p99"""
    ordered = sorted(values)
    return [round(ordered[min(len(ordered) * q // 100, len(ordered) - 1)], 3) for q in (50, 95, 99)]


def drive(plan: Plan) -> list[dict[str, Any]]:
    """What every stream saw after the warm-up: answers by status; p50, p95, p99 of the latency,
    from the moment that a request was due, and of the server's stages, in ms. Under errors, ``event
    STATUS`` counts events before fresh rankings that were not taken.
    """
    driver = _Driver(plan)
    driver.run()
    return [
        {
            "stream": stream.name,
            "asked_per_second": stream.per_second,
            "answered_per_second": round(seen.answers["200"] / plan.seconds, 2),
            "requests": len(seen.late_ms),
            "errors": {
                status: count for status, count in sorted(seen.answers.items()) if status != "200"
            },
            "degraded": seen.degraded,
            "accepted_events": seen.accepted,
            "quantiles": [50, 95, 99],
            "latency_ms": _quantiles(seen.late_ms) if seen.late_ms else None,
            **{f"{stage}_ms": _quantiles(took) for stage, took in seen.stages_ms.items()},
        }
        for stream, seen in zip(plan.streams, driver.seen, strict=True)
    ]


if __name__ == "__main__":
    content = json.load(sys.stdin)
    streams = tuple(
        Stream(**{**stream, "users": tuple(stream["users"])}) for stream in content.pop("streams")
    )
    content |= {key: tuple(content[key]) for key in ("items", "actions")}
    json.dump(drive(Plan(streams=streams, **content)), sys.stdout)
