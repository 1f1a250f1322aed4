"""The map and the places on it: centres, categories, chains, prices, qualities, hidden styles,
tags.

Positions are km east (x) and north (y) of the city's middle. Every property of place p is drawn by
key (seed, property, p), so it does not depend on how many places there are. This module knows
nothing of users and of choices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hemix.lab.simulator import draws
from hemix.lab.simulator.parameters import Parameters

__all__ = [
    "ALWAYS_OPEN",
    "KM_PER_DEGREE",
    "Centres",
    "Places",
    "build_centres",
    "build_places",
    "to_degrees",
]

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]
Ints = npt.NDArray[np.int32]

ALWAYS_OPEN = -(2**31)
"""Opening day of a place that was there from the beginning."""

KM_PER_DEGREE = 6371.0088 * np.pi / 180.0
NO_CHAIN = -1


@dataclass(frozen=True, kw_only=True)
class Centres:
    """The city's centres. C of them; a district is what lies nearest to one."""

    x_km: Floats
    y_km: Floats
    weight: npt.NDArray[np.float64]

    def nearest(self, x_km: npt.ArrayLike, y_km: npt.ArrayLike) -> Ints:
        """Number of the nearest centre of every point [n]."""
        east = np.asarray(x_km)[:, None] - self.x_km
        north = np.asarray(y_km)[:, None] - self.y_km
        found: Ints = np.argmin(east**2 + north**2, axis=1).astype(np.int32)
        return found


@dataclass(frozen=True, kw_only=True)
class Places:
    """All places, P of them; arrays [P] unless said otherwise."""

    category: Ints
    group: Ints
    chain: Ints
    """-1: independent."""
    x_km: Floats
    y_km: Floats
    price_yuan: npt.NDArray[np.float64]
    tier: Floats
    """The price in standard deviations of the category's log price: hidden, comparable between
    categories.
    """
    quality: Floats
    """In (0, 1); hidden."""
    rating: npt.NDArray[np.float64]
    """1 to 5, one decimal: the quality, noisily observed."""
    fame: Floats
    """About standard normal; hidden."""
    reviews: npt.NDArray[np.int64]
    """The fame, noisily observed."""
    style: Floats
    """[P, styles]; hidden."""
    tags: Ints
    """[P, 3]: distinct tags, the strongest first; -1: no third one."""
    opening_day: Ints
    """First day on which it is open; ALWAYS_OPEN for most."""

    def __len__(self) -> int:
        return len(self.category)


