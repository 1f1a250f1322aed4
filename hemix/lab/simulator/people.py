"""Users: homes, slowly drifting tastes, price fit, rhythm of the day, places to which they return.

Everything of user u is drawn by key (seed, property, u), so it depends neither on the chunk that u
is simulated in nor on how many users there are. This module knows nothing of sessions and of
choices.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hemix.lab.simulator import draws
from hemix.lab.simulator.parameters import Parameters
from hemix.lab.simulator.places import Centres, clip_to_city

__all__ = ["PRICE_BANDS", "People", "build_people"]

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

PRICE_BANDS = ("thrifty", "modest", "comfortable", "generous")


@dataclass(kw_only=True)
class People:
    """Some users, U of them; arrays [U] unless said otherwise."""

    parameters: Parameters
    seed: int
    number: Ints
    """The users' numbers in the city: the first part of every key."""
    age: Ints
    woman: npt.NDArray[np.bool_]
    home_x_km: Floats
    home_y_km: Floats
    work_x_km: Floats
    work_y_km: Floats
    district: npt.NDArray[np.int32]
    tier: Floats
    """Preferred price tier; hidden."""
    price_band: Ints
    """Index into PRICE_BANDS: the tier, noisily observed."""
    style: Floats
    """[U, styles]; hidden."""
    sessions_per_day: npt.NDArray[np.float64]
    weekend: npt.NDArray[np.float64]
    """Factor of the activity at the weekend."""
    rhythm: npt.NDArray[np.float64]
    """[U, times of the day]: cumulative shares."""
    mean_taste: npt.NDArray[np.float64]
    """[U, categories]: what the user's age and gender like; the user's own taste wanders around
    it.
    """
    _knots: list[npt.NDArray[np.float64]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.number)

    def taste(self, day: int) -> Floats:
        """[U, categories]: long-term taste on a day (0: first logged day).

        Weekly steps of a mean-reverting walk, joined by straight lines.
        """
        since = day + self.parameters.sessions.past_days
        week, share = since // 7, (since % 7) / 7.0
        while len(self._knots) < week + 2:
            self._knots.append(self._next_knot())
        return (
            self.mean_taste + (1 - share) * self._knots[week] + share * self._knots[week + 1]
        ).astype(np.float32)

    def _next_knot(self) -> npt.NDArray[np.float64]:
        p = self.parameters
        week = len(self._knots)
        groups = list(dict.fromkeys(c.group for c in p.categories))
        group_of = np.array([groups.index(c.group) for c in p.categories])
        users = self.number[:, None]
        of_group = draws.normal(
            draws.key(self.seed, "group taste", week, users, np.arange(len(groups)))
        )[:, group_of]
        of_category = draws.normal(
            draws.key(self.seed, "category taste", week, users, np.arange(len(p.categories)))
        )
        step = p.people.taste_of_group * of_group + p.people.taste_of_category * of_category
        memory = p.people.taste_memory
        knot: npt.NDArray[np.float64] = (
            memory * self._knots[-1] + np.sqrt(1 - memory**2) * step if week else step
        )
        return knot


def build_people(
    parameters: Parameters, seed: int, number: npt.ArrayLike, *, centres: Centres
) -> People:
    """The users with these numbers."""
    p = parameters.people
    user = np.asarray(number, dtype=np.int64)

    def normal(purpose: str) -> npt.NDArray[np.float64]:
        return draws.normal(draws.key(seed, purpose, user))

    age = draws.choice(draws.key(seed, "age", user), [share for _, share in p.ages])
    woman = draws.uniform(draws.key(seed, "woman", user)) < 0.5
    category = np.arange(len(parameters.categories))
    of_age = draws.normal(
        draws.key(seed, "taste of age", np.arange(len(p.ages))[:, None], category)
    )
    of_gender = draws.normal(draws.key(seed, "taste of gender", np.arange(2)[:, None], category))

    home_centre = draws.choice(draws.key(seed, "home centre", user), np.sqrt(centres.weight))
    work_centre = draws.choice(draws.key(seed, "work centre", user), centres.weight**1.5)
    home_x = clip_to_city(
        parameters, centres.x_km[home_centre] + p.home_spread_km * normal("home x")
    )
    home_y = clip_to_city(
        parameters, centres.y_km[home_centre] + p.home_spread_km * normal("home y")
    )

    tier = p.price_spread * normal("price tier") + 0.15 * (age - 1.5)
    observed = tier + p.price_band_noise * normal("price band")
    # exp(s z - s^2 / 2) has mean 1
    activity = np.exp(p.activity_spread * normal("activity") - p.activity_spread**2 / 2)
    hours = np.arange(len(p.rhythm))
    rhythm = np.array([w for _, _, w in p.rhythm]) * np.exp(
        p.rhythm_spread * draws.normal(draws.key(seed, "rhythm", user[:, None], hours))
    )
    return People(
        parameters=parameters,
        seed=seed,
        number=user,
        age=age,
        woman=woman,
        home_x_km=home_x,
        home_y_km=home_y,
        work_x_km=clip_to_city(
            parameters, centres.x_km[work_centre] + p.work_spread_km * normal("work x")
        ),
        work_y_km=clip_to_city(
            parameters, centres.y_km[work_centre] + p.work_spread_km * normal("work y")
        ),
        district=centres.nearest(home_x, home_y),
        tier=tier.astype(np.float32),
        price_band=np.searchsorted([-0.8, 0.0, 0.8], observed),
        style=draws.normal(
            draws.key(seed, "user style", user[:, None], np.arange(parameters.places.styles))
        ).astype(np.float32),
        sessions_per_day=p.sessions_per_day * activity,
        weekend=parameters.sessions.weekend * np.exp(p.weekend_spread * normal("weekend")),
        rhythm=np.cumsum(rhythm, axis=1) / rhythm.sum(axis=1, keepdims=True),
        mean_taste=p.taste_of_age * (of_age[age] + of_gender[woman.astype(np.int64)]),
    )
