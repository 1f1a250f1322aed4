"""The schema's raw columns in the ranking log: their Arrow types, and values converted to them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from hemix.data.levels import level_features
from hemix.data.texts import text_of
from hemix.schema import Schema
from hemix.serving.field_validation import FieldValidator
from hemix.serving.ranking_log.split_column import SplitColumnFormat
from hemix.serving.types import RankRequest

__all__ = ["RawColumns"]


class RawColumns:
    """Types and values of the columns that ``hemix prepare`` reads."""

    def __init__(self, schema: Schema) -> None:
        self._checks = FieldValidator(schema)
        context, cross = column_types(schema, "context"), column_types(schema, "cross")
        self.request_columns = {*context, *cross}
        """Context and cross columns of features"""
        if schema.history_source == "impressions":
            cross |= column_types(schema, "event")
        self.context = context
        """Arrow type by context column"""
        self.cross = {name: type_ for name, type_ in cross.items() if name not in context}
        """Arrow type by column of a candidate"""
        self.clock = schema.history.clock_column or schema.clock.column
        """The time of an event"""
        (self.action,) = schema.event_fields["action"].columns("action")
        self.event = {
            name: type_
            for name, type_ in column_types(schema, "event").items()
            if name != self.action
        }
        """Arrow type by column of an event"""
        self._split = None if schema.split.column == schema.clock.column else schema.split.column
        self._split_type = pa.string() if isinstance(schema.split.valid, str) else pa.float64()
        self._split_format = SplitColumnFormat(schema)
        if self._split is not None:  # the type of the boundaries, or rows could not be split
            level = self.cross if self._split in self.cross else self.context
            level[self._split] = self._split_type

    def context_value(self, column: str, request: RankRequest) -> Any:
        """Return the value of a context column.

        Args:
            column: A column of :attr:`context`.
            request: The request; its time gives the split's column where the context does not.
        """
        value = request.context.get(column)
        if value is None and column == self._split and column not in self.request_columns:
            return self._split_format.value(request.time_ms)
        return self._value("context", column, self.context[column], value)

    def cross_value(self, column: str, fields: Mapping[str, Any]) -> Any:
        """Return the value of a candidate's column.

        Args:
            column: A column of :attr:`cross`.
            fields: The candidate's fields.
        """
        return self._value("candidate", column, self.cross[column], fields.get(column))

    def event_value(self, column: str, fields: Mapping[str, Any]) -> Any:
        """Return the value of an event's column.

        Args:
            column: A column of :attr:`event`.
            fields: The event's fields.
        """
        return self._value("event", column, self.event[column], fields.get(column))

    def _value(self, level: str, column: str, type_: pa.DataType, value: Any) -> Any:
        """Convert a value; None where it is missing or invalid."""
        if value is None or self._checks.problem(level, {column: value}) is not None:
            return None
        if column == self._split:
            return _split_value(value, type_)
        if pa.types.is_list(type_):
            return [None if each is None else _cast(each, type_.value_type) for each in value]
        return _cast(value, type_)

    def with_split_type(self, table: pa.Table) -> pa.Table:
        """Convert the split's column of rankings from older servers to the boundaries' type."""
        if self._split is None or table[self._split].type == self._split_type:
            return table
        values = [
            None if value is None else _split_value(value, self._split_type)
            for value in table[self._split].to_pylist()
        ]
        index = table.column_names.index(self._split)
        return table.set_column(index, self._split, pa.array(values, self._split_type))


def column_types(schema: Schema, level: str) -> dict[str, pa.DataType]:
    """Return the Arrow type of a level's raw columns; float64 where any feature reads a number.

    Args:
        schema: The schema.
        level: ``context``, ``cross`` or ``event``.
    """
    types: dict[str, pa.DataType] = {}
    for name, feature in level_features(schema, level).items():
        for column in feature.columns(name):
            type_ = feature.json_type()
            if column not in types or pa.types.is_float64(type_):
                types[column] = type_
    return types


def _cast(value: Any, type_: pa.DataType) -> Any:
    return text_of(value) if pa.types.is_string(type_) else float(value)


def _split_value(value: Any, type_: pa.DataType) -> str | float | None:
    """Convert a value of the split's column; None where it does not compare with boundaries."""
    if isinstance(value, bool | list):
        return None
    if pa.types.is_string(type_):
        return text_of(value)
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
