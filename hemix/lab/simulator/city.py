"""The city: map, venues, calendar and weather, independent of what users do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from hemix.errors import DataError
from hemix.formats import SavedFormat
from hemix.lab.simulator import draws
from hemix.lab.simulator.arrays import Float32Array, Int64Array
from hemix.lab.simulator.parameters import PARAMETERS, CityParameters
from hemix.lab.simulator.spatial_index import SpatialIndex, build_spatial_index
from hemix.lab.simulator.users import Users, build_users
from hemix.lab.simulator.venues import Centres, Venues, build_centres, build_venues

__all__ = ["CITY_FORMAT", "DAY_MS", "HOUR_MS", "City", "build_city"]

CITY_FORMAT = SavedFormat(version=1, error=DataError, remedy="simulate the logs again")
"""Of truth/city.json"""

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@dataclass(frozen=True, kw_only=True)
class City:
    """A city; the same parameters, seed, number of users and days give the same city."""

    parameters: CityParameters
    seed: int
    user_count: int
    days: int
    """Number of logged days."""
    centres: Centres
    venues: Venues
    spatial_index: SpatialIndex
    hourly_demand: Float32Array
    """[categories, 24]: log of a category's demand by hour, relative to its mean."""
    start_ms: int
    """Local midnight of day 0, in ms UTC."""

    def users(self, index: npt.ArrayLike) -> Users:
        """Build the users with these indices [U]."""
        return build_users(self.parameters, self.seed, index, centres=self.centres)

    def day_start_ms(self, day: int) -> int:
        """Return the local midnight of a day in ms UTC; the time zone has no summer time."""
        return self.start_ms + day * DAY_MS

    def hour_of_day(self, day: int, time_ms: Int64Array) -> Int64Array:
        """Return the local hours, 0 to 23, of times on a day.

        Args:
            day: The day on which the times lie.
            time_ms: Times in ms UTC.

        Returns:
            Hours in the shape of ``time_ms``.
        """
        return ((time_ms - self.day_start_ms(day)) // HOUR_MS) % 24

    def is_weekend(self, day: int) -> bool:
        """Return whether a day is a Saturday or Sunday."""
        return (date.fromisoformat(self.parameters.start_date).weekday() + day) % 7 >= 5

    def weather(self, day: int) -> int:
        """Return the weather of a day as an index into the parameters' weathers."""
        weights = [probability for _, probability in self.parameters.sessions.weather]
        return int(draws.choice(draws.key(self.seed, "weather", day), weights)[0])

    def is_raining(self, day: int) -> bool:
        """Return whether it rains on a day."""
        return self.parameters.sessions.weather[self.weather(day)][0] == "rain"


def build_city(users: int, days: int, seed: int, parameters: CityParameters = PARAMETERS) -> City:
    """Build a city.

    Args:
        users: Number of users; the number of venues grows with its square root.
        days: Number of logged days.
        seed: Seed of all random draws.
        parameters: Constants of the city.

    Returns:
        The city without its users, which :meth:`City.users` builds in chunks.
    """
    p = parameters.venues
    count = max(p.minimum, round(p.per_root_user * users**0.5))
    centres = build_centres(parameters, seed)
    venues = build_venues(parameters, seed, count=count, days=days, centres=centres)
    midnight = datetime.fromisoformat(parameters.start_date).replace(
        tzinfo=ZoneInfo(parameters.timezone)
    )
    return City(
        parameters=parameters,
        seed=seed,
        user_count=users,
        days=days,
        centres=centres,
        venues=venues,
        spatial_index=build_spatial_index(parameters, venues),
        hourly_demand=_hourly_demand(parameters),
        start_ms=int(midnight.timestamp()) * 1000,
    )


def _hourly_demand(parameters: CityParameters) -> Float32Array:
    hour = np.arange(24) + 0.5
    rows = []
    for category in parameters.categories:
        demand = np.full(24, 0.08)
        for peak, width in category.peaks:
            demand += np.exp(-0.5 * ((hour - peak) / width) ** 2)
        rows.append(np.log(demand / demand[7:23].mean()))
    return np.asarray(np.clip(rows, -2.0, 1.5), dtype=np.float32)
