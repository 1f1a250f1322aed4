"""Simulate users step by step: day, session, candidates, shown page, end of the day.

The caller ranks the candidates: the logging policy for the logs, a server for live users. A user's
days do not depend on which other users are simulated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hemix.lab.simulator.arrays import (
    Float32Array,
    Float64Array,
    Int32Array,
    Int64Array,
)
from hemix.lab.simulator.behaviour import (
    Reactions,
    Views,
    draw_continuations,
    draw_intents,
    draw_reactions,
    draw_views,
)
from hemix.lab.simulator.choice_model import Factors, choice_probabilities, compute_factors
from hemix.lab.simulator.city import City
from hemix.lab.simulator.recall import draw_favourites, draw_initial_visits, recall_candidates
from hemix.lab.simulator.schedule import DaySchedule, request_number, schedule_day
from hemix.lab.simulator.spatial_index import NO_VENUE
from hemix.lab.simulator.state import Requests
from hemix.lab.simulator.users import Users

__all__ = ["ShownPages", "UserSimulation"]


@dataclass(frozen=True, kw_only=True)
class ShownPages:
    """The c impressions of a step's pages as arrays [c], by request and position."""

    request_row: Int64Array
    """Rows of the requests in the step."""
    requests: Requests
    """The request of every impression."""
    venue: Int32Array
    position: Int64Array
    """0 for the top."""
    factors: Factors
    """Arrays [c, 1]."""
    p_click: Float64Array
    p_order_given_click: Float64Array
    reactions: Reactions


class UserSimulation:
    """Simulate U users of a city from the first day of the past on.

    Days follow in order, and so do the sessions of a day: :meth:`begin_day`, for each session
    :meth:`begin_session`, pages by :meth:`show` and :meth:`next_requests`, then :meth:`end_day`.
    """

    def __init__(self, city: City, users: Users) -> None:
        self.city, self.users = city, users
        first_taste = users.taste(-city.parameters.sessions.past_days)
        self.favourites = draw_favourites(city, users, first_taste)
        self.visits = draw_initial_visits(city, users, self.favourites)
        self.schedule: DaySchedule
        self._taste: Float32Array
        self._day = 0
        self._intent = np.zeros(len(users), dtype=np.int64)
        self._price_shift = np.zeros(len(users), dtype=np.float32)
        self._satisfied = np.zeros(len(users), dtype=np.bool_)
        self._orders_today: list[tuple[Int64Array, Int32Array]] = []

    @property
    def taste(self) -> Float32Array:
        """Long-term taste [U, categories] today."""
        return self._taste

    def begin_day(self, day: int) -> int:
        """Schedule a day and return the largest number of sessions of any user."""
        self._day = day
        self._taste = self.users.taste(day)
        self.schedule = schedule_day(self.city, self.users, day)
        return int(self.schedule.session_count.max(initial=0))

    def begin_session(self, session: int) -> tuple[Requests, Views]:
        """Begin the ``session``-th session (from 0) of today.

        Returns the first requests of the users who have such a session, and their views before.
        """
        row = np.flatnonzero(self.schedule.session_count > session)
        requests = Requests(
            day=self._day,
            number=np.full(len(row), request_number(self.city, self._day, session, 0)),
            user_row=row,
            user_index=self.users.index[row],
            time_ms=self.schedule.start_ms[row, session],
            x_km=self.schedule.x_km[row, session],
            y_km=self.schedule.y_km[row, session],
            intent=self._intent[row],
            price_shift=self._price_shift[row],
        )
        requests = draw_intents(
            self.city, requests, self._taste, self._satisfied[row], first_of_day=session == 0
        )
        self._intent[row] = requests.intent
        self._price_shift[row] = requests.price_shift
        self._satisfied[row] = False
        views = draw_views(
            self.city, self.users, self._taste, self.visits, self.favourites, requests
        )
        return replace(requests, time_ms=views.end_ms), views

    def candidates(self, requests: Requests, draw_count: int | None = None) -> Int32Array:
        """Recall the candidates of requests.

        Args:
            requests: n requests.
            draw_count: Draws per request, by default the city's.

        Returns:
            Venues [n, draw_count] with gaps of NO_VENUE.
        """
        return recall_candidates(self.city, requests, self._taste, self.favourites, draw_count)

    def show(self, requests: Requests, pages: Int32Array) -> ShownPages:
        """Show one page per request and draw the reactions.

        Args:
            requests: n requests.
            pages: Venues [n, page], the best first; NO_VENUE after the last one.

        Returns:
            The impressions with their probabilities and reactions.
        """
        request_row, position = np.nonzero(pages != NO_VENUE)
        shown_requests, venue = requests.select(request_row), pages[request_row, position]
        factors = compute_factors(
            self.city, self.users, self._taste, self.visits, shown_requests, venue[:, None]
        )
        p_click, p_order_given_click = (
            probability[:, 0]
            for probability in choice_probabilities(
                factors, position[:, None], self.city.parameters
            )
        )
        reactions = draw_reactions(
            self.city, shown_requests, venue, position, p_click, p_order_given_click
        )
        user_row = shown_requests.user_row[reactions.order]
        self._satisfied[user_row] = True
        self._orders_today.append((user_row, venue[reactions.order]))
        return ShownPages(
            request_row=request_row,
            requests=shown_requests,
            venue=venue,
            position=position,
            factors=factors,
            p_click=p_click,
            p_order_given_click=p_order_given_click,
            reactions=reactions,
        )

    def next_requests(self, requests: Requests, pages: ShownPages) -> Requests:
        """Return the next requests of the session.

        Args:
            requests: n requests.
            pages: Their pages.

        Returns:
            One request of each user who continues; none if nobody does.
        """
        clicked = np.zeros(len(requests), dtype=np.bool_)
        clicked[pages.request_row[pages.reactions.click]] = True
        continues, time_ms = draw_continuations(self.city, requests, clicked)
        return replace(requests, number=requests.number + 1, time_ms=time_ms).select(continues)

    def end_day(self) -> None:
        """Count today's orders as visits, from tomorrow on."""
        for user_row, venue in self._orders_today:
            self.visits.add(user_row, venue)
        self._orders_today = []
