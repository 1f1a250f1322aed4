"""Distances: great-circle kilometres between two coordinates features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from hemix.data.raw_columns import RawColumn
from hemix.data.spec import FIRST
from hemix.features.base import (
    EncodedColumns,
    FeatureType,
    Learned,
    RowContext,
    Samples,
    StatePath,
    TensorColumns,
)
from hemix.features.registry import register_feature
from hemix.features.scaling import bucket_ids, quantile_edges
from hemix.validation import InvalidKey

__all__ = ["Distance", "haversine_km"]

Array = npt.NDArray[Any]

_EARTH_RADIUS_KM = 6371.0088


@register_feature
class Distance(FeatureType):
    """Great-circle distance in km between two coordinates features, in quantile buckets."""

    levels: ClassVar[frozenset[str]] = frozenset({"cross"})

    type: Literal["distance"] = "distance"
    between: tuple[str, str]
    """Two references ``level.feature``, for instance ``[context.location, item.location]``."""
    buckets: Annotated[int, Field(ge=2, le=10_000)] = 32

    def columns(self, name: str) -> tuple[str, ...]:
        """Return none: it is computed."""
        return ()

    def inputs(self) -> tuple[str, ...]:
        """Return both ends."""
        return self.between

    def check(self, key: str, find: Callable[[str], FeatureType | None]) -> None:
        """Refuse ends that are no coordinates.

        Args:
            key: The feature's key in the schema, for messages.
            find: Returns a feature by ``level.name``; None for an unknown one.

        Raises:
            ValueError: Names the key and the end.
        """
        for end in self.between:
            feature = find(end)
            if feature is None or not feature.gives_coordinates:
                raise InvalidKey(
                    f"{key}.between", f"expected a coordinates feature as level.name, got {end!r}"
                )

    def compute(self, context: RowContext) -> RawColumn:
        """Return float64 [rows] km, NaN where an end is missing."""
        first, second = (context.coordinates.get(end) for end in self.between)
        if first is None or second is None:
            return np.full(context.rows, np.nan)
        return haversine_km(first, second)

    # -- learning ----------------------------------------------------------------------------------

    def state_path(self, level: str, name: str) -> StatePath:
        """Return the feature's own edges.

        Args:
            level: The feature's level.
            name: The feature's name.
        """
        return ("edges", f"{level}.{name}")

    def fit(self, samples: Samples) -> Array:
        """Learn the edges of the buckets."""
        ((values, weights),) = samples
        return quantile_edges(values, weights, self.buckets)

    def state_to_json(self, state: Any) -> Any:
        """Return the edges as a list."""
        return state.tolist()

    def state_from_json(self, content: Any) -> Array:
        """Return float64 edges."""
        return np.array(content, dtype=np.float64)

    # -- encoding ----------------------------------------------------------------------------------

    def tensor_columns(self) -> TensorColumns:
        """Return one id."""
        return TensorColumns(ids=True)

    def table_rows(self, learned: Learned) -> int:
        """Return the buckets, the unknown and the missing row."""
        return FIRST + 1 + len(learned.state)

    def encode(self, raw: RawColumn, learned: Learned, out: EncodedColumns) -> None:
        """Append the bucket.

        Args:
            raw: Distances float64 [rows], NaN where missing.
            learned: The edges of the buckets.
            out: Receives ids int32 [rows].
        """
        assert isinstance(raw, np.ndarray)
        out.ids.append(bucket_ids(learned.state, raw))


def haversine_km(a: Array, b: Array) -> Array:
    """Return great-circle distances in km.

    Args:
        a: float64 [rows, 2] latitude and longitude in degrees, or [2], the same for all rows. NaN
            where missing.
        b: The same.

    Returns:
        float64 [rows], NaN where an end is missing.
    """
    latitude_a, longitude_a = np.radians(a[..., 0]), np.radians(a[..., 1])
    latitude_b, longitude_b = np.radians(b[..., 0]), np.radians(b[..., 1])
    half = (
        np.sin((latitude_b - latitude_a) / 2) ** 2
        + np.cos(latitude_a) * np.cos(latitude_b) * np.sin((longitude_b - longitude_a) / 2) ** 2
    )
    km: Array = 2 * _EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.clip(half, 0.0, 1.0)))
    return km
