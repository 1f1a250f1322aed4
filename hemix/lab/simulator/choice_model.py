"""The choice model: probabilities of a click, and of an order given a click.

`compute_factors` looks up what affects a choice; `click_logit` and `order_logit` are weighted sums
of these factors. Logged and live users share the functions. Shapes: n requests, k venues each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hemix.lab.simulator.arrays import Float32Array, Float64Array, IntegerArray
from hemix.lab.simulator.city import City
from hemix.lab.simulator.parameters import CityParameters, ClickWeights, OrderWeights
from hemix.lab.simulator.state import Requests, VisitCounts
from hemix.lab.simulator.users import Users
from hemix.lab.simulator.venues import group_by_category

__all__ = [
    "Factors",
    "choice_probabilities",
    "click_logit",
    "compute_factors",
    "distance_km",
    "order_logit",
    "sigmoid",
]

FloatArray = Float64Array | Float32Array

_MAX_VISITS = 6
"""More visits make a venue no more familiar."""

_MAX_PRICE_GAP = 3.0


@dataclass(frozen=True, kw_only=True)
class Factors:
    """What affects a choice, as arrays [n, k], or broadcastable to it."""

    taste: FloatArray
    """Long-term taste for the category, about standard normal."""
    style: FloatArray
    """Similarity of the user's and the venue's style, about standard normal."""
    intent_category: FloatArray
    """1 if the venue is of the intended category, else 0."""
    intent_group: FloatArray
    """1 if the venue's category is in the intended category's group, else 0."""
    distance_km: FloatArray
    rain: bool
    price_gap: FloatArray
    """Tiers between the venue's price and the wanted price, from -3 to 3."""
    quality: FloatArray
    fame: FloatArray
    visits: FloatArray
    """The user's orders there before today."""
    chain_visits: FloatArray
    """The user's orders at the venue's chain before today."""
    hourly_demand: FloatArray
    """Log of the category's demand in this hour, relative to its mean."""


def distance_km(city: City, requests: Requests, venues: IntegerArray) -> Float32Array:
    """Compute the distances from the users to venues.

    Args:
        city: City of the venues.
        requests: n requests with the users' coordinates.
        venues: Indices [n, k]; padding gives arbitrary numbers.

    Returns:
        Distances [n, k] in km.
    """
    east = city.venues.x_km[venues] - requests.x_km[:, None]
    north = city.venues.y_km[venues] - requests.y_km[:, None]
    distance: Float32Array = np.sqrt(east**2 + north**2)
    return distance


def compute_factors(
    city: City,
    users: Users,
    taste: Float32Array,
    visits: VisitCounts,
    requests: Requests,
    venues: IntegerArray,
) -> Factors:
    """Look up what affects the users' choices.

    Args:
        city: City of the venues.
        users: U users, to whose rows the requests refer.
        taste: Long-term taste [U, categories] on the requests' day.
        visits: Orders of the users before that day.
        requests: n requests.
        venues: Indices [n, k]; padding gives arbitrary numbers.

    Returns:
        The factors of every venue [n, k].
    """
    v = city.venues
    row = requests.user_row[:, None]
    category = v.category[venues]
    chain = v.chain[venues]
    hour = city.hour_of_day(requests.day, requests.time_ms)
    wanted_tier = users.price_tier[requests.user_row] + requests.price_shift
    intended_group = group_by_category(city.parameters)[requests.intent]
    style = (users.style[row] * v.style[venues]).sum(axis=-1) / np.float32(
        np.sqrt(v.style.shape[1])
    )
    price_gap = v.price_tier[venues] - wanted_tier[:, None]
    return Factors(
        taste=taste[row, category],
        style=style,
        intent_category=(category == requests.intent[:, None]).astype(np.float32),
        intent_group=(v.group[venues] == intended_group[:, None]).astype(np.float32),
        distance_km=distance_km(city, requests, venues),
        rain=city.is_raining(requests.day),
        price_gap=np.clip(price_gap, -_MAX_PRICE_GAP, _MAX_PRICE_GAP),
        quality=v.quality[venues],
        fame=v.fame[venues],
        visits=visits.by_venue[row, venues].astype(np.float32),
        chain_visits=np.where(chain >= 0, visits.by_chain[row, chain], 0).astype(np.float32),
        hourly_demand=city.hourly_demand[category, hour[:, None]],
    )


def _utility(f: Factors, w: ClickWeights | OrderWeights) -> FloatArray:
    distance_weight = w.distance + (w.distance_rain if f.rain else 0.0)
    return (
        w.bias
        + w.taste * f.taste
        + w.style * f.style
        + w.intent_category * f.intent_category
        + w.intent_group * f.intent_group
        + distance_weight * np.log1p(f.distance_km)
        + w.price * f.price_gap**2
        + w.quality * (f.quality - 0.5)
        + w.fame * f.fame
        + w.familiarity * np.log1p(np.minimum(f.visits, _MAX_VISITS))
        + w.chain_familiarity * np.log1p(np.minimum(f.chain_visits, _MAX_VISITS))
        + w.hour * f.hourly_demand
    )


def click_logit(factors: Factors, position: npt.ArrayLike, weights: ClickWeights) -> FloatArray:
    """Compute the log-odds of a click.

    Args:
        factors: Factors of n x k venues.
        position: Positions on the page, broadcast against [n, k]; the first is 0.
        weights: Weights of the factors.

    Returns:
        Log-odds [n, k].
    """
    return _utility(factors, weights) + weights.position * np.log1p(
        np.asarray(position, dtype=np.float64)
    )


def order_logit(factors: Factors, weights: OrderWeights) -> FloatArray:
    """Compute the log-odds of an order, given a click.

    Args:
        factors: Factors of n x k venues.
        weights: Weights of the factors.

    Returns:
        Log-odds [n, k].
    """
    return _utility(factors, weights)


def sigmoid(logit: npt.ArrayLike) -> Float64Array:
    """Compute 1 / (1 + exp(-logit)) in double precision."""
    probability: Float64Array = 1.0 / (1.0 + np.exp(-np.asarray(logit, dtype=np.float64)))
    return probability


def choice_probabilities(
    factors: Factors, position: npt.ArrayLike, parameters: CityParameters
) -> tuple[Float64Array, Float64Array]:
    """Compute the probabilities of clicks and orders.

    Args:
        factors: Factors of n x k venues.
        position: Positions on the page, broadcast against [n, k]; the first is 0.
        parameters: Parameters of the city.

    Returns:
        Probability of a click, and of an order given a click; [n, k] each.
    """
    return sigmoid(click_logit(factors, position, parameters.click)), sigmoid(
        order_logit(factors, parameters.order)
    )
