"""The events that the requests of a batch see, from which features of histories are computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["SeenEvents"]


@dataclass(frozen=True, kw_only=True)
class SeenEvents:
    """Users' events, and which of them each request sees."""

    event_ids: npt.NDArray[np.integer[Any]]
    """int [E, fields], the action first where the schema has one; known values have the ids 2, 3,
    ...
    """
    time_ms: npt.NDArray[np.int64]
    """int64 [E], ascending within a user"""
    history_ranges: npt.NDArray[np.int64]
    """int64 [Q, 3]: where the global range begins, where the real-time range begins, and where it
    ends, as positions among the events
    """
    request_time_ms: npt.NDArray[np.int64]
    """int64 [Q]"""

    @property
    def action_ids(self) -> npt.NDArray[np.integer[Any]]:
        """int [E], the first field; 0, unknown, where events have no fields."""
        if self.event_ids.shape[1]:
            return self.event_ids[:, 0]
        return np.zeros(len(self.event_ids), dtype=np.int32)
