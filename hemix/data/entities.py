"""The users or the items that a dataset and a run know: every version's encoded features, and the
raw numbers that encoding drops.

Written by prepare, copied into the run folder, memory-mapped. What of a row cannot be told from its
ids and numbers is kept beside them: the ends of distances in degrees, the columns of the score
expression, the keys of statistics. Knows rows, not whose they are: that is the encoders' map from
raw ids to numbers. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hemix.data.encode import level_spec
from hemix.data.layout import Block, file_hash, load_array
from hemix.data.versions import Versions
from hemix.errors import DataError
from hemix.schema import Schema

__all__ = ["EntityTable", "coordinates_features", "entity_files", "key_features"]

Array = npt.NDArray[Any]
Level = Literal["user", "item"]


def coordinates_features(schema: Schema, level: str) -> tuple[str, ...]:
    """The coordinates features of a level, in the order of coordinates.npy."""
    return tuple(n for n, f in schema.features.level(level).items() if f.gives_coordinates)


def key_features(schema: Schema, level: str) -> tuple[str, ...]:
    """The features of a level that are part of a statistic's key, in the order of keys.npy."""
    parts = {part for statistic in schema.statistics.values() for part in statistic.by}
    return tuple(name for name in schema.features.level(level) if f"{level}.{name}" in parts)


def entity_files(schema: Schema, level: Level) -> tuple[str, ...]:
    """The names of all files that a run needs of its users or items."""
    jagged = range(len(level_spec(schema, level).jagged_tables))
    names = ["first_row", "valid_from_ms", "features.ids", "features.numbers"]
    names += [f"features.bag{i}.{part}" for i in jagged for part in ("values", "offsets")]
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
    places: Array
    """float64 [rows, 2 C]: latitude and longitude of every coordinates feature, in degrees; NaN
    where missing
    """
    keys: Array
    """uint64 [rows, P]: the keys of :func:`key_features`"""
    raw: Array
    """float64 [rows, columns]: the item columns of the score expression; NaN where missing"""

    @classmethod
    def load(
        cls, folder: Path, schema: Schema, level: Level, *, hashes: Mapping[str, str] | None = None
    ) -> EntityTable:
        """Memory-map ``folder``.

        Raises DataError naming the file that is missing or damaged; ``hashes`` (file -> xxh64) are
        compared where they are given.
        """
        files = entity_files(schema, level)
        for file in files if hashes is not None else ():
            if not (folder / file).is_file():
                raise DataError(f"{folder / file}: missing")
            if hashes is not None and hashes.get(file) != file_hash(folder / file):
                raise DataError(
                    f"{folder / file}: damaged: its hash is not the one that was noted when it "
                    "was written"
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
            places=array("coordinates", np.float64),
            keys=array("keys", np.uint64),
            raw=array("raw", np.float64),
        )
