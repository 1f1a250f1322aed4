"""Public protocols of KuaiRand: the days and the label of a comparison."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hemix.errors import DataError
from hemix.validation import unknown_name

__all__ = ["PROTOCOLS", "KuaiRandProtocol", "distinct_days", "find_protocol"]

Days = tuple[int, int]
"""First and last day, such as 20220408."""


@dataclass(frozen=True, kw_only=True)
class KuaiRandProtocol:
    """Days of the splits, both ends included, and the one label."""

    name: str
    label: str
    """A column of the log, as it is there"""
    train: Days
    valid: Days
    test: Days

    @property
    def boundaries(self) -> dict[str, int]:
        """The split of the schema, by the log's column ``date``."""
        return {
            "start": self.train[0],
            "valid": self.valid[0],
            "test": self.test[0],
            "end": self.test[1] + 1,
        }

    def without_test(self, impressions: pa.Table) -> pa.Table:
        """Drop the impressions of the test days and of later ones."""
        return impressions.filter(pc.less(impressions["date"], self.test[0]))

    def only_test(self, impressions: pa.Table) -> pa.Table:
        """Keep the impressions of the test days."""
        date = impressions["date"]
        inside = pc.and_(pc.greater_equal(date, self.test[0]), pc.less_equal(date, self.test[1]))
        return impressions.filter(inside)

    def check_days(self, dates: Iterable[int], source: Path) -> None:
        """Check that the first and the last day of every split have impressions.

        Args:
            dates: All days with impressions.
            source: The folder of the raw files.

        Raises:
            DataError: Naming the first absent day.
        """
        present = set(dates)
        for split in ("train", "valid", "test"):
            first, last = getattr(self, split)
            absent = [day for day in (first, last) if day not in present]
            if absent:
                raise DataError(
                    f"{source}: --protocol {self.name}: no impressions of {absent[0]}; {split} is "
                    f"{first} to {last}, and the files have {min(present)} to {max(present)}",
                    code="missing_days",
                    field="--protocol",
                    hint="import the official files, or leave --protocol out for other days",
                )


def distinct_days(impressions: pa.Table) -> set[int]:
    """The days of some impressions."""
    return set(np.unique(np.asarray(impressions["date"])).tolist())


PROTOCOLS = {
    "techjam": KuaiRandProtocol(
        name="techjam",
        label="long_view",
        train=(20220408, 20220421),
        valid=(20220422, 20220428),
        test=(20220429, 20220508),
    )
}
"""By name; docs/how-to/public-data.md describes them."""


def find_protocol(name: str | None) -> KuaiRandProtocol | None:
    """Return the protocol of a name, None for None. Raises UsageError for an unknown name."""
    if name is None:
        return None
    if name not in PROTOCOLS:
        raise unknown_name(
            f"import kuairand: --protocol {name}: unknown protocol", PROTOCOLS, "--protocol"
        )
    return PROTOCOLS[name]
