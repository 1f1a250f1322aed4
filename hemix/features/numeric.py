"""Numeric features: one number, in quantile buckets or standardised."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from hemix.data.arrow import pa
from hemix.data.raw_columns import MAX_NUMBER, RawColumn, Where, is_number, numbers_of
from hemix.data.spec import FIRST
from hemix.features.base import (
    LEVELS,
    EncodedColumns,
    JsonCheck,
    Learned,
    Samples,
    SingleColumn,
    StatePath,
    TensorColumns,
)
from hemix.features.json_values import number_problem
from hemix.features.registry import register_feature
from hemix.features.scaling import Scale, bucket_ids, fit_scale, quantile_edges

__all__ = ["Numeric"]


@register_feature
class Numeric(SingleColumn):
    """One number, in quantile buckets or standardised, both learned on the train rows.

    In buckets: the id 2 + number of edges <= value. Standardised: (value - mean) / std, at most
    10,000 either way and 0 where missing, and a second number that is 1 where missing.
    """

    levels: ClassVar[frozenset[str]] = frozenset({*LEVELS, "event"})

    type: Literal["numeric"] = "numeric"
    encoding: Literal["quantile", "standardise"] = "quantile"
    buckets: Annotated[int, Field(ge=2, le=10_000)] = 32

    @property
    def _in_buckets(self) -> bool:
        return self.encoding == "quantile"

    # -- raw columns of a log ----------------------------------------------------------------------

    def expected_type(self, kind: pa.DataType) -> str | None:
        """Take integers, floats, decimals and booleans."""
        return None if is_number(kind) else "a number"

    def parse(self, columns: tuple[str, ...], values: list[pa.Array], where: Where) -> RawColumn:
        """Return float64 [rows], NaN where missing.

        Args:
            columns: The name of the column.
            values: The column, [rows].
            where: Where the rows come from, for messages.

        Raises:
            DataError: A value is no number; names row and column.
        """
        return np.clip(numbers_of(columns[0], values[0], where), -MAX_NUMBER, MAX_NUMBER)

    # -- JSON values -------------------------------------------------------------------------------

    def json_check(self, column_index: int) -> JsonCheck:
        """Take finite numbers."""
        return number_problem

    def json_schema(self, column_index: int) -> dict[str, Any]:
        """Return the JSON schema of its column."""
        return {"type": ["number", "null"]}

    # -- learning ----------------------------------------------------------------------------------

    def state_path(self, level: str, name: str) -> StatePath:
        """Return the feature's own edges or scale.

        Args:
            level: The feature's level.
            name: The feature's name.
        """
        return ("edges" if self._in_buckets else "scales", f"{level}.{name}")

    def fit(self, samples: Samples) -> Any:
        """Learn the edges of the buckets, or the scale."""
        if self._in_buckets:
            ((values, weights),) = samples
            return quantile_edges(values, weights, self.buckets)
        return fit_scale(samples)

    def state_to_json(self, state: Any) -> Any:
        """Return the edges, or mean and deviation."""
        return state.tolist() if self._in_buckets else [state.mean, state.std]

    def state_from_json(self, content: Any) -> Any:
        """Return float64 edges or a Scale."""
        return np.array(content, dtype=np.float64) if self._in_buckets else Scale(*content)

    # -- encoding ----------------------------------------------------------------------------------

    def tensor_columns(self) -> TensorColumns:
        """One id, or two numbers."""
        if self._in_buckets:
            return TensorColumns(ids=True)
        return TensorColumns(numbers=("", ".missing"))

    def table_rows(self, learned: Learned) -> int:
        """Return the buckets, the unknown and the missing row."""
        return FIRST + 1 + len(learned.state)

    def encode(self, raw: RawColumn, learned: Learned, out: EncodedColumns) -> None:
        """Append the bucket, or the standardised number and the missing flag.

        Args:
            raw: float64 [rows], NaN where missing.
            learned: The edges of the buckets, or the scale.
            out: Receives ids int32 [rows], or two numbers a row.
        """
        assert isinstance(raw, np.ndarray)
        if self._in_buckets:
            out.ids.append(bucket_ids(learned.state, raw))
        else:
            out.numbers.extend((learned.state.apply(raw), np.isnan(raw)))
