"""The split of the log into train, valid and test rows."""

from __future__ import annotations

import contextlib
import itertools
import math
from datetime import date, datetime
from typing import Any

from pydantic import ValidationInfo, field_validator, model_validator

from hemix.features.base import SchemaSection
from hemix.moments import moment_ms
from hemix.validation import InvalidKey

__all__ = ["Boundary", "Split", "check_split"]

Boundary = int | float | str


class Split(SchemaSection):
    """Boundaries of the splits.

    - ``start``: the first value of the train split; by default all rows before ``valid``
    - ``valid``: the first value of the validation split; rows before it are train
    - ``test``: the first value of the test split
    - ``end``: the first value that is in no split; by default all later rows are test

    On the clock column a boundary is a local date or time (``2026-01-15``, ``2026-01-15 06:00``) or
    a number in the clock's unit. On any other column it compares with the column's own values.
    """

    column: str | None = None
    """By default the clock."""
    start: Boundary | None = None
    valid: Boundary
    test: Boundary
    end: Boundary | None = None

    @field_validator("start", "valid", "test", "end", mode="before")
    @classmethod
    def _dates_as_text(cls, value: object, info: ValidationInfo) -> object:
        missing = value is None and info.field_name in ("valid", "test")
        nan = isinstance(value, float) and math.isnan(value)
        if missing or nan or isinstance(value, bool | list | dict):
            raise ValueError(f"expected a date, a time, a number or text, got {value!r}")
        return value.isoformat() if isinstance(value, date | datetime) else value

    @model_validator(mode="after")
    def _same_type(self) -> Split:
        for (low_name, low), (high_name, high) in itertools.pairwise(self.boundaries.items()):
            if isinstance(low, str) != isinstance(high, str):
                raise ValueError(
                    f"{low_name} and {high_name} must be of one kind, got {low!r} and {high!r}"
                )
        return self

    @property
    def boundaries(self) -> dict[str, Boundary]:
        """The boundaries that the schema gives, in ascending order, by name."""
        return {
            k: v for k in ("start", "valid", "test", "end") if (v := getattr(self, k)) is not None
        }


def check_split(split: Split, timezone: str) -> None:
    """Check that boundaries ascend: dates and times as moments, other text as text.

    Args:
        split: The boundaries.
        timezone: IANA name of the zone of dates and times without an offset.

    Raises:
        ValueError: A boundary is not above the one before it.
    """
    boundaries: dict[str, Any] = split.boundaries
    with contextlib.suppress(TypeError, ValueError):  # numbers, or text that is no date
        boundaries = {name: moment_ms(value, timezone) for name, value in boundaries.items()}
    for low, high in itertools.pairwise(boundaries):
        if not boundaries[low] < boundaries[high]:
            values = f"{getattr(split, low)!r} and {getattr(split, high)!r}"
            raise InvalidKey("split", f"expected {low} < {high}, got {values}")
