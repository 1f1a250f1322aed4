"""The kinds of features and how each becomes ids or numbers: what may stand under ``features`` and ``history.fields``.

Knows no level and no table; :mod:`hemix.schema` puts features in their places.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = [
    "MOST_ROWS",
    "Categorical",
    "ClockPart",
    "Coordinates",
    "Distance",
    "EventField",
    "Feature",
    "HashRows",
    "Numeric",
    "Part",
    "Statistic",
    "Vector",
    "Vocabulary",
]


MOST_ROWS = 2**31 - 3
"""Ids are int32, and the first two of every table stand for unknown and missing."""
_MOST_IN_LIST = 2**31 - 1
_MOST_IN_VECTOR = 1 << 20


class Part(BaseModel):
    """A part of a schema: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class Vocabulary(Part):
    """Ids for the values seen at least ``min_count`` times in the training data; all others share the unknown row."""

    min_count: Annotated[int, Field(ge=1)] = 2
    max_rows: Annotated[int, Field(ge=1, le=MOST_ROWS)] | None = None


class HashRows(Part):
    """Ids by xxh64 (UTF-8, seed 0) modulo ``rows``: no vocabulary to keep, some values share a row."""

    rows: Annotated[int, Field(ge=1, le=MOST_ROWS)]


class _Column(Part):
    column: str | None = None
    """Column of the table that the feature's level reads; by default the feature's own name."""

    def columns(self, name: str) -> tuple[str, ...]:
        """The raw columns that the feature ``name`` reads."""
        return (self.column or name,)


class Categorical(_Column):
    """One value, or with ``multi`` a list of values, out of a set."""

    type: Literal["categorical"] = "categorical"
    vocabulary: Vocabulary | None = None
    hash: HashRows | None = None
    multi: bool = False
    max_values: Annotated[int, Field(ge=1, le=_MOST_IN_LIST)] = 50
    """The first so many values of a list are used."""
    table: str | None = None
    """Features that name the same table share one vocabulary and one embedding table."""

    @model_validator(mode="before")
    @classmethod
    def _one_encoding(cls, value: Any) -> Any:
        if isinstance(value, dict):
            if value.get("vocabulary") is not None and value.get("hash") is not None:
                raise ValueError("expected one of vocabulary and hash, got both")
            if value.get("vocabulary") is None and value.get("hash") is None:
                value = {**value, "vocabulary": {}}
        return value


class Numeric(_Column):
    """One number: quantile buckets learned on the training rows, or standardised by their mean and deviation."""

    type: Literal["numeric"] = "numeric"
    encoding: Literal["quantile", "standardise"] = "quantile"
    buckets: Annotated[int, Field(ge=2, le=10_000)] = 32


class Vector(_Column):
    """A ready vector (a list column of fixed length), passed on as it is."""

    type: Literal["vector"] = "vector"
    size: Annotated[int, Field(ge=1, le=_MOST_IN_VECTOR)]


class Coordinates(Part):
    """A place on Earth in degrees: two standardised numbers, and an end of a distance."""

    type: Literal["coordinates"] = "coordinates"
    latitude: str
    longitude: str

    def columns(self, _name: str) -> tuple[str, ...]:
        """The raw columns that the feature reads."""
        return (self.latitude, self.longitude)


class Distance(Part):
    """Great-circle distance in km between two coordinates features, in quantile buckets."""

    type: Literal["distance"] = "distance"
    between: tuple[str, str]
    """Two references ``level.feature``, for instance ``[context.location, item.location]``."""
    buckets: Annotated[int, Field(ge=2, le=10_000)] = 32

    def columns(self, _name: str) -> tuple[str, ...]:
        """None: it is computed."""
        return ()


class ClockPart(Part):
    """A part of the local time of the request (context) or of the event (event field)."""

    type: Literal["clock"] = "clock"
    part: Literal["hour", "weekday", "hour_of_week"]

    @property
    def size(self) -> int:
        """How many values the part can take."""
        return {"hour": 24, "weekday": 7, "hour_of_week": 168}[self.part]

    def columns(self, _name: str) -> tuple[str, ...]:
        """None: it is computed."""
        return ()


class Statistic(Part):
    """A dated statistic: the smoothed rate of a label among the rows that share a key, and how many they are, both as known at the
    end of the day before the request's."""

    label: str
    by: Annotated[tuple[str, ...], Field(min_length=1)]
    """The parts of the key: ``user``, ``item`` (their ids), or ``level.feature`` of a feature with one id a row."""
    smoothing: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 20
    """So many rows of the label's overall rate are added to every key."""


Feature = Annotated[Categorical | Numeric | Vector | Coordinates | Distance | ClockPart, Field(discriminator="type")]
EventField = Annotated[Categorical | Numeric | ClockPart, Field(discriminator="type")]
