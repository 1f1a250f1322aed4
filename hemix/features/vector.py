"""Vector features: a ready vector, such as an embedding of a picture."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from hemix.data.arrow import pa, pc
from hemix.data.raw_columns import MAX_NUMBER, RawColumn, Where, is_list, is_number
from hemix.features.base import (
    EncodedColumns,
    JsonCheck,
    Learned,
    SingleColumn,
    TensorColumns,
)
from hemix.features.json_values import number_problem
from hemix.features.registry import register_feature

__all__ = ["Vector"]

_MAX_SIZE = 1 << 20
_MAX_VALUE = 1e6
"""Numbers are clipped here, since no scale divides them."""


@register_feature
class Vector(SingleColumn):
    """A list column of fixed length, used as it is: zeros where missing, clipped at a million."""

    type: Literal["vector"] = "vector"
    size: Annotated[int, Field(ge=1, le=_MAX_SIZE)]

    # -- raw columns of a log ----------------------------------------------------------------------

    def expected_type(self, kind: pa.DataType) -> str | None:
        """Take lists of numbers."""
        fits = is_list(kind) and is_number(kind.value_type)
        return None if fits else f"a list of {self.size} numbers"

    def parse(self, columns: tuple[str, ...], values: list[pa.Array], where: Where) -> RawColumn:
        """Return float32 [rows, size].

        Args:
            columns: The name of the column.
            values: Lists of numbers, [rows]; a missing one gives zeros.
            where: Where the rows come from, for messages.

        Raises:
            DataError: A list has another length or a number that is not finite; names row and
                column.
        """
        (column,), (array,) = columns, values
        vectors = np.zeros((len(array), self.size), dtype=np.float32)
        if pa.types.is_null(array.type):
            return vectors
        known = array.is_valid().to_numpy(zero_copy_only=False)
        lengths = pc.list_value_length(array).fill_null(self.size).to_numpy(zero_copy_only=False)
        if (lengths != self.size).any():
            row = int(np.argmax(lengths != self.size))
            expected, actual = f"a list of {self.size} numbers", int(lengths[row])
            raise where.error(row, column, f"expected {expected}, found {actual}")
        flat = array.flatten().cast(pa.float64(), safe=False).fill_null(np.nan)
        numbers = flat.to_numpy(zero_copy_only=False).reshape(-1, self.size)
        finite = np.isfinite(numbers).all(axis=1)
        if not finite.all():
            row = int(np.flatnonzero(known)[np.argmin(finite)])
            expected, actual = f"{self.size} finite numbers", array[row].as_py()
            raise where.error(row, column, f"expected {expected}, found {actual}")
        vectors[known] = np.clip(numbers, -MAX_NUMBER, MAX_NUMBER)
        return vectors

    # -- JSON values -------------------------------------------------------------------------------

    def json_type(self) -> pa.DataType:
        """Return lists of numbers."""
        return pa.list_(pa.float64())

    def json_check(self, column_index: int) -> JsonCheck:
        """Take lists of ``size`` finite numbers."""
        return self._problem

    def _problem(self, value: Any) -> str | None:
        fits = isinstance(value, list) and len(value) == self.size
        fits = fits and all(number_problem(number) is None for number in value)
        return None if fits else f"a list of {self.size} numbers up to {MAX_NUMBER:g}"

    def json_schema(self, column_index: int) -> dict[str, Any]:
        """Return the JSON schema of its column."""
        items = {"type": "number"}
        size = self.size
        return {"type": ["array", "null"], "items": items, "minItems": size, "maxItems": size}

    def json_value(self, value: Any) -> Any:
        """Return a list of floats."""
        return [float(number) for number in value]

    def live_column(self, values: pa.Array, raw: RawColumn) -> pa.Array:
        """Return the lists of numbers.

        Args:
            values: The column as the log has it, [rows].
            raw: Not used.
        """
        return values.cast(self.json_type())

    # -- encoding ----------------------------------------------------------------------------------

    def tensor_columns(self) -> TensorColumns:
        """Return ``size`` numbers."""
        return TensorColumns(numbers=tuple(f".{i}" for i in range(self.size)))

    def encode(self, raw: RawColumn, learned: Learned, out: EncodedColumns) -> None:
        """Append its numbers.

        Args:
            raw: float32 [rows, size].
            learned: Not used.
            out: Receives ``size`` numbers a row.
        """
        assert isinstance(raw, np.ndarray)
        out.numbers.extend(np.clip(raw, -_MAX_VALUE, _MAX_VALUE).T)
