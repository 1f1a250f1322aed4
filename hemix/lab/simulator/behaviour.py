"""What users do in a session: intent, views, clicks, orders and further requests.

Values are drawn by key (seed, purpose, user, request[, venue]), so the functions serve all users of
a logged day at once as well as one live user.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hemix.lab.simulator import draws
from hemix.lab.simulator.arrays import (
    BoolArray,
    Float32Array,
    Float64Array,
    Int32Array,
    Int64Array,
    IntegerArray,
)
from hemix.lab.simulator.choice_model import click_logit, compute_factors
from hemix.lab.simulator.city import City
from hemix.lab.simulator.recall import draw_from_lists
from hemix.lab.simulator.spatial_index import NO_VENUE
from hemix.lab.simulator.state import Requests, VisitCounts
from hemix.lab.simulator.users import Users

__all__ = [
    "Reactions",
    "Views",
    "draw_continuations",
    "draw_intents",
    "draw_reactions",
    "draw_views",
]


def draw_intents(
    city: City,
    requests: Requests,
    taste: Float32Array,
    satisfied: BoolArray,
    *,
    first_of_day: bool,
) -> Requests:
    """Draw the intents of sessions that begin.

    The day's first session has a new intent. A later one keeps the last intent, unless an order
    satisfied it or chance changes it.

    Args:
        city: City of the users.
        requests: n beginning sessions with the users' last intents.
        taste: Long-term taste [U, categories] of all users today.
        satisfied: Whether an order has met the last intent [n].
        first_of_day: Whether these are the users' first sessions of the day.

    Returns:
        The requests with the new intents.
    """
    s = city.parameters.sessions

    def keys(purpose: str) -> draws.Keys:
        return draws.key(city.seed, purpose, requests.user_index, requests.number)

    is_new = (
        np.full(len(requests), True)
        if first_of_day
        else satisfied | (draws.uniform(keys("intent persists")) > s.intent_persists)
    )
    hour = city.hour_of_day(requests.day, requests.time_ms)
    logit = s.intent_of_taste * taste[requests.user_row] + city.hourly_demand[:, hour].T
    if city.is_weekend(requests.day):
        logit = logit + np.log([category.weekend for category in city.parameters.categories])
    logit = logit + np.log([category.fraction for category in city.parameters.categories]) * 0.5
    category_keys = draws.extend(keys("intent")[:, None], np.arange(logit.shape[1]))
    intent = np.argmax(logit + draws.gumbel(category_keys), axis=1)
    price_shift = (s.mood_spread * draws.normal(keys("mood"))).astype(np.float32)
    return replace(
        requests,
        intent=np.where(is_new, intent, requests.intent),
        price_shift=np.where(is_new, price_shift, requests.price_shift),
    )


@dataclass(frozen=True, kw_only=True)
class Views:
    """The v views before n requests as arrays [v], by request and time."""

    request_row: Int64Array
    """Rows of the requests."""
    venue: Int32Array
    time_ms: Int64Array
    end_ms: Int64Array
    """[n]: end of the browsing, which is the time of the request."""


def draw_views(
    city: City,
    users: Users,
    taste: Float32Array,
    visits: VisitCounts,
    favourites: Int32Array,
    requests: Requests,
) -> Views:
    """Draw the views with which sessions begin; most of them reveal the intent.

    Args:
        city: City of the users.
        users: U users, to whose rows the requests refer.
        taste: Long-term taste [U, categories] today.
        visits: Orders of the users before today.
        favourites: Favourites [U, favourites].
        requests: n beginning sessions.

    Returns:
        The viewed venues and the ends of browsing.
    """
    s = city.parameters.sessions
    keys = draws.key(city.seed, "view", requests.user_index, requests.number)
    count = 1 + draws.poisson(draws.extend(keys, -1), s.views_mean, s.views_maximum - 1)
    view_ends_ms = _view_ends_ms(city, requests)
    end_ms = requests.time_ms + view_ends_ms[np.arange(len(requests)), count - 1]

    request_row, view = np.nonzero(np.arange(s.views_maximum) < count[:, None])
    view_requests = requests.select(request_row)
    view_keys = draws.extend(keys[request_row], view)
    choice_keys = draws.extend(view_keys[:, None], np.arange(s.view_choices))
    choices = _view_choices(city, favourites, view_requests, view_keys, choice_keys)

    factors = compute_factors(city, users, taste, visits, view_requests, choices)
    utility = click_logit(factors, 0, city.parameters.click)
    utility = utility + draws.gumbel(draws.extend(choice_keys, 1))
    is_open = city.venues.opening_day[choices] <= requests.day
    utility[(choices == NO_VENUE) | ~is_open] = -np.inf
    best = np.arange(len(request_row)), np.argmax(utility, axis=1)
    exists = utility[best] > -np.inf
    start_ms = requests.time_ms[request_row] + np.where(
        view > 0, view_ends_ms[request_row, view - 1], 0
    )
    return Views(
        request_row=request_row[exists],
        venue=choices[best][exists],
        time_ms=start_ms[exists],
        end_ms=end_ms,
    )


def _view_ends_ms(city: City, requests: Requests) -> Int64Array:
    """Draw the ends of views [n, views_maximum] in ms since the session's start."""
    s = city.parameters.sessions
    low, high = s.view_seconds
    progress = draws.uniform(
        draws.key(
            city.seed,
            "view time",
            requests.user_index[:, None],
            requests.number[:, None],
            np.arange(s.views_maximum),
        )
    )
    durations_ms = np.round(1000 * (low + (high - low) * progress)).astype(np.int64)
    return np.cumsum(durations_ms, axis=1)


