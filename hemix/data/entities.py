"""The users or items of a dataset or a run: encoded features and raw values of every version.

The preparation writes the files, a run folder has a copy, and both are memory-mapped. Raw values
are those that encoding drops: coordinates, columns of the score expression, keys of statistics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hemix.data.jagged_array import JaggedArray
from hemix.data.layout import Block, file_hash, load_array
from hemix.data.levels import level_spec
from hemix.data.versions import Versions
from hemix.errors import DataError
from hemix.features.history_numbers import HistoryNumbers
from hemix.features.match_counter import MatchCounter
from hemix.features.match_index import MatchKeys, keys_of_ids
from hemix.schema import Schema

__all__ = [
    "EntityTable",
    "MatchColumns",
    "coordinates_features",
    "entity_files",
    "history_numbers",
    "key_features",
]

Array = npt.NDArray[Any]
Level = Literal["user", "item"]


def coordinates_features(schema: Schema, level: str) -> tuple[str, ...]:
    """Return the coordinates features of a level, in the order of coordinates.npy.

    Args:
        schema: The schema.
        level: A level.
    """
    return tuple(n for n, f in schema.features.level(level).items() if f.gives_coordinates)


def key_features(schema: Schema, level: str) -> tuple[str, ...]:
    """Return the features of a level in the keys of statistics or in match counts, in the order of
    keys.npy.

    Args:
        schema: The schema.
        level: A level.
    """
    fields = {field for statistic in schema.statistics.values() for field in statistic.by}
    fields.update(f"item.{name}" for name in _one_valued_match_columns(schema))
    return tuple(name for name in schema.features.level(level) if f"{level}.{name}" in fields)


def _one_valued_match_columns(schema: Schema) -> tuple[str, ...]:
    items = schema.features.item
    return tuple(name for name in schema.match_columns if items[name].tensor_columns().ids)


@dataclass(frozen=True)
class MatchColumns:
    """Where items hold the features in which match counts compare, in their order."""

    keys: Sequence[int]
    """Columns of keys.npy"""
    jagged: Sequence[int]
    """Jagged columns"""

    @classmethod
    def of(cls, schema: Schema) -> MatchColumns:
        """Find the columns of a schema."""
        names, lists = key_features(schema, "item"), level_spec(schema, "item").jagged_names
        one_valued = _one_valued_match_columns(schema)
        return cls(
            keys=[names.index(name) for name in one_valued],
            jagged=[lists.index(name) for name in schema.match_columns[len(one_valued) :]],
        )

    def select(
        self, keys: npt.NDArray[np.uint64], jagged: Sequence[JaggedArray[np.int32]]
    ) -> MatchKeys:
        """Return the keys of items.

        Args:
            keys: uint64 [rows, P], the keys of :func:`key_features`.
            jagged: The ids of the items' multi-valued features, [rows] each.
        """
        lists = tuple(keys_of_ids(jagged[column]) for column in self.jagged)
        return MatchKeys(values=keys[:, self.keys], lists=lists)


def history_numbers(
    schema: Schema,
    counted_actions: int,
    match_actions: Mapping[str, int],
    match_windows_ms: Sequence[int],
) -> HistoryNumbers:
    """Return what computes the number columns of a schema's histories.

    Args:
        schema: The schema.
        counted_actions: How many actions the history counts tell apart.
        match_actions: Ids of the actions that match counts tell apart
            (:attr:`InputSpec.match_actions`).
        match_windows_ms: The windows of match counts (:attr:`InputSpec.match_windows_ms`).
    """
    counts, matches = schema.history.match_counts, None
    if counts is not None and schema.match_columns:
        matches = MatchCounter(counts, len(schema.match_columns), match_actions, match_windows_ms)
    return HistoryNumbers(counted_actions if schema.history.counts else None, matches)


def entity_files(schema: Schema, level: Level) -> tuple[str, ...]:
    """Return the names of the files that a run needs of its users or items.

    Args:
        schema: The schema.
        level: ``user`` or ``item``.
    """
    jagged = range(len(level_spec(schema, level).jagged_tables))
    names = ["first_row", "valid_from_ms", "features.ids", "features.numbers"]
    names += [f"features.bag{i}.{array}" for i in jagged for array in ("values", "offsets")]
    names += ["coordinates"] * bool(coordinates_features(schema, level)) + ["keys"] * bool(
        key_features(schema, level)
    )
    names += ["raw"] * (level == "item")
    return tuple(f"{name}.npy" for name in names)


@dataclass(frozen=True, kw_only=True)
class EntityTable:
    """All versions of all users, or of all items."""

    level: Level
    versions: Versions
    features: Block
    """[rows]"""
    coordinates: Array
    """float64 [rows, 2 C]: latitude and longitude of every coordinates feature, in degrees; NaN is
    missing
    """
    keys: Array
    """uint64 [rows, P]: the keys of :func:`key_features`"""
    raw: Array
    """float64 [rows, columns]: the item columns of the score expression; NaN is missing"""

    @classmethod
    def load(
        cls, folder: Path, schema: Schema, level: Level, *, hashes: Mapping[str, str] | None = None
    ) -> EntityTable:
        """Memory-map the files of a folder.

        Args:
            folder: The folder ``users`` or ``items``.
            schema: The schema.
            level: ``user`` or ``item``.
            hashes: Expected xxh64 by file; None skips the comparison.

        Raises:
            DataError: A file is missing or damaged.
        """
        files = entity_files(schema, level)
        for file in files if hashes is not None else ():
            if not (folder / file).is_file():
                raise DataError(
                    f"{folder / file}: missing", code="missing_file", field=str(folder / file)
                )
            if hashes is not None and hashes.get(file) != file_hash(folder / file):
                raise DataError(
                    f"{folder / file}: damaged: its hash differs from the hash at the time it was "
                    "written",
                    code="damaged_file",
                    field=str(folder / file),
                )
        features = Block.load(folder, "features", len(level_spec(schema, level).jagged_tables))
        rows = len(features.ids)

        def array(name: str, dtype: npt.DTypeLike) -> Array:
            return (
                load_array(folder / f"{name}.npy")
                if f"{name}.npy" in files
                else np.zeros((rows, 0), dtype)
            )

        return cls(
            level=level,
            versions=Versions(
                first_row=load_array(folder / "first_row.npy"),
                valid_from_ms=load_array(folder / "valid_from_ms.npy"),
            ),
            features=features,
            coordinates=array("coordinates", np.float64),
            keys=array("keys", np.uint64),
            raw=array("raw", np.float64),
        )
