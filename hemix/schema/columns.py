"""Tables, clock, features and roles: which column of which table means what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BeforeValidator, Field, SerializeAsAny, field_validator

from hemix.features.base import LEVELS, MAX_TABLE_ROWS, FeatureType, SchemaSection
from hemix.features.registry import parse_feature

__all__ = ["Bias", "Clock", "Feature", "Features", "Roles", "Tables"]

Feature = Annotated[SerializeAsAny[FeatureType], BeforeValidator(parse_feature)]
"""A feature of any registered type."""


class Clock(SchemaSection):
    """The column with the time of an impression or an event."""

    column: str = "time_ms"
    unit: Literal["s", "ms", "us", "ns"] = "ms"
    timezone: str = "UTC"
    """IANA name. Days begin at midnight of this zone, and hours of the day are its hours."""

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(
                f"expected an IANA time zone such as Asia/Shanghai, got {value!r}"
            ) from error
        return value

    @property
    def per_second(self) -> int:
        """Units of the clock column in a second."""
        return {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}[self.unit]


class Tables(SchemaSection):
    """Paths of the logs, relative to the schema file: a Parquet file or a folder of Parquet files
    each.
    """

    impressions: str = "impressions.parquet"
    events: str | None = None
    items: str | None = None
    users: str | None = None
    truth: str | None = None
    """True probabilities of a simulation, in the rows' order of the impressions. Only the
    evaluation reads them.
    """


class Features(SchemaSection):
    """The features of each level.

    User and item features are columns of the user and item tables; the id itself always is one.
    Context and cross features are columns of the impression log.
    """

    user: dict[str, Feature] = {}
    context: dict[str, Feature] = {}
    item: dict[str, Feature] = {}
    cross: dict[str, Feature] = {}

    def level(self, name: str) -> Mapping[str, FeatureType]:
        """Return the features of a level in the order of the schema."""
        features: Mapping[str, FeatureType] = getattr(self, name)
        return features

    def find(self, reference: str) -> FeatureType | None:
        """Return the feature of a reference ``level.name``, or None if there is none."""
        level, _, name = reference.partition(".")
        return self.level(level).get(name) if level in LEVELS else None

    def __iter__(self) -> Iterator[tuple[str, str, FeatureType]]:  # type: ignore[override]
        """Yield all features as (level, name, feature), in the order of the levels."""
        for level in LEVELS:
            for name, feature in self.level(level).items():
                yield level, name, feature


class Bias(SchemaSection):
    """A column that explains clicks but is unknown when ranking, usually the position.

    Training uses the logged value, serving uses ``serve_as``.
    """

    column: str
    serve_as: Annotated[int, Field(ge=0, le=MAX_TABLE_ROWS)] = 0
    max: Annotated[int, Field(ge=1, le=MAX_TABLE_ROWS)] = 100
    """Larger values count as this value."""


class Propensity(SchemaSection):
    """A column with the probability that the impression was shown, or examined.

    The impression's weight is divided by it (inverse propensity scoring), so that rows stand for
    those that were left out.
    """

    column: str
    floor: Annotated[float, Field(ge=1e-6, le=1)] = 0.01
    """Smaller probabilities count as this value, so that no row weighs too much."""


class Roles(SchemaSection):
    """Columns of the impression log with a special meaning."""

    request_id: str | None = None
    """Impressions of a request have the same value. Without it, every impression is a request."""
    weight: str | None = None
    propensity: Propensity | None = None
    bias: Bias | None = None
    row_key: str | None = None
    """Each row's key of the user's own, which predictions repeat. No model reads it."""
    negative_sampling_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    """Fraction of the first label's negatives in the log. Scores are corrected for it exactly."""
