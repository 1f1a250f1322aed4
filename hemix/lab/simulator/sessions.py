"""How a day goes: when and where sessions begin, what is wanted, what is looked at, what is clicked
and ordered.

Every step takes the users concerned as a :class:`Moment` and draws by key (seed, purpose, user,
moment[, place]), so that the steps can be called for all users of a day at once (the logs) or for
one live user. This module knows nothing of logs, and nothing of who ranks.

A day has at most 8 sessions and a session at most 8 requests in its numbering; the parameters stay
below.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hemix.lab.simulator import draws
from hemix.lab.simulator.choice import Memory, Moment, click_logit, perceive
from hemix.lab.simulator.city import HOUR_MS, City
from hemix.lab.simulator.people import People
from hemix.lab.simulator.recall import NOWHERE, pick

__all__ = [
    "DayPlan",
    "Reaction",
    "Views",
    "browse",
    "continues",
    "moment_number",
    "next_intent",
    "plan_day",
    "react",
]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

_SLOTS = 8


def moment_number(city: City, day: int, session: npt.ArrayLike, request: int) -> Ints:
    """Number of a request (or, with request 0, of a session's beginning) in the life of any user;
    never negative.
    """
    first = (day + city.parameters.sessions.past_days) * _SLOTS
    return (first + np.asarray(session, dtype=np.int64)) * _SLOTS + request


@dataclass(frozen=True, kw_only=True)
class DayPlan:
    """When and where users open the app on a day; arrays [U, sessions], valid below
    ``sessions``.
    """

    sessions: Ints
    """[U]: how many"""
    start_ms: Ints
    x_km: Floats
    y_km: Floats


def plan_day(city: City, people: People, day: int) -> DayPlan:
    """The sessions of all ``people`` on a day, in the order of time."""
    s = city.parameters.sessions
    most = s.maximum_a_day
    plan_keys = draws.key(
        city.seed, "plan", people.number[:, None], moment_number(city, day, np.arange(most), 0)
    )

    def keys(purpose: str) -> draws.Keys:
        return draws.branch(plan_keys, purpose)

    activity = people.sessions_per_day * (people.weekend if city.weekend(day) else 1.0)
    count = draws.poisson(draws.key(city.seed, "sessions", people.number, day), activity, most)

    time_of_day = (
        draws.uniform(keys("time of day"))[:, :, None] > people.rhythm[:, None, :-1]
    ).sum(axis=2)
    peak, width = (np.array([part[i] for part in city.parameters.people.rhythm]) for i in (0, 1))
    hour = np.clip(
        peak[time_of_day] + width[time_of_day] * draws.normal(keys("hour")),
        s.first_hour,
        s.last_hour,
    )
    hour[np.arange(most) >= count[:, None]] = np.inf
    hour.sort(axis=1)
    for later in range(1, most):
        hour[:, later] = np.maximum(hour[:, later], hour[:, later - 1] + s.gap_minutes / 60)
    count = (hour <= s.last_hour).sum(axis=1)
    hour[np.arange(most) >= count[:, None]] = s.last_hour

    working = (not city.weekend(day)) & (hour >= 9) & (hour < 18)
    at_work = working & (draws.uniform(keys("at work")) < s.at_work)
    elsewhere = draws.uniform(keys("elsewhere")) < s.elsewhere
    centre = draws.choice(keys("which centre").reshape(-1), city.centres.weight).reshape(hour.shape)
    spread = np.where(elsewhere, s.elsewhere_spread_km, s.jitter_km)
    x = np.where(
        elsewhere,
        city.centres.x_km[centre],
        np.where(at_work, people.work_x_km[:, None], people.home_x_km[:, None]),
    )
    y = np.where(
        elsewhere,
        city.centres.y_km[centre],
        np.where(at_work, people.work_y_km[:, None], people.home_y_km[:, None]),
    )
    edge = city.parameters.geography.half_width_km
    return DayPlan(
        sessions=count,
        start_ms=city.day_start_ms(day) + np.round(hour * HOUR_MS).astype(np.int64),
        x_km=np.clip(x + spread * draws.normal(keys("x")), -edge, edge).astype(np.float32),
        y_km=np.clip(y + spread * draws.normal(keys("y")), -edge, edge).astype(np.float32),
    )


def next_intent(
    city: City, moment: Moment, taste: Floats, satisfied: npt.NDArray[np.bool_], first: bool
) -> Moment:
    """The moments with what is wanted in the session that now begins: the day's first session wants
    something new; a later one wants the same, unless it was ``satisfied`` [n] by an order or chance
    changes it.
    """
    s = city.parameters.sessions

    def keys(purpose: str) -> draws.Keys:
        return draws.key(city.seed, purpose, moment.user, moment.number)

    new = (
        np.full(len(moment), True)
        if first
        else satisfied | (draws.uniform(keys("intent persists")) > s.intent_persists)
    )
    hour = ((moment.time_ms - city.day_start_ms(moment.day)) // HOUR_MS) % 24
    wish = s.intent_of_taste * taste[moment.row] + city.hour_fit[:, hour].T
    if city.weekend(moment.day):
        wish = wish + np.log([c.weekend for c in city.parameters.categories])
    wish = wish + np.log([c.share for c in city.parameters.categories]) * 0.5
    choices = keys("intent")[:, None]
    category = np.argmax(
        wish + draws.gumbel(draws.extend(choices, np.arange(wish.shape[1]))), axis=1
    )
    mood = (s.mood_spread * draws.normal(keys("mood"))).astype(np.float32)
    return replace(
        moment,
        category=np.where(new, category, moment.category),
        mood=np.where(new, mood, moment.mood),
    )


@dataclass(frozen=True, kw_only=True)
class Views:
    """What is looked at before the first request; arrays [v], by moment and time."""

    of: Ints
    """Which moment of the step."""
    place: npt.NDArray[np.int32]
    time_ms: Ints
    end_ms: Ints
    """[n]: when each moment's browsing is over and the request is made."""


def browse(
    city: City,
    people: People,
    taste: Floats,
    memory: Memory,
    favourites: npt.NDArray[np.int32],
    moment: Moment,
) -> Views:
    """The views with which a session begins: mostly of what is wanted now, which is all that
    reveals it.
    """
    s, near = city.parameters.sessions, city.neighbourhood
    keys = draws.key(city.seed, "view", moment.user, moment.number)
    count = 1 + draws.poisson(draws.extend(keys, -1), s.views_mean, s.views_maximum - 1)
    low, high = s.view_seconds
    steps = draws.uniform(
        draws.key(
            city.seed,
            "view time",
            moment.user[:, None],
            moment.number[:, None],
            np.arange(s.views_maximum),
        )
    )
    ends = np.cumsum(np.round(1000 * (low + (high - low) * steps)).astype(np.int64), axis=1)
    end_ms = moment.time_ms + ends[np.arange(len(moment)), count - 1]

    of, view = np.nonzero(np.arange(s.views_maximum) < count[:, None])
    each = moment.take(of)
    view_keys = draws.extend(keys[of], view)
    slot_keys = draws.extend(view_keys[:, None], np.arange(s.view_choices))
    channel = draws.uniform(draws.extend(view_keys, -1))
    cell = near.cell(each.x_km, each.y_km)
    pool = pick(near.near[cell], slot_keys)
    wanted = channel < s.view_of_intent
    pool[wanted] = pick(near.of_category[cell[wanted], each.category[wanted]], slot_keys[wanted])
    dear = ~wanted & (channel < s.view_of_intent + s.view_of_favourite)
    pool[dear] = pick(favourites[each.row[dear]], slot_keys[dear])

    appeal = click_logit(
        perceive(city, people, taste, memory, each, pool), 0, city.parameters.click
    )
    appeal = appeal + draws.gumbel(draws.extend(slot_keys, 1))
    appeal[(pool == NOWHERE) | (city.places.opening_day[pool] > moment.day)] = -np.inf
    best = np.argmax(appeal, axis=1)
    chosen = np.arange(len(of)), best
    real = appeal[chosen] > -np.inf
    begins = moment.time_ms[of] + np.where(view > 0, ends[of, view - 1], 0)
    return Views(of=of[real], place=pool[chosen][real], time_ms=begins[real], end_ms=end_ms)


@dataclass(frozen=True, kw_only=True)
class Reaction:
    """What users did with what they were shown; arrays [c] of one candidate each."""

    click: npt.NDArray[np.bool_]
    order: npt.NDArray[np.bool_]
    click_ms: Ints
    """When it is clicked, if it is."""
    order_ms: Ints
    """When it is ordered, if it is: minutes to hours after the click."""
    favourite: npt.NDArray[np.bool_]
    """It is marked as a favourite."""
    favourite_ms: Ints
    amount_yuan: npt.NDArray[np.float64]
    """What the order costs, if there is one."""


def react(
    city: City,
    moment: Moment,
    place: npt.NDArray[np.integer],
    position: Ints,
    p_click: npt.NDArray[np.float64],
    p_order_given_click: npt.NDArray[np.float64],
) -> Reaction:
    """Clicks, orders, their times and amounts of candidates [c], one moment each.

    The draws do not depend on the position: the same place shown elsewhere on the page meets the
    same luck.
    """
    s = city.parameters.sessions

    reaction_keys = draws.key(city.seed, "reaction", moment.user, moment.number, place)

    def keys(purpose: str) -> draws.Keys:
        return draws.branch(reaction_keys, purpose)

    click = draws.uniform(keys("click")) < p_click
    order = click & (draws.uniform(keys("order")) < p_order_given_click)
    low, high = s.click_seconds
    seconds = low * (1 + position) + (high - low) * draws.uniform(keys("click time"))
    click_ms = moment.time_ms + np.round(1000 * seconds).astype(np.int64)
    minutes = s.order_minutes_median * np.exp(
        s.order_minutes_spread * draws.normal(keys("order time"))
    )
    order_ms = click_ms + np.round(60_000 * np.clip(minutes, 1.0, s.order_minutes_maximum)).astype(
        np.int64
    )
    likely = np.where(order, s.favourite_of_order, s.favourite_of_click)
    units = 1 + draws.poisson(keys("units"), s.extra_units, 9)
    return Reaction(
        click=click,
        order=order,
        click_ms=click_ms,
        order_ms=order_ms,
        favourite_ms=click_ms + 1000,
        favourite=click & (draws.uniform(keys("favourite")) < likely),
        amount_yuan=city.places.price_yuan[place] * units,
    )


def continues(
    city: City, moment: Moment, clicked: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.bool_], Ints]:
    """Whether the user asks for another ranking after this one [n], and when (ms)."""
    s = city.parameters.sessions
    keys = draws.key(city.seed, "continues", moment.user, moment.number)
    goes_on = draws.uniform(keys) < s.continues + s.continues_after_click * clicked
    low, high = s.request_seconds
    pause = draws.uniform(draws.extend(keys, 1))
    return goes_on, moment.time_ms + np.round(1000 * (low + (high - low) * pause)).astype(np.int64)
