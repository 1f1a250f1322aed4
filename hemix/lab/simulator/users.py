"""The users: homes, slowly drifting tastes, preferred prices, activity and times of day.

A property of a user is drawn by key (seed, property, user). It therefore depends neither on the
chunk in which the user is simulated nor on the number of users.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hemix.lab.simulator import draws
from hemix.lab.simulator.arrays import (
    BoolArray,
    Float32Array,
    Float64Array,
    Int32Array,
    Int64Array,
)
from hemix.lab.simulator.parameters import CityParameters
from hemix.lab.simulator.venues import Centres, clip_to_city, group_by_category

__all__ = ["PRICE_BANDS", "Users", "build_users"]

PRICE_BANDS = ("thrifty", "modest", "comfortable", "generous")
_PRICE_BAND_EDGES = (-0.8, 0.0, 0.8)


@dataclass(kw_only=True)
class Users:
    """U users as arrays [U]; other shapes are given where they differ."""

    parameters: CityParameters
    seed: int
    index: Int64Array
    """Indices of the users in the city; the first component of every key."""
    age: Int64Array
    """Indices into the parameters' age bands."""
    is_woman: BoolArray
    home_x_km: Float32Array
    home_y_km: Float32Array
    work_x_km: Float32Array
    work_y_km: Float32Array
    district: Int32Array
    price_tier: Float32Array
    """Preferred price tier. Hidden from the logs."""
    price_band: Int64Array
    """Noisy observation of the price tier, as an index into PRICE_BANDS."""
    style: Float32Array
    """[U, styles]. Hidden from the logs."""
    sessions_per_day: Float64Array
    weekend: Float64Array
    """Factor of the activity at the weekend."""
    rhythm: Float64Array
    """[U, times of day]: cumulative probabilities of the times at which the user opens the app."""
    mean_taste: Float64Array
    """[U, categories]: mean taste of the age band and gender; the user's own drifts around it."""
    _weekly_deviations: list[Float64Array] = field(default_factory=list)
    """Deviations [U, categories] from the mean taste, by week since the first simulated day."""

    def __len__(self) -> int:
        return len(self.index)

    def taste(self, day: int) -> Float32Array:
        """Return the long-term taste [U, categories] on a day; day 0 is the first logged one.

        The taste is a mean-reverting walk in weekly steps, interpolated linearly.
        """
        day_since_start = day + self.parameters.sessions.past_days
        week, week_progress = day_since_start // 7, (day_since_start % 7) / 7.0
        while len(self._weekly_deviations) < week + 2:
            self._weekly_deviations.append(self._next_deviation())
        return (
            self.mean_taste
            + (1 - week_progress) * self._weekly_deviations[week]
            + week_progress * self._weekly_deviations[week + 1]
        ).astype(np.float32)

    def _next_deviation(self) -> Float64Array:
        p = self.parameters
        week = len(self._weekly_deviations)
        group = group_by_category(p)
        user = self.index[:, None]
        of_group = draws.normal(
            draws.key(self.seed, "group taste", week, user, np.arange(group.max() + 1))
        )[:, group]
        of_category = draws.normal(
            draws.key(self.seed, "category taste", week, user, np.arange(len(group)))
        )
        step = p.users.taste_of_group * of_group + p.users.taste_of_category * of_category
        memory = p.users.taste_memory
        deviation: Float64Array = (
            memory * self._weekly_deviations[-1] + np.sqrt(1 - memory**2) * step if week else step
        )
        return deviation


def build_users(
    parameters: CityParameters, seed: int, index: npt.ArrayLike, *, centres: Centres
) -> Users:
    """Build users of a city.

    Args:
        parameters: Parameters of the city.
        seed: Seed of the city.
        index: Indices [U] of the users in the city.
        centres: Homes and workplaces lie around these.

    Returns:
        The users, in the order of ``index``.
    """
    p = parameters.users
    user = np.asarray(index, dtype=np.int64)

    def normal(purpose: str) -> Float64Array:
        return draws.normal(draws.key(seed, purpose, user))

    age = draws.choice(draws.key(seed, "age", user), [fraction for _, fraction in p.ages])
    is_woman = draws.uniform(draws.key(seed, "woman", user)) < 0.5
    home_centre = draws.choice(draws.key(seed, "home centre", user), np.sqrt(centres.weight))
    work_centre = draws.choice(draws.key(seed, "work centre", user), centres.weight**1.5)

    def coordinate(name: str, centre_km: Float32Array, spread_km: float) -> Float32Array:
        return clip_to_city(parameters, centre_km + spread_km * normal(name))

    home_x = coordinate("home x", centres.x_km[home_centre], p.home_spread_km)
    home_y = coordinate("home y", centres.y_km[home_centre], p.home_spread_km)
    tier = p.price_spread * normal("price tier") + 0.15 * (age - 1.5)
    observed_tier = tier + p.price_band_noise * normal("price band")
    # exp(s z - s^2 / 2) has mean 1
    activity = np.exp(p.activity_spread * normal("activity") - p.activity_spread**2 / 2)
    return Users(
        parameters=parameters,
        seed=seed,
        index=user,
        age=age,
        is_woman=is_woman,
        home_x_km=home_x,
        home_y_km=home_y,
        work_x_km=coordinate("work x", centres.x_km[work_centre], p.work_spread_km),
        work_y_km=coordinate("work y", centres.y_km[work_centre], p.work_spread_km),
        district=centres.nearest(home_x, home_y),
        price_tier=tier.astype(np.float32),
        price_band=np.searchsorted(_PRICE_BAND_EDGES, observed_tier),
        style=draws.normal(
            draws.key(seed, "user style", user[:, None], np.arange(parameters.venues.styles))
        ).astype(np.float32),
        sessions_per_day=p.sessions_per_day * activity,
        weekend=parameters.sessions.weekend * np.exp(p.weekend_spread * normal("weekend")),
        rhythm=_rhythm(parameters, seed, user),
        mean_taste=_mean_taste(parameters, seed, age, is_woman),
    )


def _rhythm(parameters: CityParameters, seed: int, user: Int64Array) -> Float64Array:
    """Draw the cumulative probabilities [U, times of day] of opening the app."""
    p = parameters.users
    time_of_day = np.arange(len(p.rhythm))
    weight = np.array([weight for _, _, weight in p.rhythm]) * np.exp(
        p.rhythm_spread * draws.normal(draws.key(seed, "rhythm", user[:, None], time_of_day))
    )
    cumulative: Float64Array = np.cumsum(weight, axis=1) / weight.sum(axis=1, keepdims=True)
    return cumulative


def _mean_taste(
    parameters: CityParameters, seed: int, age: Int64Array, is_woman: BoolArray
) -> Float64Array:
    """Draw the tastes of age bands and genders; returns those of the users [U, categories]."""
    p = parameters.users
    category = np.arange(len(parameters.categories))
    age_taste = draws.normal(
        draws.key(seed, "taste of age", np.arange(len(p.ages))[:, None], category)
    )
    gender_taste = draws.normal(draws.key(seed, "taste of gender", np.arange(2)[:, None], category))
    mean: Float64Array = p.taste_of_age * (age_taste[age] + gender_taste[is_woman.astype(np.int64)])
    return mean
