"""A computed feature type from outside the package: the minute of the local day, in buckets."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from hemix.data.clock import local_ms
from hemix.data.raw_columns import RawColumn
from hemix.data.spec import FIRST, TIMELESS_MS
from hemix.features import register_feature
from hemix.features.base import (
    EncodedColumns,
    FeatureType,
    Learned,
    RowContext,
    Samples,
    StatePath,
    TensorColumns,
)
from hemix.features.scaling import bucket_ids, quantile_edges


@register_feature
class MinuteOfDay(FeatureType):
    """The minute of the local day in quantile buckets; a timeless event has none."""

    levels: ClassVar[frozenset[str]] = frozenset({"context", "cross", "event"})

    type: Literal["minute_of_day"] = "minute_of_day"
    buckets: int = 4

    def columns(self, name: str) -> tuple[str, ...]:
        return ()

    def compute(self, context: RowContext) -> RawColumn:
        assert context.time_ms is not None
        minutes = local_ms(context.time_ms, context.timezone) % 86_400_000 // 60_000
        return np.where(context.time_ms == TIMELESS_MS, np.nan, minutes)

    def state_path(self, level: str, name: str) -> StatePath:
        return ("states", f"{level}.{name}")

    def fit(self, samples: Samples) -> npt.NDArray[Any]:
        ((minutes, weights),) = samples
        return quantile_edges(minutes, weights, self.buckets)

    def state_to_json(self, state: Any) -> Any:
        return state.tolist()

    def state_from_json(self, content: Any) -> Any:
        return np.array(content)

    def tensor_columns(self) -> TensorColumns:
        return TensorColumns(ids=True)

    def table_rows(self, learned: Learned) -> int:
        return FIRST + 1 + len(learned.state)

    def encode(self, raw: RawColumn, learned: Learned, out: EncodedColumns) -> None:
        assert isinstance(raw, np.ndarray)
        out.ids.append(bucket_ids(learned.state, raw))
