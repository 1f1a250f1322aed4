"""JSON values of the columns of a table, as the server takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from hemix.features.base import FeatureType
from hemix.preparation.chunks import Chunk

__all__ = ["json_columns"]


def json_columns(features: Mapping[str, FeatureType], chunk: Chunk) -> dict[str, list[Any]]:
    """Return the JSON values of the raw columns that features read, checked as in a preparation.

    Args:
        features: The features of a level, by name.
        chunk: Rows of a table. A column that it lacks is left out.

    Returns:
        One value a row by column; None is missing.

    Raises:
        DataError: A value cannot be used; names file, row and column.
    """
    columns: dict[str, pa.Array] = {}
    for name, feature in features.items():
        raw = feature.read(name, chunk.columns, chunk.rows, chunk.where)
        if raw is None:
            continue
        for column in feature.columns(name):
            if column in chunk.columns:
                values = feature.live_column(chunk.columns[column], raw)
                # a number that is an id of another feature too keeps its precision as a number
                if column not in columns or pa.types.is_floating(values.type):
                    columns[column] = values
    return {column: values.to_pylist() for column, values in columns.items()}
