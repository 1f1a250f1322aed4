"""Users of the city who live some days with an arm: they open the app, browse, are shown what the
arm ranks first, react, and come back.

Every draw is keyed by seed, user, moment and place, so a user meets the same days in every arm
until what was shown makes a difference.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.lab.abtest.arms import Arm, Event, ranking_id
from hemix.lab.simulator.behaviour import Views
from hemix.lab.simulator.city import City
from hemix.lab.simulator.ranking import logging_policy_scores, top_page
from hemix.lab.simulator.simulation import ShownPages, UserSimulation
from hemix.lab.simulator.spatial_index import NO_VENUE
from hemix.lab.simulator.state import Requests

__all__ = ["MEASURES", "live", "past_lives"]

Sums = dict[str, npt.NDArray[np.float64]]

MEASURES = ("shown", "clicks", "orders", "gmv", "requests", "sessions", "km", "new_places")
"""What is added up by user and day"""


def past_lives(
    city: City, users: npt.NDArray[np.int64], before_days: int
) -> tuple[UserSimulation, Sums]:
    """(the users as the logs left them, what they did in the last ``before_days`` of these, [users,
    days] each): the logged days are lived again under the policy that wrote them.
    """
    lives = UserSimulation(city, city.users(users))
    logged = _LoggingPolicy()
    sums = [
        _day(lives, logged, day, _deaf)
        for day in range(-city.parameters.sessions.past_days, city.days)
    ]
    return lives, _by_day(sums[len(sums) - before_days :])


def live(
    past: UserSimulation,
    arm: Arm,
    days: int,
    *,
    draws: int | None = None,
    on_day: Callable[[int], None] = lambda _: None,
) -> Sums:
    """The next ``days`` of users whose past is ``past``, which stays as it is, with an arm: [users,
    days] by MEASURES. Raises ArmDown.
    """
    lives = copy.deepcopy(past)
    sums = []
    for day in range(lives.city.days, lives.city.days + days):
        sums.append(_day(lives, arm, day, arm.hear, draws))
        on_day(day)
    return _by_day(sums)


class _LoggingPolicy:
    def scores(
        self, lives: UserSimulation, requests: Requests, candidates: npt.NDArray[np.int32]
    ) -> npt.NDArray[np.float64]:
        return logging_policy_scores(lives.city, requests, candidates)


def _deaf(_events: list[Event]) -> None: ...


def _day(
    lives: UserSimulation,
    arm: Arm | _LoggingPolicy,
    day: int,
    hear: Callable[[list[Event]], None],
    draws: int | None = None,
) -> Sums:
    users, parameters = len(lives.users), lives.city.parameters
    sums = {name: np.zeros(users) for name in MEASURES}
    tell = hear is not _deaf
    for session in range(lives.begin_day(day)):
        requests, views = lives.begin_session(session)
        np.add.at(sums["sessions"], requests.user_row, 1)
        if tell:
            hear(list(_views(requests, views)))
        for _ in range(parameters.sessions.requests_maximum):
            candidates = lives.candidates(requests, draws)
            scores = np.where(
                candidates == NO_VENUE, -np.inf, arm.scores(lives, requests, candidates)
            )
            page = lives.show(requests, top_page(candidates, scores, parameters.recall.page))
            np.add.at(sums["requests"], requests.user_row, 1)
            _count(sums, page)
            if tell:
                hear(list(_reactions(page)))
            requests = lives.next_requests(requests, page)
            if not len(requests):
                break
    lives.end_day()
    return sums


def _count(sums: Sums, page: ShownPages) -> None:
    row, done = page.requests.user_row, page.reactions
    for name, of, value in (
        ("shown", slice(None), 1.0),
        ("clicks", done.click, 1.0),
        ("orders", done.order, 1.0),
        ("gmv", done.order, done.amount_yuan[done.order]),
        ("km", done.order, page.factors.distance_km[done.order, 0]),
        ("new_places", done.order, page.factors.visits[done.order, 0] == 0),
    ):
        np.add.at(sums[name], row[of], value)


def _views(requests: Requests, views: Views) -> Iterator[Event]:
    first = (
        np.concatenate([[True], views.request_row[1:] != views.request_row[:-1]])
        if len(views.request_row)
        else np.zeros(0, bool)
    )
    begin = np.maximum.accumulate(np.where(first, np.arange(len(views.request_row)), 0))
    for at, (of, place, time_ms) in enumerate(
        zip(views.request_row.tolist(), views.venue.tolist(), views.time_ms.tolist(), strict=True)
    ):
        user, number = int(requests.user_index[of]), int(requests.number[of])
        yield _event(user, number, place, time_ms, "view", at - int(begin[at]))


def _reactions(page: ShownPages) -> Iterator[Event]:
    """What was shown, so that a server knows what was not clicked, and what came of it."""
    done = page.reactions
    for at in range(len(page.venue)):
        user, number = int(page.requests.user_index[at]), int(page.requests.number[at])
        event = _event(
            user,
            number,
            int(page.venue[at]),
            int(page.requests.time_ms[at]),
            "impression",
            int(page.position[at]),
        )
        del event["type"]
        yield {**event, "event": "impression", "ranking": ranking_id(user, number)}
    for action, happened, times in (
        ("click", done.click, done.click_ms),
        ("order", done.order, done.order_ms),
        ("favourite", done.favourite, done.favourite_ms),
    ):
        for at in np.flatnonzero(happened).tolist():
            user, number = int(page.requests.user_index[at]), int(page.requests.number[at])
            event = _event(
                user, number, int(page.venue[at]), int(times[at]), action, int(page.position[at])
            )
            yield {**event, "ranking": ranking_id(user, number)}


def _event(
    user: int, number: int, place: int, time_ms: int, action: str, which: int
) -> dict[str, Any]:
    return {
        "event": "interaction",
        "id": f"{user}.{number}.{action}.{which}",
        "user": f"u{user:06d}",
        "item": f"p{place:05d}",
        "type": action,
        "timestamp": time_ms,
    }


def _by_day(days: list[Sums]) -> Sums:
    return {
        name: np.stack([day[name] for day in days], axis=1) if days else np.zeros((0, 0))
        for name in MEASURES
    }