def _view_choices(
    city: City,
    favourites: Int32Array,
    requests: Requests,
    view_keys: draws.Keys,
    choice_keys: draws.Keys,
) -> Int32Array:
    """Draw the venues [v, view_choices] of which each view is the most appealing one."""
    s, index = city.parameters.sessions, city.spatial_index
    channel = draws.uniform(draws.extend(view_keys, -1))
    cell = index.cell_of(requests.x_km, requests.y_km)
    choices = draw_from_lists(index.nearest[cell], choice_keys)
    by_intent = channel < s.view_of_intent
    choices[by_intent] = draw_from_lists(
        index.nearest_of_category[cell[by_intent], requests.intent[by_intent]],
        choice_keys[by_intent],
    )
    by_favourite = ~by_intent & (channel < s.view_of_intent + s.view_of_favourite)
    choices[by_favourite] = draw_from_lists(
        favourites[requests.user_row[by_favourite]], choice_keys[by_favourite]
    )
    return choices


@dataclass(frozen=True, kw_only=True)
class Reactions:
    """The reactions to c shown venues as arrays [c]."""

    click: BoolArray
    order: BoolArray
    click_ms: Int64Array
    """Time of the click, if there is one."""
    order_ms: Int64Array
    """Time of the order, if there is one; minutes to hours after the click."""
    favourite: BoolArray
    """Whether the user marks the venue as a favourite."""
    favourite_ms: Int64Array
    amount_yuan: Float64Array
    """Amount of the order, if there is one."""


def draw_reactions(
    city: City,
    requests: Requests,
    venue: IntegerArray,
    position: Int64Array,
    p_click: Float64Array,
    p_order_given_click: Float64Array,
) -> Reactions:
    """Draw the reactions to shown venues.

    The draws do not depend on the position: a venue meets the same chance anywhere on the page.

    Args:
        city: City of the venues.
        requests: Request of every venue [c].
        venue: Indices [c] of the shown venues.
        position: Positions [c] on the page, from 0.
        p_click: Probabilities [c] of a click.
        p_order_given_click: Probabilities [c] of an order, given a click.

    Returns:
        Clicks and orders with their times and amounts.
    """
    s = city.parameters.sessions
    shown_keys = draws.key(city.seed, "reaction", requests.user_index, requests.number, venue)

    def keys(purpose: str) -> draws.Keys:
        return draws.with_purpose(shown_keys, purpose)

    click = draws.uniform(keys("click")) < p_click
    order = click & (draws.uniform(keys("order")) < p_order_given_click)
    low, high = s.click_seconds
    seconds = low * (1 + position) + (high - low) * draws.uniform(keys("click time"))
    click_ms = requests.time_ms + np.round(1000 * seconds).astype(np.int64)
    minutes = s.order_minutes_median * np.exp(
        s.order_minutes_spread * draws.normal(keys("order time"))
    )
    minutes = np.clip(minutes, 1.0, s.order_minutes_maximum)
    p_favourite = np.where(order, s.favourite_of_order, s.favourite_of_click)
    units = 1 + draws.poisson(keys("units"), s.extra_units, 9)
    return Reactions(
        click=click,
        order=order,
        click_ms=click_ms,
        order_ms=click_ms + np.round(60_000 * minutes).astype(np.int64),
        favourite_ms=click_ms + 1000,
        favourite=click & (draws.uniform(keys("favourite")) < p_favourite),
        amount_yuan=city.venues.price_yuan[venue] * units,
    )


def draw_continuations(
    city: City, requests: Requests, clicked: BoolArray
) -> tuple[BoolArray, Int64Array]:
    """Draw whether users make another request in the session.

    Args:
        city: City of the users.
        requests: n requests.
        clicked: Whether the page got a click [n].

    Returns:
        Whether there is another request [n], and its time in ms UTC [n].
    """
    s = city.parameters.sessions
    keys = draws.key(city.seed, "continues", requests.user_index, requests.number)
    continues = draws.uniform(keys) < s.continues + s.continues_after_click * clicked
    low, high = s.request_seconds
    seconds = low + (high - low) * draws.uniform(draws.extend(keys, 1))
    return continues, requests.time_ms + np.round(1000 * seconds).astype(np.int64)
