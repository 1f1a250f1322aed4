"""An arm of an experiment that ranks by a server over HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numpy as np

from hemix.client import Client
from hemix.errors import ServerError
from hemix.lab.abtest.events import Event, item_id, ranking_id, user_id
from hemix.lab.simulator.arrays import Float64Array, Int32Array
from hemix.lab.simulator.simulation import UserSimulation
from hemix.lab.simulator.spatial_index import NO_VENUE
from hemix.lab.simulator.state import Requests
from hemix.lab.simulator.venues import to_degrees

__all__ = ["ArmUnavailable", "ServerArm"]

Answer = TypeVar("Answer")

_PARALLEL_REQUESTS = 4
_EVENTS_PER_CALL = 500
_RETRY_SECONDS = 0.2
_LOWEST_SCORE = float(np.finfo(np.float64).min)
"""Ranks candidates last to which the server gives no score."""


class ArmUnavailable(Exception):
    """The arm does not answer, or refuses what it is sent; a later call continues with it."""


class ServerArm:
    """Rank by a server. Calls are retried until the timeout; then the arm is unavailable."""

    def __init__(
        self, url: str, *, token: str | None = None, timeout_seconds: float = 30.0
    ) -> None:
        """Make an arm.

        Args:
            url: URL of the server.
            token: Token of the server.
            timeout_seconds: Time after which a server without an answer is unavailable.
        """
        self.client = Client(url, token=token)
        self._timeout_seconds = timeout_seconds
        self._pool = ThreadPoolExecutor(_PARALLEL_REQUESTS, thread_name_prefix="hemix-arm")
        self._unavailable: str | None = None
        """Why all further calls fail."""
        self._cause: ServerError | None = None

    def model(self) -> dict[str, Any]:
        """Return name, version, schema fingerprint and hash of the served model.

        Raises ArmUnavailable.
        """
        self._unavailable = None
        model = self._retry(self.client.models)[0]
        return {key: model[key] for key in ("name", "version", "schema", "sha256")}

    def score(
        self, simulation: UserSimulation, requests: Requests, candidates: Int32Array
    ) -> Float64Array:
        """Score by one POST /v1/rank per request, a few in parallel.

        Args:
            simulation: State of the users.
            requests: n requests.
            candidates: Venues [n, k], with gaps of NO_VENUE.

        Returns:
            Scores [n, k]; -inf for gaps.

        Raises:
            ArmUnavailable: If one request fails; those that have not begun are cancelled.
        """
        contexts = _contexts(simulation, requests)
        scores = np.full(candidates.shape, -np.inf)

        def score_row(row: int) -> None:
            columns = np.flatnonzero(candidates[row] != NO_VENUE)
            if len(columns):
                items = [item_id(venue) for venue in candidates[row, columns].tolist()]
                scores[row, columns] = self._rank(requests, row, items, contexts[row])

        futures = [self._pool.submit(score_row, row) for row in range(len(requests))]
        try:
            for future in futures:
                future.result()
        finally:
            for future in futures:
                future.cancel()
        return scores

    def _rank(
        self, requests: Requests, row: int, items: list[str], context: dict[str, Any]
    ) -> list[float]:
        user_index = int(requests.user_index[row])
        answer = self._retry(
            lambda: self.client.rank(
                user_id(user_index),
                items,
                id=ranking_id(user_index, int(requests.number[row])),
                timestamp=int(requests.time_ms[row]),
                context=context,
            )
        )
        score = {item["id"]: item["score"] for item in answer["items"]}
        return [_LOWEST_SCORE if score[item] is None else score[item] for item in items]

    def record_events(self, events: Sequence[Event]) -> None:
        """Send events by POST /v1/events; the server ignores those that it already has.

        Raises ArmUnavailable.
        """
        for first in range(0, len(events), _EVENTS_PER_CALL):
            chunk = list(events[first : first + _EVENTS_PER_CALL])
            answer = self._retry(partial(self.client.events, chunk))
            if answer["rejected"]:
                raise ArmUnavailable(f"{self.client.url}: rejected events: {answer['rejected'][0]}")

    def cancel(self) -> None:
        """Let this and all later calls fail with ArmUnavailable."""
        self._unavailable = f"{self.client.url}: cancelled"

    def _retry(self, call: Callable[[], Answer]) -> Answer:
        deadline = time.monotonic() + self._timeout_seconds
        while True:
            if self._unavailable is not None:
                raise ArmUnavailable(self._unavailable) from self._cause
            try:
                return call()
            except ServerError as error:
                if not error.is_retryable or time.monotonic() > deadline:
                    prefix = "" if error.is_retryable else f"{self.client.url}: "
                    self._cause, self._unavailable = error, f"{prefix}{error}"
                    raise ArmUnavailable(self._unavailable) from error
                time.sleep(_RETRY_SECONDS)


def _contexts(simulation: UserSimulation, requests: Requests) -> list[dict[str, Any]]:
    """The context columns of every request."""
    parameters = simulation.city.parameters
    weather, _ = parameters.sessions.weather[simulation.city.weather(requests.day)]
    latitude, longitude = to_degrees(parameters, requests.x_km, requests.y_km)
    return [
        {"latitude": lat, "longitude": lon, "weather": weather}
        for lat, lon in zip(latitude.tolist(), longitude.tolist(), strict=True)
    ]
