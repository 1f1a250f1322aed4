"""What a user does with a place in a moment: the probabilities of a click, and of an order once
clicked.

`perceive` looks up the factors (taste, intent, distance, ...); `click_logit` and `order_logit` are
plain sums over them. The same functions serve the logs and the live city. This module draws nothing
and knows nothing of how places were recalled or ranked.

Shapes: n moments (each of one user), k places a moment.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hemix.lab.simulator.city import HOUR_MS, City
from hemix.lab.simulator.parameters import ClickWeights, OrderWeights, Parameters
from hemix.lab.simulator.people import People

__all__ = [
    "Factors",
    "Memory",
    "Moment",
    "click_logit",
    "distance_km",
    "order_logit",
    "perceive",
    "probabilities",
    "sigmoid",
]

Array = npt.NDArray[np.float64] | npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_ENOUGH_VISITS = 6


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Some users at one step of their sessions; arrays [n]."""

    day: int
    number: Ints
    """Number of the step in the user's life (see sessions.moment_number): with the user it keys
    every draw.
    """
    row: Ints
    """Row of the user in People and Memory."""
    user: Ints
    """The user's number in the city."""
    time_ms: Ints
    x_km: npt.NDArray[np.float32]
    y_km: npt.NDArray[np.float32]
    category: Ints
    """The intent: the category wanted now."""
    mood: npt.NDArray[np.float32]
    """The other half of the intent: dearer (positive) or cheaper than the user's usual tier."""

    def __len__(self) -> int:
        return len(self.row)

    def take(self, rows: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Moment:
        """Some of the moments."""
        parts = {name: getattr(self, name)[rows] for name in _MOMENT_ARRAYS}
        return Moment(day=self.day, **parts)

    def at(self, *, number: Ints, time_ms: Ints) -> Moment:
        """The same users with the same intent at another step."""
        return replace(self, number=number, time_ms=time_ms)


_MOMENT_ARRAYS = ("number", "row", "user", "time_ms", "x_km", "y_km", "category", "mood")


class Memory:
    """Where users have ordered before today: [U, P] places and [U, chains].

    Today's orders count from tomorrow on.
    """

    def __init__(self, city: City, people: People) -> None:
        self._chain = city.places.chain
        self.visits = np.zeros((len(people), len(city.places)), dtype=np.uint8)
        self.chain_visits = np.zeros((len(people), city.parameters.places.chains), dtype=np.uint8)

    def add(self, row: Ints, place: npt.NDArray[np.integer], times: npt.ArrayLike = 1) -> None:
        """Users (by row) have been at places; pairs may repeat."""
        times = np.broadcast_to(np.asarray(times, dtype=np.int64), row.shape)
        _add_up(self.visits, row, place, times)
        chain = self._chain[place]
        branch = chain >= 0
        _add_up(self.chain_visits, row[branch], chain[branch], times[branch])


def _add_up(
    counts: npt.NDArray[np.uint8], row: Ints, column: npt.NDArray[np.integer], times: Ints
) -> None:
    cell, inverse = np.unique(row * counts.shape[1] + column, return_inverse=True)
    flat = counts.reshape(-1)
    total = flat[cell] + np.bincount(inverse, weights=times, minlength=len(cell))
    flat[cell] = np.minimum(total, 255).astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class Factors:
    """What speaks for or against a place; arrays [n, k] (or broadcastable)."""

    taste: Array
    """Long-term taste for the category, about standard normal."""
    style: Array
    """Agreement of the user's and the place's style, about standard normal."""
    intent_category: Array
    """1 where the place is of the category wanted now."""
    intent_group: Array
    """1 where it is of the same group (the category's own places too)."""
    distance_km: Array
    rain: bool
    price_gap: Array
    """Tiers between the place's price and the price wanted now, at most 3 either way."""
    quality: Array
    fame: Array
    visits: Array
    """Orders there before today."""
    chain_visits: Array
    hour: Array
    """How much the category is wanted in this hour (log)."""


def distance_km(
    city: City, moment: Moment, places: npt.NDArray[np.integer]
) -> npt.NDArray[np.float32]:
    """[n, k]: from where the user is to every place (-1 gives any number)."""
    east = city.places.x_km[places] - moment.x_km[:, None]
    north = city.places.y_km[places] - moment.y_km[:, None]
    distance: npt.NDArray[np.float32] = np.sqrt(east**2 + north**2)
    return distance


def perceive(
    city: City,
    people: People,
    taste: npt.NDArray[np.float32],
    memory: Memory,
    moment: Moment,
    places: npt.NDArray[np.integer],
) -> Factors:
    """The factors of ``places`` [n, k] (-1, a gap, gives any numbers) for the moments' users.

    ``taste`` is people.taste(day).
    """
    p = city.places
    row = moment.row[:, None]
    category = p.category[places]
    hour = ((moment.time_ms - city.day_start_ms(moment.day)) // HOUR_MS) % 24
    wanted_tier = people.tier[moment.row] + moment.mood
    group_of_category = _group_of_category(city.parameters)
    chain = p.chain[places]
    style = (people.style[row] * p.style[places]).sum(axis=-1) / np.float32(
        np.sqrt(p.style.shape[1])
    )
    return Factors(
        taste=taste[row, category],
        style=style,
        intent_category=(category == moment.category[:, None]).astype(np.float32),
        intent_group=(p.group[places] == group_of_category[moment.category][:, None]).astype(
            np.float32
        ),
        distance_km=distance_km(city, moment, places),
        rain=city.raining(moment.day),
        price_gap=np.clip(p.tier[places] - wanted_tier[:, None], -3.0, 3.0),
        quality=p.quality[places],
        fame=p.fame[places],
        visits=memory.visits[row, places].astype(np.float32),
        chain_visits=np.where(chain >= 0, memory.chain_visits[row, chain], 0).astype(np.float32),
        hour=city.hour_fit[category, hour[:, None]],
    )


def _group_of_category(parameters: Parameters) -> Ints:
    names = list(dict.fromkeys(c.group for c in parameters.categories))
    return np.array([names.index(c.group) for c in parameters.categories])


def _appeal(f: Factors, w: ClickWeights | OrderWeights) -> Array:
    distance = w.distance + (w.distance_rain if f.rain else 0.0)
    return (
        w.bias
        + w.taste * f.taste
        + w.style * f.style
        + w.intent_category * f.intent_category
        + w.intent_group * f.intent_group
        + distance * np.log1p(f.distance_km)
        + w.price * f.price_gap**2
        + w.quality * (f.quality - 0.5)
        + w.fame * f.fame
        + w.familiarity * np.log1p(np.minimum(f.visits, _ENOUGH_VISITS))
        + w.chain_familiarity * np.log1p(np.minimum(f.chain_visits, _ENOUGH_VISITS))
        + w.hour * f.hour
    )


def click_logit(factors: Factors, position: npt.ArrayLike, weights: ClickWeights) -> Array:
    """Log-odds of a click on places shown at ``position`` (0: the first)."""
    return _appeal(factors, weights) + weights.position * np.log1p(
        np.asarray(position, dtype=np.float64)
    )


def order_logit(factors: Factors, weights: OrderWeights) -> Array:
    """Log-odds of an order, once clicked."""
    return _appeal(factors, weights)


def sigmoid(logit: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """1 / (1 + exp(-logit)), in double precision."""
    probability: npt.NDArray[np.float64] = 1.0 / (
        1.0 + np.exp(-np.asarray(logit, dtype=np.float64))
    )
    return probability


def probabilities(
    factors: Factors, position: npt.ArrayLike, parameters: Parameters
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(p of a click at this position, p of an order given the click)."""
    return sigmoid(click_logit(factors, position, parameters.click)), sigmoid(
        order_logit(factors, parameters.order)
    )
