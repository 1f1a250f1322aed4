"""Which places come into question in a moment, and the policy that ranked them when the logs were
written.

Recall draws from several channels, as a recall stage does (what is wanted now, long-term taste, the
popular, the user's favourites, anything near), and keeps what is open and within the radius. The
logging policy knows fame, rating and distance only, and is noisy, so that the position is
confounded as in real logs. This module knows nothing of clicks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hemix.lab.simulator import draws
from hemix.lab.simulator.choice import Memory, Moment, distance_km
from hemix.lab.simulator.city import City
from hemix.lab.simulator.people import People

__all__ = ["find_favourites", "fresh_memory", "logging_policy", "pick", "recall", "show"]

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

NOWHERE = -1


def pick(lists: Ints, keys: draws.Keys) -> Ints:
    """One uniform draw a key from the lists [..., width] along the last axis, where the keys are
    [..., draws].
    """
    at = (draws.uniform(keys) * lists.shape[-1]).astype(np.int64)
    return np.take_along_axis(lists, at, axis=-1)


def find_favourites(city: City, people: People, taste: Floats) -> Ints:
    """[U, favourites]: places near home and work that suit the user's taste; -1 where there are too
    few.
    """
    width = 40
    slot = np.arange(width)
    pool = []
    for where, x, y in (
        ("home", people.home_x_km, people.home_y_km),
        ("work", people.work_x_km, people.work_y_km),
    ):
        keys = draws.key(city.seed, f"favourites near {where}", people.number[:, None], slot)
        pool.append(pick(city.neighbourhood.near[city.neighbourhood.cell(x, y)], keys))
    places = np.sort(np.concatenate(pool, axis=1), axis=1)
    w = city.parameters.click
    suits = (people.style[:, None] * city.places.style[places]).sum(axis=-1) / np.sqrt(
        people.style.shape[1]
    )
    liking = taste[np.arange(len(people))[:, None], city.places.category[places]]
    liking = 2 * (w.taste * liking + w.style * suits) + w.quality * city.places.quality[places]
    liking = liking + draws.gumbel(
        draws.key(city.seed, "favourite", people.number[:, None], places)
    )
    liking[
        (places == np.roll(places, 1, axis=1)) | (city.places.opening_day[places] >= 0)
    ] = -np.inf
    best = np.argsort(-liking, axis=1, kind="stable")[:, : city.parameters.people.favourites]
    found = np.take_along_axis(places, best, axis=1)
    found[np.take_along_axis(liking, best, axis=1) == -np.inf] = NOWHERE
    return found


def fresh_memory(city: City, people: People, favourites: Ints) -> Memory:
    """What users remember when the logs begin: some visits to their favourites."""
    memory = Memory(city, people)
    keys = draws.key(
        city.seed, "early visits", people.number[:, None], np.arange(favourites.shape[1])
    )
    times = 1 + np.floor(draws.uniform(keys) * city.parameters.people.favourite_visits).astype(
        np.int64
    )
    row, slot = np.nonzero(favourites != NOWHERE)
    memory.add(row, favourites[row, slot], times[row, slot])
    return memory


def recall(
    city: City, moment: Moment, taste: Floats, favourites: Ints, count: int | None = None
) -> Ints:
    """[n, count]: distinct places that are open and within the radius, in ascending order with gaps
    of -1.

    ``count`` draws are made (by default the parameters'), so the places are somewhat fewer.
    """
    r, near = city.parameters.recall, city.neighbourhood
    count = r.draws if count is None else count
    shares = (r.of_intent, r.of_taste, r.of_popular, r.of_favourites)
    intent, taste_, popular, favourite = (round(share * count) for share in shares)
    cell = near.cell(moment.x_km, moment.y_km)
    keys = draws.extend(
        draws.key(city.seed, "recall", moment.user[:, None], moment.number[:, None]),
        np.arange(count),
    )
    parts = np.split(keys, np.cumsum([intent, taste_, popular, favourite]), axis=1)

    # a category of the long-term taste for every draw of that channel, proportional to exp(taste)
    wanted = np.cumsum(np.exp(taste[moment.row]), axis=1)
    drawn = draws.uniform(draws.extend(parts[1], 1)) * wanted[:, -1:]
    category = (drawn[:, :, None] > wanted[:, None, :-1]).sum(axis=2)
    of_taste = near.of_category[
        cell[:, None],
        category,
        (draws.uniform(parts[1]) * near.of_category.shape[2]).astype(np.int64),
    ]

    places = np.concatenate(
        [
            pick(near.of_category[cell, moment.category], parts[0]),
            of_taste,
            pick(near.popular[cell], parts[2]),
            pick(favourites[moment.row], parts[3]),
            pick(near.near[cell], parts[4]),
        ],
        axis=1,
    )
    places.sort(axis=1)
    places[:, 1:][places[:, 1:] == places[:, :-1]] = NOWHERE
    far = distance_km(city, moment, places) > r.radius_km
    places[far | (city.places.opening_day[places] > moment.day)] = NOWHERE
    return places


def logging_policy(city: City, moment: Moment, places: Ints) -> npt.NDArray[np.float64]:
    """[n, k]: the score by which the logs were ranked; -inf for a gap."""
    r, p = city.parameters.recall, city.places
    keys = draws.key(city.seed, "policy", moment.user[:, None], moment.number[:, None])
    score = (
        r.policy_fame * p.fame[places]
        + r.policy_rating * p.rating[places]
        - r.policy_distance * np.log1p(distance_km(city, moment, places))
        + r.policy_noise * draws.gumbel(draws.extend(keys, places))
    )
    return np.where(places == NOWHERE, -np.inf, score)


def show(places: Ints, score: npt.NDArray[np.float64], page: int) -> Ints:
    """[n, page]: the places of the highest scores, best first; -1 after the last."""
    page = min(page, places.shape[1])
    best = np.argpartition(-score, page - 1, axis=1)[:, :page]
    order = np.argsort(-np.take_along_axis(score, best, axis=1), axis=1, kind="stable")
    return np.take_along_axis(places, np.take_along_axis(best, order, axis=1), axis=1)
