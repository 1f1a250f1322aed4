"""The map's centres and its venues: categories, chains, prices, qualities, styles and tags.

Coordinates are km east (x) and north (y) of the city's middle. A property of a venue is drawn by
key (seed, property, venue), so it does not depend on the number of venues.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hemix.lab.simulator import draws
from hemix.lab.simulator.arrays import Float32Array, Float64Array, Int32Array, Int64Array
from hemix.lab.simulator.parameters import CityParameters

__all__ = [
    "ALWAYS_OPEN",
    "KM_PER_DEGREE",
    "Centres",
    "Venues",
    "build_centres",
    "build_venues",
    "clip_to_city",
    "group_by_category",
    "to_degrees",
]

ALWAYS_OPEN = -(2**31)
"""Opening day of a venue that is open from the beginning."""

KM_PER_DEGREE = 6371.0088 * np.pi / 180.0
NO_CHAIN = -1
_NO_TAG = -1


@dataclass(frozen=True, kw_only=True)
class Centres:
    """The city's centres; a district is the area that is nearest to one of them."""

    x_km: Float32Array
    y_km: Float32Array
    weight: Float64Array
    """Sums to 1."""

    def nearest(self, x_km: npt.ArrayLike, y_km: npt.ArrayLike) -> Int32Array:
        """Find the nearest centre of every point.

        Args:
            x_km: Coordinates [n] east of the city's middle.
            y_km: Coordinates [n] north of it.

        Returns:
            Indices [n] of centres.
        """
        east = np.asarray(x_km)[:, None] - self.x_km
        north = np.asarray(y_km)[:, None] - self.y_km
        centre: Int32Array = np.argmin(east**2 + north**2, axis=1).astype(np.int32)
        return centre


@dataclass(frozen=True, kw_only=True)
class Venues:
    """V venues as arrays [V]; other shapes are given where they differ."""

    category: Int32Array
    group: Int32Array
    chain: Int32Array
    """-1 for an independent venue."""
    x_km: Float32Array
    y_km: Float32Array
    price_yuan: Float64Array
    price_tier: Float32Array
    """Price in standard deviations of the category's log price. Hidden from the logs."""
    quality: Float32Array
    """Between 0 and 1. Hidden from the logs."""
    rating: Float64Array
    """Noisy observation of the quality: 1 to 5, one decimal."""
    fame: Float32Array
    """About standard normal. Hidden from the logs."""
    reviews: Int64Array
    """Noisy observation of the fame."""
    style: Float32Array
    """[V, styles]. Hidden from the logs."""
    tags: Int32Array
    """[V, 3]: distinct tags, the strongest first; -1 for a missing third one."""
    opening_day: Int32Array
    """First day on which the venue is open; ALWAYS_OPEN for most."""

    def __len__(self) -> int:
        return len(self.category)


def to_degrees(
    parameters: CityParameters, x_km: Float32Array, y_km: Float32Array
) -> tuple[Float64Array, Float64Array]:
    """Convert coordinates to degrees.

    Args:
        parameters: Parameters of the city.
        x_km: Coordinates [n] east of the city's middle.
        y_km: Coordinates [n] north of it.

    Returns:
        Latitudes and longitudes [n], rounded to five decimals (about a metre).
    """
    geography = parameters.geography
    latitude = geography.latitude + np.asarray(y_km, dtype=np.float64) / KM_PER_DEGREE
    longitude = geography.longitude + np.asarray(x_km, dtype=np.float64) / (
        KM_PER_DEGREE * np.cos(np.radians(geography.latitude))
    )
    return np.round(latitude, 5), np.round(longitude, 5)


def clip_to_city(parameters: CityParameters, km: npt.ArrayLike) -> Float32Array:
    """Clip coordinates to the city's square.

    Args:
        parameters: Parameters of the city.
        km: Coordinates of any shape.

    Returns:
        Coordinates in the same shape.
    """
    edge = parameters.geography.half_width_km
    return np.clip(np.asarray(km, dtype=np.float32), -edge, edge)


def group_by_category(parameters: CityParameters) -> Int64Array:
    """Return the index of every category's group [categories]."""
    names = list(dict.fromkeys(category.group for category in parameters.categories))
    return np.array([names.index(category.group) for category in parameters.categories])


def build_centres(parameters: CityParameters, seed: int) -> Centres:
    """Build the centres of a city.

    Args:
        parameters: Parameters of the city.
        seed: Seed of the city.

    Returns:
        The centres, the largest first.
    """
    geography = parameters.geography
    index = np.arange(geography.centres)
    spread = np.where(index == 0, 0.0, geography.centre_spread_km)
    weight = (1.0 + index) ** -geography.centre_zipf
    return Centres(
        x_km=clip_to_city(parameters, draws.normal(draws.key(seed, "centre x", index)) * spread),
        y_km=clip_to_city(parameters, draws.normal(draws.key(seed, "centre y", index)) * spread),
        weight=weight / weight.sum(),
    )


