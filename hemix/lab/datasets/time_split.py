"""A split by time for data sets that come as one file to train on and a later one to test on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hemix.errors import DataError

__all__ = ["FileTimes"]


@dataclass
class FileTimes:
    """First and last time of the impressions of a file, in the clock's unit."""

    path: Path
    first: int = field(default=np.iinfo(np.int64).max, init=False)
    last: int = field(default=np.iinfo(np.int64).min, init=False)

    def add(self, times: npt.NDArray[np.int64]) -> None:
        """Take in the times of some impressions, int64 [rows]."""
        if times.size:
            self.first = min(self.first, int(times.min()))
            self.last = max(self.last, int(times.max()))

    def boundaries(self, test: FileTimes, *, day: int) -> dict[str, int]:
        """Make the split: the second file tests, and the day before it validates.

        Args:
            test: The times of the second file.
            day: A day in the clock's unit.

        Returns:
            ``valid`` and ``test`` of the schema's split.

        Raises:
            DataError: A file is empty, they overlap, or the first has no row before the last day.
        """
        for times in (self, test):
            if times.first > times.last:
                raise DataError(
                    f"{times.path}: expected impressions, found no row",
                    code="no_rows",
                    field=str(times.path),
                )
        if not self.first < test.first - day <= self.last < test.first:
            raise DataError(
                f"{test.path}: expected impressions later than all of {self.path}, which begin "
                f"more than a day earlier; found {self.first} to {self.last}, then {test.first} to "
                f"{test.last}",
                code="wrong_times",
                field=str(test.path),
            )
        return {"valid": test.first - day, "test": test.first}
