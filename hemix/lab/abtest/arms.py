"""The arms of an experiment: what ranks the candidates of simulated users."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from hemix.errors import UsageError
from hemix.lab.abtest.events import Event
from hemix.lab.abtest.server_arm import ArmUnavailable, ServerArm
from hemix.lab.simulator.arrays import Float64Array, Int32Array
from hemix.lab.simulator.choice_model import choice_probabilities, compute_factors
from hemix.lab.simulator.simulation import UserSimulation
from hemix.lab.simulator.state import Requests

__all__ = [
    "BUILT_IN",
    "Arm",
    "ArmUnavailable",
    "CandidateScorer",
    "Oracle",
    "Popularity",
    "make_arm",
]


class CandidateScorer(Protocol):
    """Score candidates."""

    def score(
        self, simulation: UserSimulation, requests: Requests, candidates: Int32Array
    ) -> Float64Array:
        """Score the candidates of requests.

        Args:
            simulation: State of the users.
            requests: n requests.
            candidates: Venues [n, k], with gaps of NO_VENUE.

        Returns:
            Scores [n, k]; those of gaps are ignored.

        Raises:
            ArmUnavailable: If the arm cannot score.
        """


class Arm(CandidateScorer, Protocol):
    """Rank the candidates of simulated users and receive their events."""

    def model(self) -> dict[str, Any]:
        """Return the model's name, and of a server its version, schema and hash.

        Raises ArmUnavailable.
        """

    def record_events(self, events: Sequence[Event]) -> None:
        """Receive what users did. Raises ArmUnavailable."""

    def cancel(self) -> None:
        """Let calls in all threads fail with ArmUnavailable."""


class _BuiltInArm:
    """An arm in this process, which needs no events."""

    name: str

    def model(self) -> dict[str, Any]:
        """Return the arm's name."""
        return {"name": self.name}

    def record_events(self, events: Sequence[Event]) -> None:
        """Ignore the events."""

    def cancel(self) -> None:
        """Do nothing: no call waits."""


class Oracle(_BuiltInArm):
    """Rank by the schema's score with the true probabilities: the upper bound."""

    name = "oracle"

    def score(
        self, simulation: UserSimulation, requests: Requests, candidates: Int32Array
    ) -> Float64Array:
        """Score by click + order * price^0.5, with probabilities at the first position.

        Args:
            simulation: State of the users.
            requests: n requests.
            candidates: Venues [n, k], with gaps of NO_VENUE.

        Returns:
            Scores [n, k].
        """
        city = simulation.city
        factors = compute_factors(
            city, simulation.users, simulation.taste, simulation.visits, requests, candidates
        )
        p_click, p_order_given_click = choice_probabilities(
            factors, np.zeros(candidates.shape), city.parameters
        )
        score: Float64Array = p_click + p_click * p_order_given_click * np.sqrt(
            city.venues.price_yuan[candidates]
        )
        return score


class Popularity(_BuiltInArm):
    """Rank by the number of reviews, the same for all users: the lower bound."""

    name = "popularity"

    def score(
        self,
        simulation: UserSimulation,
        requests: Requests,  # noqa: ARG002
        candidates: Int32Array,
    ) -> Float64Array:
        """Score by the number of reviews.

        Args:
            simulation: State of the users.
            requests: n requests.
            candidates: Venues [n, k], with gaps of NO_VENUE.

        Returns:
            Scores [n, k].
        """
        score: Float64Array = simulation.city.venues.reviews[candidates].astype(np.float64)
        return score


BUILT_IN: dict[str, type[Oracle] | type[Popularity]] = {"oracle": Oracle, "popularity": Popularity}
"""Arms without a server, by the name that replaces a URL."""


def make_arm(url: str, *, token: str | None = None, timeout_seconds: float = 30.0) -> Arm:
    """Make an arm.

    Args:
        url: URL of a server, or a name of BUILT_IN.
        token: Token of the server.
        timeout_seconds: Time after which a server without an answer is unavailable.

    Returns:
        The arm, not yet connected.

    Raises:
        UsageError: If ``url`` is neither.
    """
    if url in BUILT_IN:
        return BUILT_IN[url]()
    if not url.startswith(("http://", "https://")):
        raise UsageError(
            f"--arm NAME={url}: expected http://HOST:PORT or one of {', '.join(BUILT_IN)}",
            field="--arm",
        )
    return ServerArm(url, token=token, timeout_seconds=timeout_seconds)
