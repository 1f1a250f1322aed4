"""Generate logs as arrays: users simulated under the logging policy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from hemix.lab.simulator.arrays import Int32Array, Int64Array
from hemix.lab.simulator.behaviour import Views
from hemix.lab.simulator.city import City
from hemix.lab.simulator.ranking import logging_policy_scores, top_page
from hemix.lab.simulator.simulation import ShownPages, UserSimulation
from hemix.lab.simulator.state import Requests
from hemix.lab.simulator.users import Users

__all__ = ["ACTIONS", "EVENT_DTYPES", "IMPRESSION_DTYPES", "Columns", "generate_logs"]

ACTIONS = ("view", "click", "order", "favourite")

EVENT_DTYPES: dict[str, npt.DTypeLike] = {
    "user": np.int64,
    "venue": np.int32,
    "time_ms": np.int64,
    "action": np.int8,
}
"""``action`` is an index into ACTIONS."""

IMPRESSION_DTYPES: dict[str, npt.DTypeLike] = {
    "user": np.int64,
    "venue": np.int32,
    "request_number": np.int64,
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


class _ColumnBuffer:
    """Collect rows by column."""

    def __init__(self, dtypes: dict[str, npt.DTypeLike]) -> None:
        self._chunks = {name: [np.empty(0, dtype=dtype)] for name, dtype in dtypes.items()}

    def append(self, **columns: npt.NDArray[np.generic]) -> None:
        for name, chunks in self._chunks.items():
            chunks.append(columns[name].astype(chunks[0].dtype, copy=False))

    def sorted_by(self, *names: str) -> Columns:
        """Return all rows, sorted by the first name, then the second, and so on."""
        columns: Columns = {name: np.concatenate(chunks) for name, chunks in self._chunks.items()}
        order = np.lexsort([columns[name] for name in reversed(names)])
        return {name: column[order] for name, column in columns.items()}


def generate_logs(
    city: City,
    users: Users,
    *,
    on_progress: Callable[[float], None] | None = None,
    on_pages: Callable[[ShownPages], None] | None = None,
) -> tuple[Columns, Columns]:
    """Simulate users from the first day of the past to the last logged day.

    Args:
        city: City of the users.
        users: Users to simulate.
        on_progress: Called with the simulated fraction of the days, 0 to 1.
        on_pages: Called with the pages of every logged step.

    Returns:
        Events of all days, sorted by user, time and action; impressions from day 0 on, sorted by
        user, time and position.
    """
    past = city.parameters.sessions.past_days
    events, impressions = _ColumnBuffer(EVENT_DTYPES), _ColumnBuffer(IMPRESSION_DTYPES)
    simulation = UserSimulation(city, users)
    for day in range(-past, city.days):
        for session in range(simulation.begin_day(day)):
            requests, views = simulation.begin_session(session)
            _append_views(events, requests, views)
            for _ in range(city.parameters.sessions.requests_maximum):
                pages = _show_by_logging_policy(simulation, requests)
                _append_reactions(events, pages)
                if day >= 0:
                    _append_impressions(impressions, pages)
                    if on_pages is not None:
                        on_pages(pages)
                requests = simulation.next_requests(requests, pages)
                if not len(requests):
                    break
        simulation.end_day()
        if on_progress is not None:
            on_progress((day + 1 + past) / (city.days + past))
    return events.sorted_by("user", "time_ms", "action"), impressions.sorted_by(
        "user", "time_ms", "position"
    )


def _show_by_logging_policy(simulation: UserSimulation, requests: Requests) -> ShownPages:
    city = simulation.city
    candidates = simulation.candidates(requests)
    scores = logging_policy_scores(city, requests, candidates)
    return simulation.show(requests, top_page(candidates, scores, city.parameters.recall.page))


def _append_events(
    events: _ColumnBuffer, action: str, user: Int64Array, venue: Int32Array, time_ms: Int64Array
) -> None:
    events.append(
        user=user, venue=venue, time_ms=time_ms, action=np.full(len(user), ACTIONS.index(action))
    )


def _append_views(events: _ColumnBuffer, requests: Requests, views: Views) -> None:
    user = requests.user_index[views.request_row]
    _append_events(events, "view", user, views.venue, views.time_ms)


def _append_reactions(events: _ColumnBuffer, pages: ShownPages) -> None:
    user, reactions = pages.requests.user_index, pages.reactions
    for action, happened, time_ms in (
        ("click", reactions.click, reactions.click_ms),
        ("order", reactions.order, reactions.order_ms),
        ("favourite", reactions.favourite, reactions.favourite_ms),
    ):
        _append_events(events, action, user[happened], pages.venue[happened], time_ms[happened])


def _append_impressions(impressions: _ColumnBuffer, pages: ShownPages) -> None:
    requests, reactions = pages.requests, pages.reactions
    impressions.append(
        user=requests.user_index,
        venue=pages.venue,
        request_number=requests.number,
        day=np.full(len(requests), requests.day),
        time_ms=requests.time_ms,
        x_km=requests.x_km,
        y_km=requests.y_km,
        position=pages.position,
        click=reactions.click,
        order=reactions.order,
        order_ms=reactions.order_ms,
        amount_yuan=reactions.amount_yuan,
        p_click=pages.p_click,
        p_order_given_click=pages.p_order_given_click,
        intent=requests.intent,
    )
