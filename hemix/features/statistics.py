"""Dated statistics: the schema keys."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from hemix.features.base import SchemaSection

__all__ = ["Statistic"]


class Statistic(SchemaSection):
    """The smoothed rate of a label among the rows that share a key, and how many these are.

    Both are as known at the end of the day before the request's.
    """

    label: str
    by: Annotated[tuple[str, ...], Field(min_length=1)]
    """The key: ``user``, ``item`` (their ids), or ``level.feature`` of features with one id."""
    smoothing: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 20
    """So many rows of the label's overall rate are added to every key."""
