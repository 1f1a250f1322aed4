"""Simulate users of the city for some days with an arm.

Draws are keyed by seed, user, request and venue, so users have the same days in every arm until a
ranking makes a difference.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np

from hemix.lab.abtest.arms import Arm, CandidateScorer
from hemix.lab.abtest.events import Event, reaction_events, view_events
from hemix.lab.abtest.measures import MEASURES
from hemix.lab.simulator.arrays import Float64Array, Int32Array, Int64Array
from hemix.lab.simulator.city import City
from hemix.lab.simulator.ranking import logging_policy_scores, top_page
from hemix.lab.simulator.simulation import ShownPages, UserSimulation
from hemix.lab.simulator.spatial_index import NO_VENUE
from hemix.lab.simulator.state import Requests

__all__ = ["simulate_arm", "simulate_past"]

Sums = dict[str, Float64Array]
"""Sums by name of MEASURES"""


def simulate_past(city: City, users: Int64Array, measured_days: int) -> tuple[UserSimulation, Sums]:
    """Simulate users up to the end of the logged days, under the policy behind the logs.

    Args:
        city: City of the users.
        users: Indices [U] of the users.
        measured_days: Number of last logged days to measure.

    Returns:
        The users' state after the logs, and their measures [U, measured_days].
    """
    simulation = UserSimulation(city, city.users(users))
    scorer = _LoggingPolicy()
    days = [
        _simulate_day(simulation, scorer, day)
        for day in range(-city.parameters.sessions.past_days, city.days)
    ]
    return simulation, _stack_days(days[len(days) - measured_days :])


def simulate_arm(
    past: UserSimulation,
    arm: Arm,
    days: int,
    *,
    draw_count: int | None = None,
    on_day: Callable[[int], None] = lambda _day: None,
) -> Sums:
    """Simulate the days after the logs with an arm.

    Args:
        past: State of U users after the logs; it stays unchanged.
        arm: What ranks, and receives the users' events.
        days: Number of days.
        draw_count: Recall draws per request, by default the city's.
        on_day: Called with every finished day.

    Returns:
        Measures [U, days].

    Raises:
        ArmUnavailable: If the arm does not answer.
    """
    # a city never changes, so that arms share it
    simulation = copy.deepcopy(past, {id(past.city): past.city})
    sums = []
    for day in range(simulation.city.days, simulation.city.days + days):
        sums.append(
            _simulate_day(simulation, arm, day, on_events=arm.record_events, draw_count=draw_count)
        )
        on_day(day)
    return _stack_days(sums)


class _LoggingPolicy:
    def score(
        self, simulation: UserSimulation, requests: Requests, candidates: Int32Array
    ) -> Float64Array:
        return logging_policy_scores(simulation.city, requests, candidates)


def _simulate_day(
    simulation: UserSimulation,
    scorer: CandidateScorer,
    day: int,
    *,
    on_events: Callable[[Sequence[Event]], None] | None = None,
    draw_count: int | None = None,
) -> Sums:
    parameters = simulation.city.parameters
    sums = {name: np.zeros(len(simulation.users)) for name in MEASURES}
    for session in range(simulation.begin_day(day)):
        requests, views = simulation.begin_session(session)
        np.add.at(sums["sessions"], requests.user_row, 1)
        if on_events is not None:
            on_events(list(view_events(requests, views)))
        for _ in range(parameters.sessions.requests_maximum):
            candidates = simulation.candidates(requests, draw_count)
            scores = scorer.score(simulation, requests, candidates)
            scores = np.where(candidates == NO_VENUE, -np.inf, scores)
            pages = simulation.show(requests, top_page(candidates, scores, parameters.recall.page))
            np.add.at(sums["requests"], requests.user_row, 1)
            _add_pages(sums, pages)
            if on_events is not None:
                on_events(list(reaction_events(pages)))
            requests = simulation.next_requests(requests, pages)
            if not len(requests):
                break
    simulation.end_day()
    return sums


def _add_pages(sums: Sums, pages: ShownPages) -> None:
    user_row, reactions = pages.requests.user_row, pages.reactions
    ordered = reactions.order
    for name, rows, value in (
        ("shown", slice(None), 1.0),
        ("clicks", reactions.click, 1.0),
        ("orders", ordered, 1.0),
        ("gmv", ordered, reactions.amount_yuan[ordered]),
        ("km", ordered, pages.factors.distance_km[ordered, 0]),
        ("new_places", ordered, pages.factors.visits[ordered, 0] == 0),
    ):
        np.add.at(sums[name], user_row[rows], value)


def _stack_days(days: Sequence[Sums]) -> Sums:
    return {
        name: np.stack([day[name] for day in days], axis=1) if days else np.zeros((0, 0))
        for name in MEASURES
    }
