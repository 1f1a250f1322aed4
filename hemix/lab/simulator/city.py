"""The city: its map, places, neighbourhoods, calendar and weather; one per (parameters, seed,
number of users, days).

A neighbourhood answers "what is near here" by lists per square cell, made once. This module knows
nothing of sessions and of choices.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from hemix.errors import DataError
from hemix.formats import SavedFormat
from hemix.lab.simulator import draws
from hemix.lab.simulator.parameters import PARAMETERS, Parameters
from hemix.lab.simulator.people import People, build_people
from hemix.lab.simulator.places import Centres, Places, build_centres, build_places

__all__ = ["CITY_FORMAT", "DAY_MS", "HOUR_MS", "City", "Neighbourhood", "build_city"]

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

CITY_FORMAT = SavedFormat(version=1, error=DataError, remedy="simulate the logs again")
"""Of truth/city.json"""

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@dataclass(frozen=True, kw_only=True)
class Neighbourhood:
    """Places near every cell of the map, the nearest to the cell's middle first; K cells."""

    cells_a_side: int
    cell_km: float
    half_width_km: float
    near: Ints
    """[K, nearest]"""
    popular: Ints
    """[K, nearest_popular]: the most famous of them"""
    of_category: Ints
    """[K, categories, nearest_of_category]; -1 where a category has fewer"""

    def cell(self, x_km: npt.ArrayLike, y_km: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Cell of every point."""
        last = self.cells_a_side - 1
        column = np.clip(
            ((np.asarray(x_km) + self.half_width_km) / self.cell_km).astype(np.int64), 0, last
        )
        row = np.clip(
            ((np.asarray(y_km) + self.half_width_km) / self.cell_km).astype(np.int64), 0, last
        )
        return row * self.cells_a_side + column


@dataclass(frozen=True, kw_only=True)
class City:
    """Everything that does not depend on what users do."""

    parameters: Parameters
    seed: int
    users: int
    days: int
    centres: Centres
    places: Places
    neighbourhood: Neighbourhood
    hour_fit: Floats
    """[categories, 24]: log of how much more than on average a category is wanted in that hour."""
    start_ms: int
    """Local midnight of day 0, in ms UTC."""

    def people(self, number: npt.ArrayLike) -> People:
        """The users with these numbers."""
        return build_people(self.parameters, self.seed, number, centres=self.centres)

    def day_start_ms(self, day: int) -> int:
        """Local midnight of a day, in ms UTC (the city's zone has no summer time)."""
        return self.start_ms + day * DAY_MS

    def weekend(self, day: int) -> bool:
        """Whether a day is a Saturday or Sunday."""
        return (date.fromisoformat(self.parameters.start_date).weekday() + day) % 7 >= 5

    def weather(self, day: int) -> int:
        """Index into the parameters' weathers; one for the whole city and day."""
        weights = [share for _, share in self.parameters.sessions.weather]
        return int(draws.choice(draws.key(self.seed, "weather", day), weights)[0])

    def raining(self, day: int) -> bool:
        """Whether it rains on a day."""
        return self.parameters.sessions.weather[self.weather(day)][0] == "rain"


def build_city(users: int, days: int, seed: int, parameters: Parameters = PARAMETERS) -> City:
    """The city of a seed. Its number of places grows with the root of the number of users."""
    p = parameters.places
    count = max(p.minimum, round(p.per_root_user * users**0.5))
    centres = build_centres(parameters, seed)
    places = build_places(parameters, seed, count=count, days=days, centres=centres)
    midnight = datetime.fromisoformat(parameters.start_date).replace(
        tzinfo=ZoneInfo(parameters.timezone)
    )
    return City(
        parameters=parameters,
        seed=seed,
        users=users,
        days=days,
        centres=centres,
        places=places,
        neighbourhood=_neighbourhood(parameters, places),
        hour_fit=_hour_fit(parameters),
        start_ms=int(midnight.timestamp()) * 1000,
    )


def _hour_fit(parameters: Parameters) -> Floats:
    hour = np.arange(24) + 0.5
    rows = []
    for category in parameters.categories:
        wanted = np.full(24, 0.08)
        for peak, width in category.peaks:
            wanted += np.exp(-0.5 * ((hour - peak) / width) ** 2)
        rows.append(np.log(wanted / wanted[7:23].mean()))
    return np.asarray(np.clip(rows, -2.0, 1.5), dtype=np.float32)


def _neighbourhood(parameters: Parameters, places: Places) -> Neighbourhood:
    g, r = parameters.geography, parameters.recall
    side = int(np.ceil(2 * g.half_width_km / g.cell_km))
    middle = ((np.arange(side) + 0.5) * g.cell_km - g.half_width_km).astype(np.float32)
    x, y = np.tile(middle, side), np.repeat(middle, side)

    everything = np.arange(len(places), dtype=np.int32)
    near = _nearest(x, y, places, everything, r.nearest)
    famous = np.argsort(-places.fame[near], axis=1, kind="stable")[:, : r.nearest_popular]
    of_category = [
        _nearest(x, y, places, everything[places.category == c], r.nearest_of_category)
        for c in range(len(parameters.categories))
    ]
    return Neighbourhood(
        cells_a_side=side,
        cell_km=g.cell_km,
        half_width_km=g.half_width_km,
        near=near,
        popular=np.take_along_axis(near, famous, axis=1),
        of_category=np.stack(of_category, axis=1),
    )


def _nearest(x_km: Floats, y_km: Floats, places: Places, among: Ints, count: int) -> Ints:
    """[points, count]: the nearest of ``among`` to every point, nearest first, padded with -1."""
    found = np.full((len(x_km), count), -1, dtype=np.int32)
    kept = min(count, len(among))
    if not kept:
        return found
    for begin in range(0, len(x_km), 128):
        part = slice(begin, begin + 128)
        squared = (x_km[part, None] - places.x_km[among]) ** 2 + (
            y_km[part, None] - places.y_km[among]
        ) ** 2
        chosen = np.argpartition(squared, kept - 1, axis=1)[:, :kept]
        order = np.argsort(np.take_along_axis(squared, chosen, axis=1), axis=1, kind="stable")
        found[part, :kept] = among[np.take_along_axis(chosen, order, axis=1)]
    return found
