"""Who ranks: a server of ours over HTTP, the oracle, or popularity.

An arm scores the candidates of requests and hears what users did.

Knows the city's words for places and users, and no model.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hemix.errors import ServerError, UsageError
from hemix.lab.abtest.connection import SteadyClient
from hemix.lab.simulator.choice_model import choice_probabilities, compute_factors
from hemix.lab.simulator.simulation import UserSimulation
from hemix.lab.simulator.spatial_index import NO_VENUE
from hemix.lab.simulator.state import Requests
from hemix.lab.simulator.venues import to_degrees

__all__ = ["BUILT_IN", "Arm", "ArmDown", "Event", "Oracle", "Popularity", "Server", "make_arm"]

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int32]
Event = Mapping[str, Any]
"""As POST /v1/events takes it"""

_AT_ONCE = 4
_EVENTS_AT_ONCE = 500
_LEAST = float(np.finfo(np.float64).min)
"""Of a candidate without a score, which stands last"""


class ArmDown(Exception):
    """An arm does not answer any more, or refuses what it is sent; its users wait."""


class Arm(Protocol):
    """One arm."""

    def model(self) -> dict[str, Any]:
        """Who ranks: its name, and of a server version, schema and hash. Raises ArmDown."""

    def scores(self, lives: UserSimulation, requests: Requests, candidates: Places) -> Floats:
        """[n, k] for candidates [n, k] with gaps of -1, whose scores do not matter.

        Raises ArmDown.
        """

    def hear(self, events: Sequence[Event]) -> None:
        """What users did. Raises ArmDown."""

    def stop(self) -> None:
        """From now on it is down, for those who live with it in other threads."""


class Oracle:
    """The schema's score with the true probabilities of the first position: the ceiling."""

    def model(self) -> dict[str, Any]:
        """Its name alone."""
        return {"name": "oracle"}

    def scores(self, lives: UserSimulation, requests: Requests, candidates: Places) -> Floats:
        """click + order * price^.5"""
        factors = compute_factors(
            lives.city, lives.users, lives.taste, lives.visits, requests, candidates
        )
        click, order_given_click = choice_probabilities(
            factors, np.zeros(candidates.shape), lives.city.parameters
        )
        found: Floats = click + click * order_given_click * np.sqrt(
            lives.city.venues.price_yuan[candidates]
        )
        return found

    def hear(self, events: Sequence[Event]) -> None:
        """It knows."""

    def stop(self) -> None:
        """It never waits."""


class Popularity:
    """The most reviewed first, for everybody alike: the floor."""

    def model(self) -> dict[str, Any]:
        """Its name alone."""
        return {"name": "popularity"}

    def scores(self, lives: UserSimulation, requests: Requests, candidates: Places) -> Floats:  # noqa: ARG002
        """The number of reviews."""
        found: Floats = lives.city.venues.reviews[candidates].astype(np.float64)
        return found

    def hear(self, events: Sequence[Event]) -> None:
        """It does not listen."""

    def stop(self) -> None:
        """It never waits."""


class Server:
    """A ranking server.

    ``patience_seconds``: how long it may be away before its users wait for another day.
    """

    def __init__(
        self, url: str, *, token: str | None = None, patience_seconds: float = 30.0
    ) -> None:
        self.client = SteadyClient(url, token=token)
        self._patience = patience_seconds
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="hemix-arm")
        self._down: str | None = None
        """Why nobody should wait for it any more"""

    def model(self) -> dict[str, Any]:
        """Name, version, schema's fingerprint and hash of the model that serves. Raises ArmDown."""
        self._down = None
        found = self._patiently(self.client.models)[0]
        return {key: found[key] for key in ("name", "version", "schema", "sha256")}

    def scores(self, lives: UserSimulation, requests: Requests, candidates: Places) -> Floats:
        """POST /v1/rank for every request, some at a time; when one waits in vain, none of the
        others begins to.
        """
        city = lives.city
        latitude, longitude = to_degrees(city.parameters, requests.x_km, requests.y_km)
        weather = city.parameters.sessions.weather[city.weather(requests.day)][0]
        found = np.full(candidates.shape, -np.inf)

        def ask(row: int) -> None:
            places = candidates[row]
            columns = np.flatnonzero(places != NO_VENUE)
            if not len(columns):
                return
            names = [f"p{place:05d}" for place in places[columns].tolist()]
            answer = self._patiently(
                lambda: self.client.rank(
                    f"u{requests.user_index[row]:06d}",
                    names,
                    id=ranking_id(int(requests.user_index[row]), int(requests.number[row])),
                    timestamp=int(requests.time_ms[row]),
                    context={
                        "latitude": float(latitude[row]),
                        "longitude": float(longitude[row]),
                        "weather": weather,
                    },
                )
            )
            score = {
                item["id"]: _LEAST if item["score"] is None else item["score"]
                for item in answer["items"]
            }
            found[row, columns] = [score[name] for name in names]

        asked = [self._pool.submit(ask, row) for row in range(len(requests))]
        try:
            for done in asked:
                done.result()
        finally:
            for done in asked:
                done.cancel()
        return found

    def hear(self, events: Sequence[Event]) -> None:
        """POST /v1/events. An event that was heard before is not counted again."""
        for first in range(0, len(events), _EVENTS_AT_ONCE):
            piece = list(events[first : first + _EVENTS_AT_ONCE])
            answer = self._patiently(lambda piece=piece: self.client.events(piece))
            if answer["rejected"]:
                raise ArmDown(
                    f"{self.client.url} refuses events of the city: {answer['rejected'][0]}"
                )

    def stop(self) -> None:
        """The next call raises ArmDown."""
        self._down = f"{self.client.url}: stopped"

    def _patiently(self, call: Any) -> Any:
        deadline = time.monotonic() + self._patience
        while True:
            if self._down is not None:
                raise ArmDown(self._down)
            try:
                return call()
            except ServerError as error:
                refused = (
                    error.status is not None and 400 <= error.status < 500 and error.status != 429
                )
                if refused or time.monotonic() > deadline:
                    self._down = f"{self.client.url}: {error}" if refused else str(error)
                    raise ArmDown(self._down) from error
                time.sleep(0.2)


BUILT_IN: dict[str, type[Oracle] | type[Popularity]] = {"oracle": Oracle, "popularity": Popularity}
"""Arms that need no server, by the name that stands in the place of a URL"""


def make_arm(url: str, *, token: str | None = None, patience_seconds: float = 30.0) -> Arm:
    """An arm by its URL, or by a name of BUILT_IN. Raises UsageError."""
    if url in BUILT_IN:
        return BUILT_IN[url]()
    if not url.startswith(("http://", "https://")):
        raise UsageError(
            f"--arm NAME={url}: expected http://HOST:PORT or one of {', '.join(BUILT_IN)}"
        )
    return Server(url, token=token, patience_seconds=patience_seconds)


def ranking_id(user: int, moment: int) -> str:
    """Of a request in a user's life."""
    return f"r{user}.{moment}"
