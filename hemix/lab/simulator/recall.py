"""The recall stage: candidates of a request, drawn from several channels.

The channels are the current intent, the long-term taste, popular venues, the user's favourites and
all nearby venues. Candidates are open and within the radius.
"""

from __future__ import annotations

import numpy as np

from hemix.lab.simulator import draws
from hemix.lab.simulator.arrays import Float32Array, Int32Array, Int64Array
from hemix.lab.simulator.choice_model import distance_km
from hemix.lab.simulator.city import City
from hemix.lab.simulator.spatial_index import NO_VENUE
from hemix.lab.simulator.state import Requests, VisitCounts
from hemix.lab.simulator.users import Users

__all__ = ["draw_favourites", "draw_from_lists", "draw_initial_visits", "recall_candidates"]

_FAVOURITE_CANDIDATES = 40
"""Venues near home, and near work, from which a user's favourites come."""


def draw_from_lists(lists: Int32Array, keys: draws.Keys) -> Int32Array:
    """Draw uniformly from the last axis of lists.

    Args:
        lists: Lists [..., width].
        keys: Keys [..., draws], one per draw.

    Returns:
        Drawn elements [..., draws].
    """
    position = (draws.uniform(keys) * lists.shape[-1]).astype(np.int64)
    return np.take_along_axis(lists, position, axis=-1)


def draw_favourites(city: City, users: Users, taste: Float32Array) -> Int32Array:
    """Draw favourites near home and work that suit the users' tastes.

    Args:
        city: City of the users.
        users: U users.
        taste: Long-term taste [U, categories] on the first simulated day.

    Returns:
        Indices [U, favourites] of venues, padded with NO_VENUE.
    """
    slot = np.arange(_FAVOURITE_CANDIDATES)
    nearby = []
    for location, x_km, y_km in (
        ("home", users.home_x_km, users.home_y_km),
        ("work", users.work_x_km, users.work_y_km),
    ):
        keys = draws.key(city.seed, f"favourites near {location}", users.index[:, None], slot)
        cell = city.spatial_index.cell_of(x_km, y_km)
        nearby.append(draw_from_lists(city.spatial_index.nearest[cell], keys))
    venues = np.sort(np.concatenate(nearby, axis=1), axis=1)

    w = city.parameters.click
    style = (users.style[:, None] * city.venues.style[venues]).sum(axis=-1) / np.sqrt(
        users.style.shape[1]
    )
    category_taste = taste[np.arange(len(users))[:, None], city.venues.category[venues]]
    liking = 2 * (w.taste * category_taste + w.style * style)
    liking = liking + w.quality * city.venues.quality[venues]
    liking = liking + draws.gumbel(draws.key(city.seed, "favourite", users.index[:, None], venues))
    is_duplicate = venues == np.roll(venues, 1, axis=1)
    liking[is_duplicate | (city.venues.opening_day[venues] >= 0)] = -np.inf
    best = np.argsort(-liking, axis=1, kind="stable")[:, : city.parameters.users.favourites]
    favourites = np.take_along_axis(venues, best, axis=1)
    favourites[np.take_along_axis(liking, best, axis=1) == -np.inf] = NO_VENUE
    return favourites


def draw_initial_visits(city: City, users: Users, favourites: Int32Array) -> VisitCounts:
    """Draw the visits to favourites before the first simulated day.

    Args:
        city: City of the users.
        users: U users.
        favourites: Indices [U, favourites] of venues.

    Returns:
        The users' visit counts.
    """
    visits = VisitCounts(city, users)
    keys = draws.key(
        city.seed, "early visits", users.index[:, None], np.arange(favourites.shape[1])
    )
    times = 1 + np.floor(draws.uniform(keys) * city.parameters.users.favourite_visits).astype(
        np.int64
    )
    row, slot = np.nonzero(favourites != NO_VENUE)
    visits.add(row, favourites[row, slot], times[row, slot])
    return visits


def recall_candidates(
    city: City,
    requests: Requests,
    taste: Float32Array,
    favourites: Int32Array,
    draw_count: int | None = None,
) -> Int32Array:
    """Draw the candidates of requests.

    Args:
        city: City of the venues.
        requests: n requests.
        taste: Long-term taste [U, categories] of all users on the requests' day.
        favourites: Favourites [U, favourites] of all users.
        draw_count: Draws per request, by default the city's; duplicates leave fewer candidates.

    Returns:
        Distinct venues [n, draw_count] in ascending order, with gaps of NO_VENUE.
    """
    r, index = city.parameters.recall, city.spatial_index
    draw_count = r.draws if draw_count is None else draw_count
    fractions = (r.of_intent, r.of_taste, r.of_popular, r.of_favourites)
    channel_sizes = [round(fraction * draw_count) for fraction in fractions]
    keys = draws.extend(
        draws.key(city.seed, "recall", requests.user_index[:, None], requests.number[:, None]),
        np.arange(draw_count),
    )
    intent_keys, taste_keys, popular_keys, favourite_keys, nearby_keys = np.split(
        keys, np.cumsum(channel_sizes), axis=1
    )
    cell = index.cell_of(requests.x_km, requests.y_km)
    venues = np.concatenate(
        [
            draw_from_lists(index.nearest_of_category[cell, requests.intent], intent_keys),
            _draw_by_taste(index.nearest_of_category, cell, taste[requests.user_row], taste_keys),
            draw_from_lists(index.popular[cell], popular_keys),
            draw_from_lists(favourites[requests.user_row], favourite_keys),
            draw_from_lists(index.nearest[cell], nearby_keys),
        ],
        axis=1,
    )
    venues.sort(axis=1)
    venues[:, 1:][venues[:, 1:] == venues[:, :-1]] = NO_VENUE
    is_far = distance_km(city, requests, venues) > r.radius_km
    venues[is_far | (city.venues.opening_day[venues] > requests.day)] = NO_VENUE
    return venues


def _draw_by_taste(
    nearest_of_category: Int32Array, cell: Int64Array, taste: Float32Array, keys: draws.Keys
) -> Int32Array:
    """Draw venues [n, draws] of categories in proportion to exp(taste [n, categories])."""
    cumulative = np.cumsum(np.exp(taste), axis=1)
    threshold = draws.uniform(draws.extend(keys, 1)) * cumulative[:, -1:]
    category = (threshold[:, :, None] > cumulative[:, None, :-1]).sum(axis=2)
    width = nearest_of_category.shape[2]
    position = (draws.uniform(keys) * width).astype(np.int64)
    venues: Int32Array = nearest_of_category[cell[:, None], category, position]
    return venues
