"""The day's schedule: when and where users open the app."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hemix.lab.simulator import draws
from hemix.lab.simulator.arrays import Float32Array, Float64Array, Int64Array
from hemix.lab.simulator.city import HOUR_MS, City
from hemix.lab.simulator.users import Users

__all__ = ["DaySchedule", "request_number", "schedule_day"]

_NUMBERS_PER_LEVEL = 8
"""The numbering allows this many sessions per day and requests per session."""


def request_number(city: City, day: int, session: npt.ArrayLike, request: int) -> Int64Array:
    """Number a request in the life of its user.

    Args:
        city: City of the user.
        day: Day of the request; day 0 is the first logged one.
        session: Sessions of the day, from 0.
        request: Request of the session, from 0.

    Returns:
        Non-negative numbers in the shape of ``session``.
    """
    day_since_start = day + city.parameters.sessions.past_days
    sessions = day_since_start * _NUMBERS_PER_LEVEL + np.asarray(session, dtype=np.int64)
    return sessions * _NUMBERS_PER_LEVEL + request


@dataclass(frozen=True, kw_only=True)
class DaySchedule:
    """The sessions of U users as arrays [U, sessions], valid below ``session_count``."""

    session_count: Int64Array
    """[U]"""
    start_ms: Int64Array
    x_km: Float32Array
    y_km: Float32Array


def schedule_day(city: City, users: Users, day: int) -> DaySchedule:
    """Draw the sessions of a day.

    Args:
        city: City of the users.
        users: U users.
        day: Day to schedule; day 0 is the first logged one.

    Returns:
        Times and coordinates of every user's sessions, in order of time.
    """
    maximum = city.parameters.sessions.maximum_a_day
    session = np.arange(maximum)
    keys = draws.key(city.seed, "plan", users.index[:, None], request_number(city, day, session, 0))
    activity = users.sessions_per_day * (users.weekend if city.is_weekend(day) else 1.0)
    count = draws.poisson(draws.key(city.seed, "sessions", users.index, day), activity, maximum)
    count, hour = _session_hours(city, users, count, keys)
    x_km, y_km = _session_coordinates(city, users, day, hour, keys)
    return DaySchedule(
        session_count=count,
        start_ms=city.day_start_ms(day) + np.round(hour * HOUR_MS).astype(np.int64),
        x_km=x_km,
        y_km=y_km,
    )


def _session_hours(
    city: City, users: Users, count: Int64Array, keys: draws.Keys
) -> tuple[Int64Array, Float64Array]:
    """Draw start hours [U, maximum] in ascending order; sessions after the last hour are dropped.

    Returns the number of sessions left [U], and the hours; those of unused slots are the last hour.
    """
    s = city.parameters.sessions
    slot = np.arange(keys.shape[1])
    time_of_day = (
        draws.uniform(draws.with_purpose(keys, "time of day"))[:, :, None]
        > users.rhythm[:, None, :-1]
    ).sum(axis=2)
    peak, width, _ = np.array(city.parameters.users.rhythm).T
    hour = np.clip(
        peak[time_of_day] + width[time_of_day] * draws.normal(draws.with_purpose(keys, "hour")),
        s.first_hour,
        s.last_hour,
    )
    hour[slot >= count[:, None]] = np.inf
    hour.sort(axis=1)
    for later in range(1, len(slot)):
        hour[:, later] = np.maximum(hour[:, later], hour[:, later - 1] + s.gap_minutes / 60)
    count = (hour <= s.last_hour).sum(axis=1)
    hour[slot >= count[:, None]] = s.last_hour
    return count, hour


def _session_coordinates(
    city: City, users: Users, day: int, hour: Float64Array, keys: draws.Keys
) -> tuple[Float32Array, Float32Array]:
    """Draw x and y [U, sessions] in km: at home, at work or near a random centre."""
    s = city.parameters.sessions
    working_hours = (not city.is_weekend(day)) & (hour >= 9) & (hour < 18)
    at_work = working_hours & (draws.uniform(draws.with_purpose(keys, "at work")) < s.at_work)
    elsewhere = draws.uniform(draws.with_purpose(keys, "elsewhere")) < s.elsewhere
    centre_keys = draws.with_purpose(keys, "which centre").reshape(-1)
    centre = draws.choice(centre_keys, city.centres.weight).reshape(hour.shape)
    spread = np.where(elsewhere, s.elsewhere_spread_km, s.jitter_km)
    edge = city.parameters.geography.half_width_km

    def coordinate(
        axis: str, centre_km: Float32Array, work_km: Float32Array, home_km: Float32Array
    ) -> Float32Array:
        base = np.where(
            elsewhere, centre_km[centre], np.where(at_work, work_km[:, None], home_km[:, None])
        )
        noise = spread * draws.normal(draws.with_purpose(keys, axis))
        return np.clip(base + noise, -edge, edge).astype(np.float32)

    return (
        coordinate("x", city.centres.x_km, users.work_x_km, users.home_x_km),
        coordinate("y", city.centres.y_km, users.work_y_km, users.home_y_km),
    )
