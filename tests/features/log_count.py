"""A feature type from outside the package, whole in one file: a count on a logarithmic scale."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa

from hemix.data.raw_columns import RawColumn, Where, is_number, numbers_of
from hemix.features import register_feature
from hemix.features.base import (
    EncodedColumns,
    JsonCheck,
    Learned,
    Samples,
    SingleColumn,
    StatePath,
    TensorColumns,
)

MAX_COUNT = 1e15


@register_feature
class LogCount(SingleColumn):
    """log1p of a count, divided by its weighted mean on train rows; and 1 where it is missing."""

    type: Literal["log_count"] = "log_count"

    def expected_type(self, kind: pa.DataType) -> str | None:
        return None if is_number(kind) else "a count"

    def parse(self, columns: tuple[str, ...], values: list[pa.Array], where: Where) -> RawColumn:
        counts = numbers_of(columns[0], values[0], where)
        wrong = (counts < 0) | (counts > MAX_COUNT)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise where.error(row, columns[0], f"expected a count, found {counts[row]:g}")
        return counts

    def json_check(self, position: int) -> JsonCheck:
        return lambda value: (
            None if isinstance(value, int | float) and 0 <= value <= MAX_COUNT else "a count"
        )

    def json_schema(self, position: int) -> dict[str, Any]:
        return {"type": ["number", "null"], "minimum": 0, "maximum": MAX_COUNT}

    def state_path(self, level: str, name: str) -> StatePath:
        return ("states", f"{level}.{name}")

    def fit(self, samples: Samples) -> float:
        ((counts, weights),) = samples
        return float(np.average(np.log1p(counts), weights=weights)) if len(counts) else 1.0

    def tensor_columns(self) -> TensorColumns:
        return TensorColumns(numbers=("", ".missing"))

    def encode(self, raw: RawColumn, learned: Learned, out: EncodedColumns) -> None:
        assert isinstance(raw, np.ndarray)
        missing = np.isnan(raw)
        out.numbers.append(np.where(missing, 0.0, np.log1p(raw) / learned.state))
        out.numbers.append(missing)
