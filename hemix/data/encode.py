"""Encoders: raw values to ids and numbers, the same for logs and for live requests.

The preparation learns them from train rows (preparation/fit.py). A dataset and a run save them. Id
0 is an unknown value, 1 a missing value, and known values begin at 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.data.keys import KeyMap
from hemix.data.layout import Block, load_array, save_array
from hemix.data.learned_states import states_from_json
from hemix.data.levels import all_features, level_features, level_spec
from hemix.data.raw_columns import RawColumn, Where
from hemix.data.spec import InputSpec, Task
from hemix.errors import DataError, SchemaError
from hemix.features.base import LEVELS, EncodedColumns, FeatureType, Learned, RowContext, StatePath
from hemix.files import storage_errors, write_text
from hemix.formats import SavedFormat
from hemix.schema import Schema

__all__ = ["ENCODERS_FORMAT", "Encoders"]

ENCODERS_FORMAT = SavedFormat(
    version=3, error=DataError, remedy="prepare the logs and train the run again"
)
"""Of encoders.json and of the arrays beside it; 3 since it has the windows of match counts"""

Array = npt.NDArray[Any]
_SECTIONS: dict[str, Any] = {"edges": {}, "scales": {}}
"""Sections of learned states that every encoders.json has"""
_NO_COORDINATES = [0.0, 1.0, 0.0, 1.0]
"""The entry ``place`` of encoders.json without coordinates features"""


@dataclass(frozen=True)
class _FittedFeature:
    """A feature with its vocabulary and its learned state."""

    name: str
    feature: FeatureType
    computed: bool
    learned: Learned

    def raw_column(self, raw: RawColumn | None, context: RowContext) -> RawColumn:
        """Return the given raw column, or compute that of a computed feature.

        Args:
            raw: The parsed column; None for a computed feature.
            context: What computed features read of the rows.
        """
        if self.computed:
            return self.feature.compute(context)
        assert raw is not None, f"{self.name}: no raw column"
        return raw


@dataclass(frozen=True, kw_only=True)
class Encoders:
    """The vocabularies and learned states of all features, and the numbers of users and items.

    A saved folder has encoders.json and schema.yaml. Each vocabulary has the files NNN.keys.npy
    (sorted), NNN.ids.npy, NNN.seen.npy, and NNN.parquet for people. Users and items have
    users.keys.npy and users.ids.npy, and so on; those of users have no rows in a dataset, which
    numbers its users by partition.
    """

    schema: Schema
    vocabularies: Mapping[str, KeyMap] = field(default_factory=dict)
    """Table -> ids by key; a hashed table has no vocabulary."""
    seen: Mapping[str, Array] = field(default_factory=dict)
    """Table -> int64 [n], in the order of the vocabulary's keys: end of the newest train rows with
    the value, in ms UTC
    """
    states: Mapping[StatePath, Any] = field(default_factory=dict)
    """Path in encoders.json -> the learned state of a feature type, such as edges or a scale."""
    actions: tuple[str, ...] = ()
    """The known actions by their ids; empty if actions are hashed or more than 16."""
    match_actions: Mapping[str, int] = field(default_factory=dict)
    """Ids of the actions with match counts of their own; -1 if no event can have the action."""
    match_windows_ms: tuple[int, ...] = ()
    """The windows of match counts, ascending."""
    users: KeyMap = field(default_factory=KeyMap.empty)
    items: KeyMap = field(default_factory=KeyMap.empty)

    @property
    def edges(self) -> dict[str, Array]:
        """``level.feature`` -> float64 bucket edges, ascending."""
        return {path[1]: state for path, state in self.states.items() if path[0] == "edges"}

    @property
    def scales(self) -> dict[str, Any]:
        """``level.feature`` -> scale of a standardised number."""
        return {path[1]: state for path, state in self.states.items() if path[0] == "scales"}

    # -- applying ----------------------------------------------------------------------------------

    def encode(
        self,
        level: str,
        values: Mapping[str, pa.Array],
        rows: int,
        *,
        time_ms: Array | None = None,
        coordinates: Mapping[str, Array] | None = None,
        where: Where = Where("values"),  # noqa: B008 (frozen)
    ) -> Block:
        """Encode rows of one level, without the numbers of statistics and history counts.

        Args:
            level: ``user``, ``context``, ``item``, ``cross`` or ``event``.
            values: Arrow columns by name. A column that is not given is missing in every row.
            rows: Number of rows.
            time_ms: int64 [rows], UTC, for features computed from time.
            coordinates: By ``level.feature`` float64 [rows, 2], latitude and longitude in degrees,
                NaN if missing; for distances.
            where: The source of the rows, for messages.

        Raises:
            DataError: With source, row and column of a value that cannot be used.
        """
        features = level_features(self.schema, level).items()
        raw = {name: feature.read(name, values, rows, where) for name, feature in features}
        return self.block(level, raw, rows, time_ms=time_ms, coordinates=coordinates)

    def block(
        self,
        level: str,
        raw: Mapping[str, RawColumn | None],
        rows: int,
        *,
        time_ms: Array | None = None,
        coordinates: Mapping[str, Array] | None = None,
    ) -> Block:
        """Encode raw columns, the second step of :meth:`encode`.

        Args:
            level: As in :meth:`encode`.
            raw: The raw column of every feature by name; None for a computed feature.
            rows: Number of rows.
            time_ms: As in :meth:`encode`.
            coordinates: As in :meth:`encode`.
        """
        context = self._context(rows, time_ms, coordinates)
        out = EncodedColumns()
        for fitted in self._fitted[level].values():
            column = fitted.raw_column(raw.get(fitted.name), context)
            fitted.feature.encode(column, fitted.learned, out)
        appended = (len(out.ids), len(out.jagged), len(out.numbers))
        assert appended == self._widths[level], f"{level}: not the columns of tensor_columns()"
        return Block(
            ids=_stack(out.ids, rows, np.int32),
            numbers=_stack(out.numbers, rows, np.float32),
            jagged=tuple(out.jagged),
        )

    def keys(
        self,
        level: str,
        name: str,
        raw: RawColumn | None,
        rows: int,
        *,
        time_ms: Array | None = None,
        coordinates: Mapping[str, Array] | None = None,
    ) -> Array:
        """Return a feature's values as they are in the key of a statistic.

        Args:
            level: Level of the feature.
            name: Name of the feature, which has one id per row.
            raw: Its raw column; None for a computed feature.
            rows: Number of rows.
            time_ms: As in :meth:`encode`.
            coordinates: As in :meth:`encode`.

        Returns:
            uint64 [rows]: the key of a categorical value, known or unknown; else the id.
        """
        fitted, context = self._fitted[level][name], self._context(rows, time_ms, coordinates)
        return fitted.feature.statistic_keys(fitted.raw_column(raw, context), fitted.learned)

    def _context(
        self, rows: int, time_ms: Array | None, coordinates: Mapping[str, Array] | None
    ) -> RowContext:
        zone = self.schema.clock.timezone
        return RowContext(rows=rows, time_ms=time_ms, timezone=zone, coordinates=coordinates or {})

    @cached_property
    def _widths(self) -> dict[str, tuple[int, int, int]]:
        """Level -> number of id columns, jagged columns and number columns of its features."""
        widths = {}
        for level, features in self._fitted.items():
            columns = [fitted.feature.tensor_columns() for fitted in features.values()]
            widths[level] = (
                sum(c.ids for c in columns),
                sum(c.jagged for c in columns),
                sum(len(c.numbers) for c in columns),
            )
        return widths

    @cached_property
    def _fitted(self) -> dict[str, dict[str, _FittedFeature]]:
        """Level -> name -> feature; cached, because every request needs it."""
        fitted: dict[str, dict[str, _FittedFeature]] = {level: {} for level in (*LEVELS, "event")}
        for level, name, feature in all_features(self.schema):
            path = feature.state_path(level, name)
            learned = Learned(
                vocabulary=self.vocabularies.get(feature.table_of(level, name)),
                state=None if path is None else self.states.get(path),
            )
            fitted[level][name] = _FittedFeature(name, feature, not feature.columns(name), learned)
        return fitted

    def changed_states(self, other: Encoders) -> list[str]:
        """Return the names of learned states that differ from those of ``other``.

        Both have the same schema. Ids and numbers of these features have another meaning there.
        """
        changed: dict[str, None] = {}
        for level, name, feature in all_features(self.schema):
            path = feature.state_path(level, name)
            if path is not None:
                ours, theirs = (feature.state_to_json(e.states[path]) for e in (self, other))
                if ours != theirs:
                    changed[path[-1]] = None
        return list(changed)

    # -- for models --------------------------------------------------------------------------------

    def spec(self) -> InputSpec:
        """Return the tables, columns and tasks that a model is built for."""
        schema = self.schema
        tables: dict[str, int] = {}
        vocabularies: dict[str, None] = {}
        for level, name, feature in all_features(schema):
            columns, table = feature.tensor_columns(), feature.table_of(level, name)
            if columns.ids or columns.jagged:
                tables[table] = feature.table_rows(self._fitted[level][name].learned)
            if feature.vocabulary_settings() is not None:
                vocabularies[table] = None
        actions = self.actions, tuple(self.match_actions)
        levels = {
            level: level_spec(schema, level, *actions, self.match_windows_ms)
            for level in (*LEVELS, "event")
        }
        rate, bias = schema.roles.negative_sampling_rate, schema.roles.bias
        return InputSpec(
            tables=tables,
            **levels,
            event_item_columns=tuple(
                levels["item"].names.index(name) for name in schema.event_item_features
            ),
            match_actions=self.match_actions,
            match_windows_ms=self.match_windows_ms,
            vocabularies=tuple(vocabularies),
            bias_rows=bias.max + 1 if bias else 0,
            tasks=tuple(
                Task(name=n, given=schema.tasks.index(v.given) if v.given else None)
                for n, v in schema.labels.items()
            ),
            logit_shift=tuple(
                math.log(rate) if rate is not None and i == 0 else 0.0
                for i in range(len(schema.tasks))
            ),
        )

    # -- on disk -----------------------------------------------------------------------------------

    def save(self, folder: Path, *, texts: Mapping[str, pa.Table] | None = None) -> None:
        """Write the encoders.

        Args:
            folder: The folder.
            texts: By vocabulary a table (id, value, count) for people.
        """
        import pyarrow.parquet as pq

        folder.mkdir(parents=True, exist_ok=True)
        names = list(self.vocabularies)
        content = {
            "schema_fingerprint": self.schema.fingerprint(),
            "vocabularies": names,
            **self._states_to_json(),
        }
        ENCODERS_FORMAT.write(folder / "encoders.json", content)
        write_text(folder / "schema.yaml", self.schema.to_yaml())
        for stem, key_map in [
            *((f"{i:03d}", self.vocabularies[n]) for i, n in enumerate(names)),
            *self._id_maps(),
        ]:
            save_array(folder / f"{stem}.keys.npy", key_map.keys)
            save_array(folder / f"{stem}.ids.npy", key_map.numbers)
        for i, name in enumerate(names):
            if name in self.seen:
                save_array(folder / f"{i:03d}.seen.npy", self.seen[name])
            if texts and name in texts:
                path = folder / f"{i:03d}.parquet"
                with storage_errors(path):
                    pq.write_table(texts[name], path)

    def _states_to_json(self) -> dict[str, Any]:
        content: dict[str, Any] = {
            **{name: dict(section) for name, section in _SECTIONS.items()},
            "actions": list(self.actions),
            "match_actions": dict(self.match_actions),
            "match_windows_ms": list(self.match_windows_ms),
            "place": _NO_COORDINATES,
        }
        for level, name, feature in all_features(self.schema):
            path = feature.state_path(level, name)
            if path is not None and path in self.states:
                section = content
                for key in path[:-1]:
                    section = section.setdefault(key, {})
                section[path[-1]] = feature.state_to_json(self.states[path])
        return content

    def _id_maps(self) -> list[tuple[str, KeyMap]]:
        return [("users", self.users), ("items", self.items)]

    @classmethod
    def load(cls, folder: Path, *, with_ids: bool = True) -> Encoders:
        """Read the folder of :meth:`save`.

        Args:
            folder: The folder.
            with_ids: False: vocabularies and the numbers of users and items are empty.

        Raises:
            DataError: A file is missing, damaged or of another version.
            SchemaError: schema.yaml is not the schema of the encoders.
        """
        path = Path(folder) / "encoders.json"
        content = ENCODERS_FORMAT.read(path)
        schema = Schema.load(path.parent / "schema.yaml")
        if content["schema_fingerprint"] != schema.fingerprint():
            raise SchemaError(
                f"{path}: expected the schema with fingerprint {content['schema_fingerprint']}, "
                f"found schema.yaml with {schema.fingerprint()}",
                code="other_schema",
                field=str(path),
                hint="prepare or train again",
            )

        def key_map(stem: str) -> KeyMap:
            if not with_ids:
                return KeyMap.empty()
            # in memory, not memory-mapped: look-ups are random accesses
            return KeyMap(
                np.array(load_array(path.parent / f"{stem}.keys.npy")),
                np.array(load_array(path.parent / f"{stem}.ids.npy")),
            )

        names = enumerate(content["vocabularies"] if with_ids else ())
        seen = {name: path.parent / f"{i:03d}.seen.npy" for i, name in names}
        return cls(
            schema=schema,
            seen={name: np.array(load_array(file)) for name, file in seen.items() if file.exists()},
            vocabularies={
                name: key_map(f"{i:03d}") for i, name in enumerate(content["vocabularies"])
            },
            states=states_from_json(schema, content, path),
            actions=tuple(content["actions"]),
            match_actions=content["match_actions"],
            match_windows_ms=tuple(content["match_windows_ms"]),
            users=key_map("users"),
            items=key_map("items"),
        )


def _stack(columns: list[Array], rows: int, dtype: type[np.generic]) -> Array:
    if not columns:
        return np.zeros((rows, 0), dtype)
    return np.stack(columns, axis=1).astype(dtype, copy=False)
