"""Categorical features: one value, or a list of values, out of a set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from hemix.data.arrow import pa, pc
from hemix.data.jagged_array import JaggedArray, offsets_of, range_positions
from hemix.data.keys import NULL_KEY, is_keyable, keys_of
from hemix.data.raw_columns import RawColumn, Where, is_list, numbers_of
from hemix.data.spec import FIRST, MISSING, UNKNOWN
from hemix.data.texts import text_of, texts_of
from hemix.features.base import (
    LEVELS,
    MAX_TABLE_ROWS,
    EncodedColumns,
    JsonCheck,
    Learned,
    SchemaSection,
    SingleColumn,
    TensorColumns,
    Vocabulary,
)
from hemix.features.json_values import SCALAR_SCHEMA, scalar_problem
from hemix.features.registry import register_feature

__all__ = ["Categorical", "HashRows"]

Array = npt.NDArray[Any]

_MAX_LIST = 2**31 - 1


class HashRows(SchemaSection):
    """Ids by xxh64 (UTF-8, seed 0) modulo ``rows``: nothing to keep, some values share a row."""

    rows: Annotated[int, Field(ge=1, le=MAX_TABLE_ROWS)]


@register_feature
class Categorical(SingleColumn):
    """One value, or with ``multi`` a list of values, out of a set.

    The id is 2 + rank of the value by descending train count, or with a hash 2 + key % rows.
    """

    levels: ClassVar[frozenset[str]] = frozenset({*LEVELS, "event"})

    type: Literal["categorical"] = "categorical"
    vocabulary: Vocabulary | None = None
    hash: HashRows | None = None
    multi: bool = False
    max_values: Annotated[int, Field(ge=1, le=_MAX_LIST)] = 50
    """The first so many values of a list are used."""
    table: str | None = None
    """Features that name the same table share one vocabulary and one embedding table."""

    @model_validator(mode="before")
    @classmethod
    def _one_encoding(cls, value: Any) -> Any:
        if isinstance(value, dict):
            if value.get("vocabulary") is not None and value.get("hash") is not None:
                raise ValueError("expected one of vocabulary and hash, got both")
            if value.get("vocabulary") is None and value.get("hash") is None:
                value = {**value, "vocabulary": {}}
        return value

    def table_of(self, level: str, name: str) -> str:
        """Return the embedding table: the shared one, or the feature's own.

        Args:
            level: The feature's level.
            name: The feature's name.
        """
        return self.table or f"{level}.{name}"

    def vocabulary_settings(self) -> Vocabulary | None:
        """Return the settings of its vocabulary, None with a hash."""
        return self.vocabulary

    def table_settings(self) -> Any:
        """Return what features that share a table must agree on."""
        return self.vocabulary, self.hash

    # -- raw columns of a log ----------------------------------------------------------------------

    def expected_type(self, kind: pa.DataType) -> str | None:
        """Take all types whose values have a canonical text, and lists of these with ``multi``."""
        if self.multi:
            fits = is_list(kind) and is_keyable(kind.value_type)
            return None if fits else "a list of strings or whole numbers"
        return None if is_keyable(kind) else "a string, a whole number, a boolean or a date"

    def parse(self, columns: tuple[str, ...], values: list[pa.Array], where: Where) -> RawColumn:
        """Return keys uint64 [rows], or with ``multi`` jagged keys.

        Args:
            columns: The name of the column.
            values: The column, [rows].
            where: Where the rows come from, for messages.

        Raises:
            DataError: A value cannot be read; names row and column.
        """
        (column,), (array,) = columns, values
        if self.multi:
            return _jagged_keys(column, array, self.max_values, where)
        if pa.types.is_floating(array.type):
            numbers_of(column, array, where)
        return keys_of(array)

    # -- JSON values -------------------------------------------------------------------------------

    def json_type(self) -> pa.DataType:
        """Return text, or with ``multi`` lists of text."""
        return pa.list_(pa.string()) if self.multi else pa.string()

    def json_check(self, column_index: int) -> JsonCheck:
        """Take strings, numbers and booleans, or with ``multi`` lists of one of these."""
        return _list_problem if self.multi else scalar_problem

    def json_schema(self, column_index: int) -> dict[str, Any]:
        """Return the JSON schema of its column."""
        return {"type": ["array", "null"], "items": SCALAR_SCHEMA} if self.multi else SCALAR_SCHEMA

    def json_value(self, value: Any) -> Any:
        """Return the canonical text, or a list of these."""
        if self.multi:
            return [None if part is None else text_of(part) for part in value]
        return text_of(value)

    def json_column(self, values: Sequence[Any], fits: Callable[[int, Any], bool]) -> pa.Array:
        """Return the column of live values; a column of texts alone takes a fast path.

        Args:
            values: JSON values, None where missing.
            fits: Says whether a value is valid at its row.
        """
        if not self.multi:
            try:
                return pa.array(values, self.json_type())
            except (pa.ArrowInvalid, pa.ArrowTypeError):
                pass
        return super().json_column(values, fits)

    def live_column(self, values: pa.Array, raw: RawColumn) -> pa.Array:
        """Return the canonical texts, or with ``multi`` lists of these.

        Args:
            values: The column as the log has it, [rows].
            raw: Not used.
        """
        if not self.multi or pa.types.is_null(values.type):
            return texts_of(values)
        lengths = pc.list_value_length(values).fill_null(0).to_numpy(zero_copy_only=False)
        offsets = pa.array(offsets_of(lengths), pa.int32())
        return pa.ListArray.from_arrays(
            offsets, texts_of(values.flatten()), mask=values.is_null() if len(values) else None
        )

    # -- encoding ----------------------------------------------------------------------------------

    def tensor_columns(self) -> TensorColumns:
        """One id, or with ``multi`` a list of ids."""
        return TensorColumns(ids=not self.multi, jagged=self.multi)

    def table_rows(self, learned: Learned) -> int:
        """Return the rows of the hash, or of the vocabulary."""
        return super().table_rows(learned) if self.hash is None else FIRST + self.hash.rows

    def encode(self, raw: RawColumn, learned: Learned, out: EncodedColumns) -> None:
        """Append the ids of the keys.

        Args:
            raw: Keys uint64 [rows], or jagged keys.
            learned: The vocabulary.
            out: Receives ids int32 [rows], or jagged ids.
        """
        if isinstance(raw, JaggedArray):
            ids = self._ids(raw.values, learned)
            out.jagged.append(JaggedArray(values=ids, offsets=raw.offsets))
        else:
            out.ids.append(self._ids(raw, learned))

    def _ids(self, keys: Array, learned: Learned) -> npt.NDArray[np.int32]:
        if self.hash is not None:
            ids = (np.uint64(FIRST) + keys % np.uint64(self.hash.rows)).astype(np.int32)
        else:
            assert learned.vocabulary is not None
            ids = learned.vocabulary.look_up(keys, UNKNOWN)
        ids[keys == NULL_KEY] = MISSING
        return ids

    def statistic_keys(self, raw: RawColumn, learned: Learned) -> Array:
        """Return the value's own key, known to the vocabulary or not.

        Args:
            raw: Keys uint64 [rows].
            learned: Not used.
        """
        assert isinstance(raw, np.ndarray)
        return raw


def _jagged_keys(
    column: str, values: pa.Array, max_values: int, where: Where
) -> JaggedArray[np.uint64]:
    """Return the keys of the first values of every list."""
    if pa.types.is_null(values.type):
        return JaggedArray.from_lengths(np.full(len(values), NULL_KEY), np.ones(len(values), int))
    flat = values.flatten()  # leaves out what lies under a null list
    missing = values.is_null().to_numpy(zero_copy_only=False)
    lengths = pc.list_value_length(values).fill_null(0).to_numpy(zero_copy_only=False)
    offsets = offsets_of(lengths)
    begin, end = offsets[:-1], offsets[1:]
    if pa.types.is_floating(flat.type):
        numbers = flat.cast(pa.float64()).fill_null(0).to_numpy(zero_copy_only=False)
        finite = np.isfinite(numbers)
        if not finite.all():
            row = int(np.searchsorted(end, np.argmin(finite), side="right"))
            raise where.error(
                row,
                column,
                "expected finite numbers in the list, found nan or infinity",
            )
    keys = np.append(keys_of(flat), NULL_KEY)
    counts = np.where(missing, 1, np.minimum(lengths, max_values))
    positions = range_positions(np.where(missing, len(flat), begin), counts)
    return JaggedArray.from_lengths(keys[positions], counts)


def _list_problem(value: Any) -> str | None:
    if isinstance(value, list) and all(v is None or scalar_problem(v) is None for v in value):
        kinds = {float if type(v) is int else type(v) for v in value if v is not None}
        if len(kinds) <= 1:  # 1 among floats is what JavaScript makes of 1.0
            return None
    return "a list of strings, of numbers or of booleans"
