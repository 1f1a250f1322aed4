"""Number columns computed from the events that requests see, for the loader and the server."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.features.history_counts import history_counts
from hemix.features.match_counter import MatchCounter
from hemix.features.match_index import MatchIndex, MatchKeys
from hemix.features.seen_events import SeenEvents

__all__ = ["HistoryNumbers"]


class HistoryNumbers:
    """History counts and match counts, in the order in which a schema's spec has them."""

    def __init__(self, actions: int | None, matches: MatchCounter | None) -> None:
        """Prepare to compute.

        Args:
            actions: How many actions the history counts tell apart; None: no history counts.
            matches: Counts matches; None: no match counts.
        """
        self._actions, self.matches = actions, matches

    def context(self, seen: SeenEvents, index: MatchIndex | None) -> npt.NDArray[np.float32]:
        """Compute the numbers of requests.

        Args:
            seen: The events.
            index: The same events, sorted to count matches; None without match counts.

        Returns:
            float32 [Q, numbers].
        """
        columns = [np.zeros((len(seen.history_ranges), 0), dtype=np.float32)]
        if self._actions is not None:
            columns.append(history_counts(seen.history_ranges, seen.action_ids, self._actions))
        if self.matches is not None and index is not None:
            columns.append(self.matches.totals(index, seen))
        return np.concatenate(columns, axis=1)

    def cross(
        self,
        seen: SeenEvents,
        index: MatchIndex | None,
        candidate_keys: MatchKeys,
        request_index: npt.NDArray[np.integer[Any]],
    ) -> npt.NDArray[np.float32]:
        """Compute the numbers of candidates.

        Args:
            seen: The events.
            index: The same events, sorted to count matches; None without match counts.
            candidate_keys: The candidates' keys [N] in the compared columns.
            request_index: int [N], the request of every candidate.

        Returns:
            float32 [N, numbers].
        """
        if self.matches is None or index is None:
            return np.zeros((len(request_index), 0), dtype=np.float32)
        return self.matches.numbers(index, seen, candidate_keys, request_index)
