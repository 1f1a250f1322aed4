"""What an experiment measures, by user and day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hemix.lab.simulator.arrays import Float64Array, Int64Array

__all__ = ["MEASURES", "ArmResult", "DailyMeasures"]

MEASURES = ("shown", "clicks", "orders", "gmv", "requests", "sessions", "km", "new_places")
"""Sums by user and day: impressions, clicks, orders, their amount in yuan, requests, sessions,
distances of orders in km, and orders at venues that are new to the user.
"""

DailyMeasures = Mapping[str, Float64Array]
"""[users, days] by name of MEASURES"""


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """What users did in an arm, or in the pre-period."""

    users: Int64Array
    """Indices of the users in the city, ascending."""
    measures: DailyMeasures
    server_interval: tuple[float, float] | None = None
    """Start and end of the simulation with a server, in seconds since 1970."""
