"""The lives of some users, step by step: a day begins, a session begins, candidates are recalled, a
page is shown, the day ends.

:class:`Lives` holds what changes (memory, today's intents) and calls the steps; who ranks the
candidates is the caller's affair: the logging policy for the logs, a server for the live city. A
user's life is the same in any company: it is made of keyed draws and of the user's own past. This
module knows nothing of logs and files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hemix.lab.simulator.choice import Factors, Moment, perceive, probabilities
from hemix.lab.simulator.city import City
from hemix.lab.simulator.people import People
from hemix.lab.simulator.recall import NOWHERE, find_favourites, fresh_memory, recall
from hemix.lab.simulator.sessions import (
    DayPlan,
    Reaction,
    Views,
    browse,
    continues,
    moment_number,
    next_intent,
    plan_day,
    react,
)

__all__ = ["Lives", "Page"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class Page:
    """What was shown in a step of requests and what came of it; arrays [c], one candidate each, by
    request and position.
    """

    of: Ints
    """Which request of the step."""
    moment: Moment
    """The request's moment, repeated for every candidate."""
    place: Places
    position: Ints
    """0: the top."""
    factors: Factors
    """Arrays [c, 1]."""
    p_click: npt.NDArray[np.float64]
    p_order_given_click: npt.NDArray[np.float64]
    reaction: Reaction


class Lives:
    """Some users of a city, from the beginning of the past on.

    Days are lived in order, and so are their sessions.
    """

    def __init__(self, city: City, people: People) -> None:
        self.city, self.people = city, people
        first_taste = people.taste(-city.parameters.sessions.past_days)
        self.favourites = find_favourites(city, people, first_taste)
        self.memory = fresh_memory(city, people, self.favourites)
        self.plan: DayPlan
        self._taste: Floats
        self._day = 0
        self._category = np.zeros(len(people), dtype=np.int64)
        self._mood = np.zeros(len(people), dtype=np.float32)
        self._satisfied = np.zeros(len(people), dtype=np.bool_)
        self._ordered: list[tuple[Ints, Places]] = []

    def begin_day(self, day: int) -> int:
        """Plan a day; returns the largest number of sessions of any user."""
        self._day = day
        self._taste = self.people.taste(day)
        self.plan = plan_day(self.city, self.people, day)
        return int(self.plan.sessions.max(initial=0))

    def begin_session(self, session: int) -> tuple[Moment, Views]:
        """Users who open the app for the ``session``-th time (from 0) today: their first requests,
        and their views.
        """
        row = np.flatnonzero(self.plan.sessions > session)
        moment = Moment(
            day=self._day,
            number=np.full(len(row), moment_number(self.city, self._day, session, 0)),
            row=row,
            user=self.people.number[row],
            time_ms=self.plan.start_ms[row, session],
            x_km=self.plan.x_km[row, session],
            y_km=self.plan.y_km[row, session],
            category=self._category[row],
            mood=self._mood[row],
        )
        moment = next_intent(
            self.city, moment, self._taste, self._satisfied[row], first=session == 0
        )
        self._category[row], self._mood[row], self._satisfied[row] = (
            moment.category,
            moment.mood,
            False,
        )
        views = browse(self.city, self.people, self._taste, self.memory, self.favourites, moment)
        return moment.at(number=moment.number, time_ms=views.end_ms), views

    @property
    def taste(self) -> Floats:
        """[U, categories]: today's."""
        return self._taste

    def candidates(self, requests: Moment, draws: int | None = None) -> Places:
        """[n, draws]: the places that come into question for every request, with gaps of -1 (see
        recall).
        """
        return recall(self.city, requests, self._taste, self.favourites, draws)

    def show(self, requests: Moment, shown: Places) -> Page:
        """Show every request a page of places [n, page], the best first (-1: no more), and let the
        users react.
        """
        of, position = np.nonzero(shown != NOWHERE)
        moment, place = requests.take(of), shown[of, position]
        factors = perceive(self.city, self.people, self._taste, self.memory, moment, place[:, None])
        p_click, p_order = (
            p[:, 0] for p in probabilities(factors, position[:, None], self.city.parameters)
        )
        reaction = react(self.city, moment, place, position, p_click, p_order)
        rows = moment.row[reaction.order]
        self._satisfied[rows] = True
        self._ordered.append((rows, place[reaction.order]))
        return Page(
            of=of,
            moment=moment,
            place=place,
            position=position,
            factors=factors,
            p_click=p_click,
            p_order_given_click=p_order,
            reaction=reaction,
        )

    def next_requests(self, requests: Moment, page: Page) -> Moment:
        """The requests of those who ask for another page in the same session."""
        clicked = np.zeros(len(requests), dtype=np.bool_)
        clicked[page.of[page.reaction.click]] = True
        goes_on, time_ms = continues(self.city, requests, clicked)
        return requests.at(number=requests.number + 1, time_ms=time_ms).take(goes_on)

    def end_day(self) -> None:
        """Today's orders become memories."""
        for row, place in self._ordered:
            self.memory.add(row, place)
        self._ordered = []
