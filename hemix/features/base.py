"""What a feature type is: the base class that all other code asks.

A feature type is one class in one file: its fields are the schema keys, its methods read raw
columns, learn from train rows, and encode. All other code asks the type, never which one it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from hemix.data.arrow import pa
from hemix.data.jagged_array import JaggedArray
from hemix.data.keys import NULL_KEY, KeyMap
from hemix.data.raw_columns import RawColumn, Where
from hemix.data.spec import FIRST, MISSING, UNKNOWN
from hemix.errors import DataError

__all__ = [
    "LEVELS",
    "MAX_TABLE_ROWS",
    "EncodedColumns",
    "FeatureType",
    "JsonCheck",
    "Learned",
    "RowContext",
    "Samples",
    "SchemaSection",
    "SingleColumn",
    "StatePath",
    "TensorColumns",
    "Vocabulary",
]

Array = npt.NDArray[Any]
StatePath: TypeAlias = "tuple[str, ...]"
"""The keys in encoders.json under which a learned state is saved: ``("edges", "item.price")``."""
JsonCheck: TypeAlias = "Callable[[Any], str | None]"
"""Returns what was expected where a JSON value does not fit, else None."""
Samples: TypeAlias = "Sequence[tuple[Array, Array]]"
"""For each feature of a state, (values float64 [n] or [n, k], weights float64 [n])."""

LEVELS = ("user", "context", "item", "cross")
"""The four levels of a feature. A ``cross`` feature belongs to a (request, item) pair."""
MAX_TABLE_ROWS = 2**31 - 3
"""Ids are int32, and the first two of every table stand for unknown and missing."""


class SchemaSection(BaseModel):
    """A section of a schema: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class Vocabulary(SchemaSection):
    """Ids for the values of at least ``min_count`` train rows; all others share the unknown row."""

    min_count: int = Field(default=2, ge=1)
    max_rows: int | None = Field(default=None, ge=1, le=MAX_TABLE_ROWS)


