"""The user rows of a batch: versions of users' features, each with the events that are seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hemix.data.jagged_array import offsets_of
from hemix.data.partitioned import PartitionedRows, Pieces

__all__ = ["UserRows"]

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class UserRows:
    """One row for each version of a user's features, with all events that any of its requests
    sees, and another one where requests see the version masked.
    """

    pieces: Pieces
    """[R]: the versions"""
    user_index: Int64Array
    """int64 [Q] -> user rows"""
    events: Pieces
    """[E]: the events of all rows"""
    event_offsets: Int64Array
    """int64 [R + 1]"""
    history_ranges: Int64Array
    """int64 [Q, 3]: what each request sees, positions among the batch's events"""
    is_masked: npt.NDArray[np.bool_]
    """bool [R]"""

    @classmethod
    def of(
        cls,
        requested: Pieces,
        numbering: PartitionedRows,
        ranges: Int64Array,
        masked: npt.NDArray[np.bool_] | None = None,
    ) -> UserRows:
        """Find the user rows of requests.

        Args:
            requested: [Q], the version of each request's user.
            numbering: Of the versions.
            ranges: int64 [Q, 3], what each request sees, positions among its partition's events.
            masked: bool [Q], whose user's features are masked; None: no one's.
        """
        numbers = numbering.numbers(requested)
        keys = 2 * numbers + (0 if masked is None else masked)
        distinct, user_index = np.unique(keys, return_inverse=True)
        begin = np.full(len(distinct), np.iinfo(np.int64).max)
        end = np.zeros(len(distinct), dtype=np.int64)
        np.minimum.at(begin, user_index, ranges[:, 0])
        np.maximum.at(end, user_index, ranges[:, 2])
        pieces, lengths = numbering.pieces(distinct // 2), end - begin
        event_offsets = offsets_of(lengths)
        shift = (event_offsets[:-1] - begin)[user_index]
        return cls(
            pieces=pieces,
            user_index=user_index,
            events=pieces.ranges(begin, lengths),
            event_offsets=event_offsets,
            history_ranges=ranges + shift[:, None],
            is_masked=distinct % 2 == 1,
        )