def to_degrees(
    parameters: Parameters, x_km: Floats, y_km: Floats
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(latitude, longitude) in degrees, five decimals (about a metre)."""
    g = parameters.geography
    latitude = g.latitude + np.asarray(y_km, dtype=np.float64) / KM_PER_DEGREE
    longitude = g.longitude + np.asarray(x_km, dtype=np.float64) / (
        KM_PER_DEGREE * np.cos(np.radians(g.latitude))
    )
    return np.round(latitude, 5), np.round(longitude, 5)


def clip_to_city(parameters: Parameters, km: npt.ArrayLike) -> Floats:
    """Coordinates that stay within the city's square."""
    edge = parameters.geography.half_width_km
    return np.clip(np.asarray(km, dtype=np.float32), -edge, edge)


def build_centres(parameters: Parameters, seed: int) -> Centres:
    """The centres of the city of this seed."""
    g = parameters.geography
    number = np.arange(g.centres)
    spread = np.where(number == 0, 0.0, g.centre_spread_km)
    weight = (1.0 + number) ** -g.centre_zipf
    return Centres(
        x_km=clip_to_city(parameters, draws.normal(draws.key(seed, "centre x", number)) * spread),
        y_km=clip_to_city(parameters, draws.normal(draws.key(seed, "centre y", number)) * spread),
        weight=weight / weight.sum(),
    )


def build_places(
    parameters: Parameters, seed: int, *, count: int, days: int, centres: Centres
) -> Places:
    """Make the places of a city.

    Args:
        parameters: Of the city.
        seed: Of all random values.
        count: How many places.
        days: A fraction of the places opens on one of so many logged days.
        centres: Where the city is dense.
    """
    p = parameters.places
    draw = _Draws(seed, count)
    chain, category = _chains(parameters, draw)
    in_chain = chain != NO_CHAIN
    x_km, y_km = _coordinates(parameters, draw, centres)

    tier = draw.normal("tier")
    chain_tier = draws.normal(draws.key(seed, "chain tier", np.arange(p.chains)))
    tier = np.where(in_chain, 0.4 * tier + 0.7 * chain_tier[chain], tier)
    quality_z = p.quality_of_price * tier + p.quality_spread * draw.normal("quality")
    quality = 1.0 / (1.0 + np.exp(-quality_z))
    fame = p.fame_of_quality * quality_z + 0.8 * draw.normal("fame") + p.fame_of_chain * in_chain
    rating = 1.6 + 3.2 * quality + p.rating_noise * draw.normal("rating")
    log_reviews = np.log(p.reviews_median) + p.reviews_of_fame * fame
    reviews = np.exp(log_reviews + p.reviews_noise * draw.normal("reviews"))

    style = _styles(parameters, draw, chain)
    opens = draw.uniform("opens") < p.opening_share
    opening_day = np.where(opens, np.floor(draw.uniform("opening day") * days), ALWAYS_OPEN)
    names = list(dict.fromkeys(c.group for c in parameters.categories))
    group_of = np.array([names.index(c.group) for c in parameters.categories], dtype=np.int32)
    median = np.array([c.price_yuan for c in parameters.categories])
    price = np.exp(np.log(median[category]) + p.price_spread * tier)
    return Places(
        category=category.astype(np.int32),
        group=group_of[category],
        chain=chain.astype(np.int32),
        x_km=clip_to_city(parameters, x_km),
        y_km=clip_to_city(parameters, y_km),
        price_yuan=np.maximum(np.round(price), 1.0),
        tier=tier.astype(np.float32),
        quality=quality.astype(np.float32),
        rating=np.clip(np.round(rating, 1), 1.0, 5.0),
        fame=fame.astype(np.float32),
        reviews=np.round(reviews).astype(np.int64),
        style=style.astype(np.float32),
        tags=_tags(parameters, seed, style),
        opening_day=opening_day.astype(np.int32),
    )


class _Draws:
    """Random values of every place, by what they are for."""

    def __init__(self, seed: int, count: int) -> None:
        self.seed, self.number = seed, np.arange(count)

    def normal(self, purpose: str) -> Doubles:
        """float64 [places]."""
        return draws.normal(draws.key(self.seed, purpose, self.number))

    def uniform(self, purpose: str) -> Doubles:
        """float64 [places]."""
        return draws.uniform(draws.key(self.seed, purpose, self.number))

    def choice(self, purpose: str, weights: npt.ArrayLike) -> Numbers:
        """int64 [places]: positions in ``weights``."""
        return draws.choice(draws.key(self.seed, purpose, self.number), weights)


def _chains(parameters: Parameters, draw: _Draws) -> tuple[Numbers, Numbers]:
    """Chain and category [places]; a branch takes its chain's category."""
    p = parameters.places
    shares = [c.share for c in parameters.categories]
    chain_number = np.arange(p.chains)
    chain_category = draws.choice(draws.key(draw.seed, "chain category", chain_number), shares)
    chain_weight = (1.0 + chain_number) ** -p.chain_zipf
    in_chain = draw.uniform("in a chain") < p.chain_share
    chain = np.where(in_chain, draw.choice("chain", chain_weight), NO_CHAIN)
    return chain, np.where(in_chain, chain_category[chain], draw.choice("category", shares))


def _coordinates(parameters: Parameters, draw: _Draws, centres: Centres) -> tuple[Doubles, Doubles]:
    """x and y [places] in km, near a centre or anywhere."""
    spread = parameters.places.spread_km
    anywhere = draw.uniform("outside") < parameters.places.outside_share
    centre = draw.choice("place centre", centres.weight)
    edge = parameters.geography.half_width_km * 0.85

    def along(axis: str, centre_km: Floats) -> Doubles:
        far = (2 * draw.uniform(f"outside {axis}") - 1) * edge
        return np.where(anywhere, far, centre_km[centre] + spread * draw.normal(f"place {axis}"))

    return along("x", centres.x_km), along("y", centres.y_km)


def _styles(parameters: Parameters, draw: _Draws, chain: Numbers) -> Doubles:
    """[places, styles]; a branch takes much of its chain's style."""
    p = parameters.places
    dimension = np.arange(p.styles)
    own = draws.normal(draws.key(draw.seed, "style", draw.number[:, None], dimension))
    chain_number = np.arange(p.chains)[:, None]
    of_chains = draws.normal(draws.key(draw.seed, "chain style", chain_number, dimension))
    weight = p.chain_style
    mixed = np.sqrt(1 - weight**2) * own + weight * of_chains[chain]
    return np.where((chain != NO_CHAIN)[:, None], mixed, own)


def _tags(parameters: Parameters, seed: int, style: npt.NDArray[np.float64]) -> Ints:
    """The two or three tags whose direction a place's style follows most, noisily."""
    p = parameters.places
    tag, number = np.arange(p.tags), np.arange(len(style))
    direction = draws.normal(draws.key(seed, "tag", tag[:, None], np.arange(p.styles)))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    # a sum over a fixed axis, not a matrix product, whose rounding could depend on the number of
    # places
    strength = np.stack([(style * d).sum(axis=1) for d in direction], axis=1)
    strength += p.tag_noise * draws.normal(draws.key(seed, "tag noise", number[:, None], tag))
    strongest = np.argsort(-strength, axis=1, kind="stable")[:, :3].astype(np.int32)
    strongest[draws.uniform(draws.key(seed, "third tag", number)) < 0.4, 2] = -1
    return strongest
