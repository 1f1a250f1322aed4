"""Coordinates: a point on Earth in degrees, and an end of a distance."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from hemix.data.arrow import pa
from hemix.data.raw_columns import RawColumn, Where, is_number, numbers_of
from hemix.features.base import (
    EncodedColumns,
    FeatureType,
    JsonCheck,
    Learned,
    Samples,
    StatePath,
    TensorColumns,
)
from hemix.features.json_values import degrees_problem
from hemix.features.registry import register_feature
from hemix.features.scaling import Scale, fit_scale

__all__ = ["CoordinateScales", "Coordinates"]

_MAX_DEGREES = (90.0, 180.0)
"""Of latitude and longitude, either way"""


@dataclass(frozen=True)
class CoordinateScales:
    """The scales of all coordinates features together, so that two points stay comparable."""

    latitude: Scale = field(default_factory=Scale)
    longitude: Scale = field(default_factory=Scale)


@register_feature
class Coordinates(FeatureType):
    """A point on Earth in degrees: standardised latitude and longitude, and 1 where missing.

    One mean and deviation serve all coordinates features.
    """

    levels: ClassVar[frozenset[str]] = frozenset({"user", "context", "item"})
    gives_coordinates: ClassVar[bool] = True

    type: Literal["coordinates"] = "coordinates"
    latitude: str
    longitude: str

    def columns(self, name: str) -> tuple[str, ...]:
        """Return the two raw columns."""
        return (self.latitude, self.longitude)

    # -- raw columns of a log ----------------------------------------------------------------------

    def expected_type(self, kind: pa.DataType) -> str | None:
        """Take integers, floats, decimals and booleans."""
        return None if is_number(kind) else "a number"

    def parse(self, columns: tuple[str, ...], values: list[pa.Array], where: Where) -> RawColumn:
        """Return float64 [rows, 2], NaN in both where one is missing.

        Args:
            columns: The names of latitude and longitude.
            values: Latitude and longitude in degrees, [rows] each.
            where: Where the rows come from, for messages.

        Raises:
            DataError: A value is outside the range of degrees; names row and column.
        """
        named = zip(columns, values, strict=True)
        degrees = np.stack([numbers_of(column, array, where) for column, array in named], axis=1)
        for i, limit in enumerate(_MAX_DEGREES):
            outside = np.abs(degrees[:, i]) > limit
            if outside.any():
                row = int(np.argmax(outside))
                expected = f"degrees from -{limit:g} to {limit:g}"
                actual = f"{degrees[row, i]:g}"
                raise where.error(row, columns[i], f"expected {expected}, found {actual}")
        degrees[np.isnan(degrees).any(axis=1)] = np.nan
        return degrees

    # -- JSON values -------------------------------------------------------------------------------

    def json_check(self, column_index: int) -> JsonCheck:
        """Take degrees of latitude (column 0) or longitude (1)."""
        limit = _MAX_DEGREES[column_index]
        return lambda value: degrees_problem(value, limit)

    def json_schema(self, column_index: int) -> dict[str, Any]:
        """Return the JSON schema of latitude (column 0) or longitude (1)."""
        limit = _MAX_DEGREES[column_index]
        return {"type": ["number", "null"], "minimum": -limit, "maximum": limit}

    def live_column(self, values: pa.Array, raw: RawColumn) -> pa.Array:
        """Return the degrees of one of the two columns.

        Args:
            values: The column as the log has it, [rows].
            raw: Not used.
        """
        return pa.array(numbers_of("degrees", values, Where("")), pa.float64(), from_pandas=True)

    # -- learning ----------------------------------------------------------------------------------

    def state_path(self, level: str, name: str) -> StatePath:
        """Return the state that all coordinates features share.

        Args:
            level: Not used.
            name: Not used.
        """
        return ("place",)

    def fit(self, samples: Samples) -> CoordinateScales:
        """Learn both scales; every feature counts alike."""
        scales = (
            fit_scale([(values[:, i], weights) for values, weights in samples if len(values)])
            for i in range(2)
        )
        return CoordinateScales(*scales)

    def state_to_json(self, state: Any) -> Any:
        """Return mean and deviation of the latitude, then of the longitude."""
        scales = (state.latitude, state.longitude)
        return [number for scale in scales for number in (scale.mean, scale.std)]

    def state_from_json(self, content: Any) -> CoordinateScales:
        """Invert :meth:`state_to_json`."""
        return CoordinateScales(Scale(*content[:2]), Scale(*content[2:]))

    # -- encoding ----------------------------------------------------------------------------------

    def tensor_columns(self) -> TensorColumns:
        """Return three numbers."""
        return TensorColumns(numbers=(".latitude", ".longitude", ".missing"))

    def encode(self, raw: RawColumn, learned: Learned, out: EncodedColumns) -> None:
        """Append both standardised numbers and the missing flag.

        Args:
            raw: Degrees float64 [rows, 2], NaN where missing.
            learned: The scales of latitude and longitude.
            out: Receives three numbers a row.
        """
        assert isinstance(raw, np.ndarray)
        scales: CoordinateScales = learned.state
        out.numbers.append(scales.latitude.apply(raw[:, 0]))
        out.numbers.append(scales.longitude.apply(raw[:, 1]))
        out.numbers.append(np.isnan(raw[:, 0]))
