"""A log of positives alone, such as check-ins: every other candidate is drawn, not shown.

A positive and its drawn items are a request. They are drawn from the items nearest to the positive
one, where the schema has coordinates of items, in proportion to their positives of train plus one.
So the rates of the log mean nothing, and a model learns the odds against what was drawn.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.spatial import KDTree

from hemix.features import Coordinates
from hemix.lab.derived_logs.derivation import Derivation, without
from hemix.lab.derived_logs.draws import uniform
from hemix.lab.derived_logs.source import Int64Array, Keys, Rows, Source
from hemix.schema import Schema

__all__ = ["DrawnNegatives"]

_NEGATIVES = 9
"""Drawn items for a positive"""
_NEAREST = 100
"""Items that negatives are drawn from"""
_REQUEST = "request_id"


class DrawnNegatives(Derivation):
    """A log whose negatives nobody has seen."""

    summary = "positives with 9 negatives drawn near by"

    def read(self, source: Source) -> None:
        """Collect the shown items, their positives of train, and where they are."""
        schema = self._schema = source.schema
        self._seed = source.seed
        self._label = schema.labels[schema.tasks[0]].column or schema.tasks[0]
        keys = list[Keys]()
        ids, positives = [], []
        for rows in source.impressions():
            keys.append(rows.keys(schema.item))
            ids.append(rows.table[schema.item].combine_chunks())
            positives.append(self._is_positive(rows) & (rows.split == 0))
        all_keys = np.concatenate(keys)
        self._items, first, number = np.unique(all_keys, return_index=True, return_inverse=True)
        self._ids = pa.concat_arrays(ids).take(pa.array(first))
        weights = np.concatenate(positives).astype(np.float64)
        counts = np.bincount(number, weights=weights, minlength=len(self._items))
        self._log_weight = np.log1p(counts)
        self._neighbours = self._nearest(source)

    def schema(self, schema: Schema) -> dict[str, Any]:
        """Drop what belongs to a shown candidate alone: its position, weight and cross columns."""
        content = super().schema(schema)
        features = content["features"]
        shown = [name for name, feature in schema.features.cross.items() if feature.columns(name)]
        features["cross"] = without(features.get("cross", {}), *shown)
        content["roles"] = {"request_id": _REQUEST}
        content["tables"] = without(content["tables"], "truth")
        return content

    def impressions(self, rows: Rows) -> Rows:
        """Drop the negatives, and add the drawn ones in a drawn order."""
        positives = rows.select(self._is_positive(rows))
        count, size = len(positives.log_row), _NEGATIVES + 1
        at = np.searchsorted(self._items, positives.keys(self._schema.item))
        drawn = np.concatenate([at[:, None], self._draw(at, positives.log_row)], axis=1)
        slots = np.argsort(self._uniform(positives.log_row, size, "order"), axis=1)
        item = np.take_along_axis(drawn, slots, axis=1).ravel()
        is_positive = (slots == 0).ravel()
        request = positives.select(np.repeat(np.arange(count), size))
        result = request.with_column(self._schema.item, self._ids.take(pa.array(item)))
        result = result.with_column(_REQUEST, pa.array(request.log_row))
        labelled = self._with_labels(result, is_positive)
        return replace(labelled, table=labelled.table.select(self._columns()))

    def events(self, rows: Rows) -> Rows:
        """Drop events of other actions than the positives', where the log names them."""
        action = self._schema.event_fields["action"].columns("action")[0]
        if action not in rows.table.column_names:
            return rows
        is_positive = pc.equal(rows.table[action].cast(pa.string()), self._schema.tasks[0])
        return rows.select(pc.fill_null(is_positive, False).to_numpy())

    def _columns(self) -> list[str]:
        """The columns that mean something for a drawn item."""
        schema = self._schema
        columns = [schema.user, schema.item, schema.clock.column, _REQUEST]
        for name, feature in schema.features.context.items():
            columns += feature.columns(name)
        for name, label in schema.labels.items():
            columns += [label.column or name, label.available_at or schema.clock.column]
        columns.append(schema.split.column or schema.clock.column)
        return list(dict.fromkeys(columns))

    def _is_positive(self, rows: Rows) -> npt.NDArray[np.bool_]:
        labels = pc.equal(rows.table[self._label].cast(pa.float64()), 1.0)
        positive: npt.NDArray[np.bool_] = pc.fill_null(labels, False).to_numpy()
        return positive

    def _with_labels(self, rows: Rows, is_positive: npt.NDArray[np.bool_]) -> Rows:
        """Set the labels of drawn items to 0, and the times of their outcomes to null."""
        for name, label in self._schema.labels.items():
            column = label.column or name
            values = rows.table[column].combine_chunks()
            zero = pa.scalar(0, values.type)
            rows = rows.with_column(column, pc.if_else(is_positive, values, zero))
            if label.available_at is not None:
                times = rows.table[label.available_at].combine_chunks()
                none = pa.scalar(None, times.type)
                rows = rows.with_column(label.available_at, pc.if_else(is_positive, times, none))
        return rows

    def _draw(self, at: Int64Array, log_row: Int64Array) -> Int64Array:
        """Draw distinct items for positives, without the positive itself (Gumbel top k).

        Args:
            at: [positives], numbers of their items.
            log_row: [positives].

        Returns:
            Numbers of items [positives, _NEGATIVES].
        """
        near = self._neighbours[at]
        gumbel = -np.log(-np.log(self._uniform(log_row, near.shape[1], "item")))
        score = np.where(near == at[:, None], -np.inf, self._log_weight[near] + gumbel)
        best = np.argsort(-score, axis=1, kind="stable")[:, :_NEGATIVES]
        return np.take_along_axis(near, best, axis=1)

    def _uniform(self, log_row: Int64Array, width: int, what: str) -> npt.NDArray[np.float64]:
        """Draw [rows, width] numbers of a row, other ones for the items and for their order."""
        first = 2 * width if what == "order" else 0
        number = np.arange(first, first + width, dtype=np.int64)
        return uniform((log_row[:, None] << 20) + number, self._seed)

    def _nearest(self, source: Source) -> Int64Array:
        """Find the nearest shown items of each, itself included; without coordinates, the most
        popular ones.

        Returns:
            Numbers of items [items, at most _NEAREST].
        """
        count = min(_NEAREST, len(self._items))
        points = self._points(source)
        if points is None:
            popular = np.argsort(-self._log_weight, kind="stable")[:count]
            return np.broadcast_to(popular, (len(self._items), count))
        nearest = KDTree(points).query(points, k=count)[1]
        return np.asarray(nearest, dtype=np.int64).reshape(len(points), count)

    def _points(self, source: Source) -> npt.NDArray[np.float64] | None:
        """Points of the items on the unit sphere [items, 3]; None without coordinates."""
        features = self._schema.features.item.values()
        place = next((f for f in features if isinstance(f, Coordinates)), None)
        if place is None:
            return None
        degrees = np.zeros((len(self._items), 2))
        for rows in source.items():
            keys = rows.keys(self._schema.item)
            at = np.minimum(np.searchsorted(self._items, keys), len(self._items) - 1)
            known = self._items[at] == keys
            for axis, column in enumerate((place.latitude, place.longitude)):
                values = pc.fill_null(rows.table[column].cast(pa.float64()), 0.0).to_numpy()
                degrees[at[known], axis] = values[known]
        latitude, longitude = np.radians(degrees).T
        return np.stack(
            [
                np.cos(latitude) * np.cos(longitude),
                np.cos(latitude) * np.sin(longitude),
                np.sin(latitude),
            ],
            axis=1,
        )