def build_venues(
    parameters: CityParameters, seed: int, *, count: int, days: int, centres: Centres
) -> Venues:
    """Build the venues of a city.

    Args:
        parameters: Parameters of the city.
        seed: Seed of the city.
        count: Number of venues.
        days: Number of logged days; a fraction of the venues opens on one of them.
        centres: Most venues lie around one of these.

    Returns:
        ``count`` venues.
    """
    p = parameters.venues
    draw = _VenueDraws(seed, count)
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
    opens = draw.uniform("opens") < p.opening_fraction
    opening_day = np.where(opens, np.floor(draw.uniform("opening day") * days), ALWAYS_OPEN)
    median_price = np.array([c.price_yuan for c in parameters.categories])
    price = np.exp(np.log(median_price[category]) + p.price_spread * tier)
    return Venues(
        category=category.astype(np.int32),
        group=group_by_category(parameters).astype(np.int32)[category],
        chain=chain.astype(np.int32),
        x_km=clip_to_city(parameters, x_km),
        y_km=clip_to_city(parameters, y_km),
        price_yuan=np.maximum(np.round(price), 1.0),
        price_tier=tier.astype(np.float32),
        quality=quality.astype(np.float32),
        rating=np.clip(np.round(rating, 1), 1.0, 5.0),
        fame=fame.astype(np.float32),
        reviews=np.round(reviews).astype(np.int64),
        style=style.astype(np.float32),
        tags=_tags(parameters, seed, style),
        opening_day=opening_day.astype(np.int32),
    )


class _VenueDraws:
    """Draw one value per venue, by purpose."""

    def __init__(self, seed: int, count: int) -> None:
        self.seed, self.venue = seed, np.arange(count)

    def normal(self, purpose: str) -> Float64Array:
        """Standard normal values [venues]."""
        return draws.normal(draws.key(self.seed, purpose, self.venue))

    def uniform(self, purpose: str) -> Float64Array:
        """Uniform values [venues] on (0, 1)."""
        return draws.uniform(draws.key(self.seed, purpose, self.venue))

    def choice(self, purpose: str, weights: npt.ArrayLike) -> Int64Array:
        """Return indices [venues] into ``weights``.

        Args:
            purpose: The name of the draw, a part of its seed.
            weights: Non-negative weights [n]; they need not sum to 1.
        """
        return draws.choice(draws.key(self.seed, purpose, self.venue), weights)


def _chains(parameters: CityParameters, draw: _VenueDraws) -> tuple[Int64Array, Int64Array]:
    """Draw chain and category [venues]; a branch has its chain's category."""
    p = parameters.venues
    fractions = [category.fraction for category in parameters.categories]
    index = np.arange(p.chains)
    chain_category = draws.choice(draws.key(draw.seed, "chain category", index), fractions)
    chain_weight = (1.0 + index) ** -p.chain_zipf
    in_chain = draw.uniform("in a chain") < p.chain_fraction
    chain = np.where(in_chain, draw.choice("chain", chain_weight), NO_CHAIN)
    return chain, np.where(in_chain, chain_category[chain], draw.choice("category", fractions))


def _coordinates(
    parameters: CityParameters, draw: _VenueDraws, centres: Centres
) -> tuple[Float64Array, Float64Array]:
    """Draw x and y [venues] in km, near a centre or anywhere."""
    spread = parameters.venues.spread_km
    outside = draw.uniform("outside") < parameters.venues.outside_fraction
    # keys hash the purposes, so another spelling of "place" would move every venue
    centre = draw.choice("place centre", centres.weight)
    edge = parameters.geography.half_width_km * 0.85

    def coordinate(axis: str, centre_km: Float32Array) -> Float64Array:
        anywhere = (2 * draw.uniform(f"outside {axis}") - 1) * edge
        near_centre = centre_km[centre] + spread * draw.normal(f"place {axis}")
        return np.where(outside, anywhere, near_centre)

    return coordinate("x", centres.x_km), coordinate("y", centres.y_km)


def _styles(parameters: CityParameters, draw: _VenueDraws, chain: Int64Array) -> Float64Array:
    """Draw styles [venues, styles]; a branch mixes its own style with its chain's."""
    p = parameters.venues
    dimension = np.arange(p.styles)
    own_style = draws.normal(draws.key(draw.seed, "style", draw.venue[:, None], dimension))
    chain_index = np.arange(p.chains)[:, None]
    chain_style = draws.normal(draws.key(draw.seed, "chain style", chain_index, dimension))
    weight = p.chain_style
    mixed = np.sqrt(1 - weight**2) * own_style + weight * chain_style[chain]
    return np.where((chain != NO_CHAIN)[:, None], mixed, own_style)


def _tags(parameters: CityParameters, seed: int, style: Float64Array) -> Int32Array:
    """Draw the two or three tags [venues, 3] whose directions a venue's style follows most."""
    p = parameters.venues
    tag, venue = np.arange(p.tags), np.arange(len(style))
    direction = draws.normal(draws.key(seed, "tag", tag[:, None], np.arange(p.styles)))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    # a sum over a fixed axis: a matrix product's rounding could depend on the number of venues
    strength = np.stack([(style * d).sum(axis=1) for d in direction], axis=1)
    strength += p.tag_noise * draws.normal(draws.key(seed, "tag noise", venue[:, None], tag))
    strongest = np.argsort(-strength, axis=1, kind="stable")[:, :3].astype(np.int32)
    strongest[draws.uniform(draws.key(seed, "third tag", venue)) < 0.4, 2] = _NO_TAG
    return strongest
