"""The logs of some users, as arrays: lives under the logging policy, written down.

This module knows nothing of files and tables.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from hemix.lab.simulator.choice import Moment
from hemix.lab.simulator.city import City
from hemix.lab.simulator.life import Lives, Page
from hemix.lab.simulator.people import People
from hemix.lab.simulator.recall import logging_policy, show
from hemix.lab.simulator.sessions import Views

__all__ = ["ACTIONS", "EVENT_COLUMNS", "IMPRESSION_COLUMNS", "Columns", "record"]

ACTIONS = ("view", "click", "order", "favourite")

EVENT_COLUMNS: dict[str, npt.DTypeLike] = {
    "user": np.int64,
    "place": np.int32,
    "time_ms": np.int64,
    "action": np.int8,
}
"""``action`` is a position in ACTIONS."""

IMPRESSION_COLUMNS: dict[str, npt.DTypeLike] = {
    "user": np.int64,
    "place": np.int32,
    "moment": np.int64,
    "day": np.int32,
    "time_ms": np.int64,
    "x_km": np.float32,
    "y_km": np.float32,
    "position": np.int32,
    "click": np.bool_,
    "order": np.bool_,
    "order_ms": np.int64,
    "amount_yuan": np.float64,
    "p_click": np.float64,
    "p_order_given_click": np.float64,
    "intent": np.int32,
}

Columns = dict[str, npt.NDArray[np.generic]]
Observer = Callable[[Page], None]


class _Log:
    """Columns that grow."""

    def __init__(self, types: dict[str, npt.DTypeLike]) -> None:
        self._pieces = {name: [np.empty(0, dtype=dtype)] for name, dtype in types.items()}

    def add(self, **columns: npt.NDArray[np.generic]) -> None:
        for name, pieces in self._pieces.items():
            pieces.append(columns[name].astype(pieces[0].dtype, copy=False))

    def sorted_by(self, *names: str) -> Columns:
        """All rows in the order of the named columns, the first the slowest."""
        columns: Columns = {name: np.concatenate(pieces) for name, pieces in self._pieces.items()}
        order = np.lexsort([columns[name] for name in reversed(names)])
        return {name: column[order] for name, column in columns.items()}


def record(
    city: City,
    people: People,
    *,
    progress: Callable[[float], None] | None = None,
    observe: Observer | None = None,
) -> tuple[Columns, Columns]:
    """(events, impressions) of ``people`` from the first day of the past to the last logged day.

    Events are sorted by user and time; impressions, kept from day 0 on, by user, time and position.
    ``progress`` gets the share of days done. ``observe`` gets every logged page, to look inside; it
    changes nothing.
    """
    past = city.parameters.sessions.past_days
    events, impressions = _Log(EVENT_COLUMNS), _Log(IMPRESSION_COLUMNS)
    lives = Lives(city, people)
    for day in range(-past, city.days):
        for session in range(lives.begin_day(day)):
            requests, views = lives.begin_session(session)
            _write_views(events, requests, views)
            for _ in range(city.parameters.sessions.requests_maximum):
                candidates = lives.candidates(requests)
                shown = show(
                    candidates,
                    logging_policy(city, requests, candidates),
                    city.parameters.recall.page,
                )
                page = lives.show(requests, shown)
                _write_reactions(events, page)
                if day >= 0:
                    _write_impressions(impressions, page)
                    if observe is not None:
                        observe(page)
                requests = lives.next_requests(requests, page)
                if not len(requests):
                    break
        lives.end_day()
        if progress is not None:
            progress((day + 1 + past) / (city.days + past))
    return events.sorted_by("user", "time_ms", "action"), impressions.sorted_by(
        "user", "time_ms", "position"
    )


def _write(
    events: _Log,
    action: str,
    user: npt.NDArray[np.int64],
    place: npt.NDArray[np.int32],
    time_ms: npt.NDArray[np.int64],
) -> None:
    events.add(
        user=user, place=place, time_ms=time_ms, action=np.full(len(user), ACTIONS.index(action))
    )


def _write_views(events: _Log, requests: Moment, views: Views) -> None:
    _write(events, "view", requests.user[views.of], views.place, views.time_ms)


def _write_reactions(events: _Log, page: Page) -> None:
    done = page.reaction
    for action, happened, time_ms in (
        ("click", done.click, done.click_ms),
        ("order", done.order, done.order_ms),
        ("favourite", done.favourite, done.favourite_ms),
    ):
        _write(events, action, page.moment.user[happened], page.place[happened], time_ms[happened])


def _write_impressions(impressions: _Log, page: Page) -> None:
    moment, done = page.moment, page.reaction
    impressions.add(
        user=moment.user,
        place=page.place,
        moment=moment.number,
        day=np.full(len(moment), moment.day),
        time_ms=moment.time_ms,
        x_km=moment.x_km,
        y_km=moment.y_km,
        position=page.position,
        click=done.click,
        order=done.order,
        order_ms=done.order_ms,
        amount_yuan=done.amount_yuan,
        p_click=page.p_click,
        p_order_given_click=page.p_order_given_click,
        intent=moment.category,
    )