@dataclass(frozen=True, kw_only=True)
class RowContext:
    """What computed features may need to know of rows besides their raw columns."""

    rows: int
    time_ms: Array | None = None
    """int64 [rows]: of the request or the event, UTC"""
    timezone: str = "UTC"
    coordinates: Mapping[str, Array] = field(default_factory=dict)
    """``level.feature`` -> float64 [rows, 2] latitude and longitude in degrees, NaN: missing"""


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What a feature learned from train rows; nothing where its type learns nothing."""

    vocabulary: KeyMap | None = None
    state: Any = None


@dataclass(frozen=True, kw_only=True)
class TensorColumns:
    """The tensor columns of a feature."""

    ids: bool = False
    """One id a row"""
    jagged: bool = False
    """A list of ids a row"""
    numbers: tuple[str, ...] = ()
    """A suffix for each number, "" or one with a dot: the column is called ``feature + suffix``.

    ``.missing`` is 1 where the feature's other numbers are missing; boosted trees read NaN there.
    """


@dataclass(frozen=True)
class EncodedColumns:
    """The columns of one level while its features are encoded, one after another."""

    ids: list[Array] = field(default_factory=list)
    """int [rows] each"""
    numbers: list[Array] = field(default_factory=list)
    """float [rows] each"""
    jagged: list[JaggedArray[np.int32]] = field(default_factory=list)
    """Ids [rows] each"""


class FeatureType(SchemaSection):
    """Base class of what may stand under ``features`` and ``history.fields`` of a schema.

    A subclass declares ``type: Literal["name"] = "name"`` and its other schema keys as pydantic
    fields, and is registered with :func:`hemix.features.register_feature`. Methods that encode work
    on whole columns. The same methods serve a large log and one request, so both give the same
    tensors.
    """

    levels: ClassVar[frozenset[str]] = frozenset(LEVELS)
    """Where it may stand: names of LEVELS, and ``event`` for a field of history events."""
    gives_coordinates: ClassVar[bool] = False
    """Its raw column, float64 [rows, 2] in degrees, is kept for features computed from it."""

    type: str

    # -- schema ------------------------------------------------------------------------------------

    def columns(self, name: str) -> tuple[str, ...]:
        """Return the raw columns that the feature ``name`` reads; none for a computed feature.

        A live event of a user or an item should hold all of them: what it lacks counts as missing,
        but for a type that gives coordinates.
        """
        raise NotImplementedError

    def inputs(self) -> tuple[str, ...]:
        """Return the features, as ``level.name``, whose coordinates this one is computed from."""
        return ()

    def check(self, key: str, find: Callable[[str], FeatureType | None]) -> None:
        """Check the feature against the others of its schema.

        Args:
            key: Where it stands, such as ``features.cross.distance``.
            find: Gives a feature by ``level.name``, or None.

        Raises:
            ValueError: Names the key, what was expected and what stands there.
        """

    def table_of(self, level: str, name: str) -> str:
        """Return the embedding table of the feature's ids.

        Args:
            level: The feature's level.
            name: The feature's name.
        """
        return f"{level}.{name}"

    def vocabulary_settings(self) -> Vocabulary | None:
        """Return the settings of the vocabulary that is learned for its table, if one is.

        The raw column of such a feature holds keys: uint64 [rows], or jagged.
        """
        return None

    def table_settings(self) -> Any:
        """Return what features that share a table must agree on; None if its table is its own."""
        return None

    # -- raw columns of a log ----------------------------------------------------------------------

    def expected_type(self, kind: pa.DataType) -> str | None:
        """Return what was expected where columns of this Arrow type cannot be read, else None."""
        raise NotImplementedError

    def wrong_type(self, kind: pa.DataType) -> str | None:
        """Return :meth:`expected_type`, but accept a column of nulls: missing in every row."""
        return None if pa.types.is_null(kind) else self.expected_type(kind)

    def parse(self, columns: tuple[str, ...], values: list[pa.Array], where: Where) -> RawColumn:
        """Parse Arrow arrays of types that :meth:`wrong_type` accepts; a null is missing.

        Args:
            columns: Names of the raw columns, for messages.
            values: One array for each, [rows]. Of type null where the table lacks the column.
            where: Where the rows come from, for messages.

        Returns:
            Numbers float64 [rows] or [rows, k], NaN where missing; keys uint64 [rows]; or lists of
            keys.

        Raises:
            DataError: Names the file, the row, the column, what was expected and what was found.
        """
        raise NotImplementedError

    def read(
        self, name: str, columns: Mapping[str, pa.Array], rows: int, where: Where
    ) -> RawColumn | None:
        """Read the raw column of the feature.

        Args:
            name: Name of the feature.
            columns: Arrow arrays [rows] by column; one that is not there is missing in every row.
            rows: How many rows.
            where: Where the rows come from, for messages.

        Returns:
            See :meth:`parse`; None for a computed feature.

        Raises:
            DataError: A column is of a wrong type, or holds a wrong value.
        """
        names = self.columns(name)
        if not names:
            return None
        values = [columns[c] if c in columns else pa.nulls(rows) for c in names]
        for column, array in zip(names, values, strict=True):
            expected = self.wrong_type(array.type)
            if expected is not None:
                raise DataError(
                    f"{where.source}: column {column!r}: expected {expected}, found {array.type}",
                    code="wrong_column_type",
                    field=column,
                )
        return self.parse(names, values, where)

    def compute(self, context: RowContext) -> RawColumn:
        """Compute the raw column of a feature that reads none."""
        raise NotImplementedError

    # -- JSON values of requests and events --------------------------------------------------------

    def json_type(self) -> pa.DataType:
        """Return the Arrow type of a raw column that is made of JSON values."""
        return pa.float64()

    def json_check(self, column_index: int) -> JsonCheck:
        """Return the check of JSON values of the raw column ``columns(name)[column_index]``."""
        raise NotImplementedError

    def json_schema(self, column_index: int) -> dict[str, Any]:
        """Return the JSON schema of the raw column ``columns(name)[column_index]``."""
        raise NotImplementedError

    def json_value(self, value: Any) -> Any:
        """Return a JSON value that passed the check as :meth:`json_type` takes it."""
        return float(value)

    def json_column(self, values: Sequence[Any], fits: Callable[[int, Any], bool]) -> pa.Array:
        """Make an Arrow array of JSON values.

        Args:
            values: One a row; None is missing.
            fits: Says of (row, value) whether the value passes its check; else it is missing.
        """
        usable = [
            None if value is None or not fits(row, value) else self.json_value(value)
            for row, value in enumerate(values)
        ]
        return pa.array(usable, self.json_type())

    def live_column(self, values: pa.Array, raw: RawColumn) -> pa.Array:
        """Return the values that live events hold for a log's column, in the type of
        :meth:`json_type`.

        Args:
            values: The column as the log has it, [rows].
            raw: The same column after :meth:`parse`.
        """
        assert isinstance(raw, np.ndarray)
        return pa.array(raw, pa.float64(), from_pandas=True)

    # -- learning ----------------------------------------------------------------------------------

    def state_path(self, level: str, name: str) -> StatePath | None:
        """Return where the learned state is saved, or None if numbers are not learned from.

        Features with the same path share one state. The raw column of a feature that learns is
        float64 [rows] or [rows, 2].

        Args:
            level: The feature's level.
            name: The feature's name.
        """
        return None

    def fit(self, samples: Samples) -> Any:
        """Learn the state from train rows; it may not depend on their order."""
        raise NotImplementedError

    def state_to_json(self, state: Any) -> Any:
        """Return the state as a value of encoders.json."""
        return state

    def state_from_json(self, content: Any) -> Any:
        """Invert :meth:`state_to_json`."""
        return content

    # -- encoding ----------------------------------------------------------------------------------

    def tensor_columns(self) -> TensorColumns:
        """Return which columns :meth:`encode` appends."""
        raise NotImplementedError

    def table_rows(self, learned: Learned) -> int:
        """Return how many rows its embedding table needs; asked only where it has ids."""
        assert learned.vocabulary is not None
        return int(learned.vocabulary.numbers.max(initial=FIRST - 1)) + 1

    def encode(self, raw: RawColumn, learned: Learned, out: EncodedColumns) -> None:
        """Append the columns of :meth:`tensor_columns`.

        Args:
            raw: What :meth:`read` or :meth:`compute` gave.
            learned: What was learned for the feature.
            out: Takes the columns. Ids: 0 unknown, 1 missing, known values from 2 on.
        """
        raise NotImplementedError

    def statistic_keys(self, raw: RawColumn, learned: Learned) -> Array:
        """Return the key of each value in statistics and match counts: uint64 [rows].

        It is NULL_KEY where the value is missing, by default the id elsewhere. Only features with
        one id a row have keys.

        Args:
            raw: The raw column, [rows].
            learned: What the feature learned from train rows.
        """
        out = EncodedColumns()
        self.encode(raw, learned, out)
        ids = out.ids[0]
        # ids have unknown 0 and missing 1, keys have missing 0 (NULL_KEY): the two change places
        keys = np.where(ids == UNKNOWN, MISSING, ids).astype(np.uint64)
        keys[ids == MISSING] = NULL_KEY
        return keys


class SingleColumn(FeatureType):
    """Base class of types that read one column."""

    column: str | None = None
    """Column of the table that the feature's level reads; by default the feature's own name."""

    def columns(self, name: str) -> tuple[str, ...]:
        """Return the raw column that the feature ``name`` reads."""
        return (self.column or name,)
