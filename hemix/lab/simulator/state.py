"""What users choose from: their requests and their earlier orders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hemix.lab.simulator.arrays import (
    BoolArray,
    Float32Array,
    Int64Array,
    IntegerArray,
)
from hemix.lab.simulator.city import City
from hemix.lab.simulator.users import Users

__all__ = ["Requests", "VisitCounts"]


@dataclass(frozen=True, kw_only=True)
class Requests:
    """The n requests of one day as arrays [n].

    A session begins as its own first request, whose time is the session's start until the user has
    browsed.
    """

    day: int
    number: Int64Array
    """Number of the request in the user's life (see schedule.request_number); a component of
    every key.
    """
    user_row: Int64Array
    """Rows of the users in Users and VisitCounts."""
    user_index: Int64Array
    """Indices of the users in the city."""
    time_ms: Int64Array
    x_km: Float32Array
    y_km: Float32Array
    intent: Int64Array
    """Category that the user wants now."""
    price_shift: Float32Array
    """Tiers by which the wanted price is above the user's preferred one."""

    def __len__(self) -> int:
        return len(self.user_row)

    def select(self, rows: Int64Array | BoolArray) -> Requests:
        """Return the requests of these rows; rows may repeat."""
        columns = {name: getattr(self, name)[rows] for name in _REQUEST_COLUMNS}
        return Requests(day=self.day, **columns)


_REQUEST_COLUMNS = (
    "number",
    "user_row",
    "user_index",
    "time_ms",
    "x_km",
    "y_km",
    "intent",
    "price_shift",
)


class VisitCounts:
    """Count the orders of U users before today, by venue and by chain; at most 255 each."""

    def __init__(self, city: City, users: Users) -> None:
        self._chain = city.venues.chain
        self.by_venue = np.zeros((len(users), len(city.venues)), dtype=np.uint8)
        """[U, venues]"""
        self.by_chain = np.zeros((len(users), city.parameters.venues.chains), dtype=np.uint8)
        """[U, chains]"""

    def add(self, user_row: Int64Array, venue: IntegerArray, times: npt.ArrayLike = 1) -> None:
        """Add visits; pairs of user and venue may repeat.

        Args:
            user_row: Rows [n] of the users.
            venue: Indices [n] of the venues.
            times: Number of visits, broadcast to [n].
        """
        visits = np.broadcast_to(np.asarray(times, dtype=np.int64), user_row.shape)
        _add_counts(self.by_venue, user_row, venue, visits)
        chain = self._chain[venue]
        in_chain = chain >= 0
        _add_counts(self.by_chain, user_row[in_chain], chain[in_chain], visits[in_chain])


def _add_counts(
    counts: npt.NDArray[np.uint8], row: Int64Array, column: IntegerArray, increments: Int64Array
) -> None:
    position, inverse = np.unique(row * counts.shape[1] + column, return_inverse=True)
    flat = counts.reshape(-1)
    total = flat[position] + np.bincount(inverse, weights=increments, minlength=len(position))
    flat[position] = np.minimum(total, 255).astype(np.uint8)
