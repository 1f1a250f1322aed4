"""Raw values to ids and numbers, for training logs and for live requests alike.

Encoders are learned once, on the train rows (preparation/fit.py), saved with the dataset and run,
and only applied here. Each feature type (hemix.features) says how its raw column becomes ids or
numbers. Id 0 is an unknown value, 1 a missing one, known values begin at 2.

A saved folder holds encoders.json, schema.yaml, and for each vocabulary NNN.keys.npy (sorted) with
NNN.ids.npy and NNN.seen.npy, and NNN.parquet for people; users and items likewise, with numbers
instead of ids.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.data.keys import KeyMap
from hemix.data.layout import Block, load_array, save_array
from hemix.data.raw_columns import RawColumn, Where
from hemix.data.spec import InputSpec, LevelSpec, Task
from hemix.errors import DataError, SchemaError
from hemix.features.base import LEVELS, EncodedColumns, FeatureType, Learned, RowContext, StatePath
from hemix.features.history_counts import history_count_names
from hemix.files import read_json, storage_errors, write_json, write_text
from hemix.schema import Schema

__all__ = ["Encoders", "KeyMap", "all_features", "learning_columns", "level_features", "level_spec"]

Array = npt.NDArray[Any]
_SECTIONS: dict[str, Any] = {"edges": {}, "scales": {}}
"""Sections of learned states that every encoders.json has"""
_NO_COORDINATES = [0.0, 1.0, 0.0, 1.0]
"""What encoders.json says of coordinates where no feature has any"""


def level_features(schema: Schema, level: str) -> Mapping[str, FeatureType]:
    """Return the features of a level, or the fields of an event for level ``event``."""
    return schema.event_fields if level == "event" else schema.features.level(level)


def all_features(schema: Schema) -> Iterator[tuple[str, str, FeatureType]]:
    """Yield (level, name, feature) of all features and then of the fields of events."""
    for level in (*LEVELS, "event"):
        for name, feature in level_features(schema, level).items():
            yield level, name, feature


def learning_columns(schema: Schema, level: str, context: RowContext) -> dict[str, RawColumn]:
    """Compute the raw columns of a level's computed features that learn from numbers.

    Args:
        schema: The schema.
        level: Their level; ``event`` for fields of events.
        context: What is known of the rows.

    Returns:
        By name of the feature; empty where no such feature is there.
    """
    return {
        name: feature.computed(context)
        for name, feature in level_features(schema, level).items()
        if not feature.columns(name) and feature.state_path(level, name) is not None
    }


@dataclass(frozen=True)
class _FittedFeature:
    """A feature with all that encoding it needs."""

    name: str
    feature: FeatureType
    computed: bool
    learned: Learned

    def raw_column(self, raw: RawColumn | None, context: RowContext) -> RawColumn:
        """Return the raw column that was read, or compute it."""
        if self.computed:
            return self.feature.computed(context)
        assert raw is not None, f"{self.name}: no raw column"
        return raw


@dataclass(frozen=True, kw_only=True)
class Encoders:
    """All that turns raw values into ids and numbers."""

    schema: Schema
    vocabularies: Mapping[str, KeyMap] = field(default_factory=dict)
    """Table name -> key -> id; tables that hash have none."""
    seen: Mapping[str, Array] = field(default_factory=dict)
    """Table name -> int64 [n], epoch ms, by the vocabulary's keys: the end of the train rows that
    last held the value
    """
    states: Mapping[StatePath, Any] = field(default_factory=dict)
    """Where encoders.json keeps it -> the state that a feature type learned: edges, a scale, ..."""
    actions: tuple[str, ...] = ()
    """The known actions by their ids; none where they hash or are more than 16."""
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

    @property
    def place(self) -> Any:
        """The scales of all coordinates, None where no feature has any."""
        return self.states.get(("place",))

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
            values: Raw columns by name; one that is not there is missing in every row.
            rows: How many rows.
            time_ms: int64 [rows] (UTC), for features that are computed from time.
            coordinates: float64 [rows, 2] latitude and longitude in degrees by ``level.feature``,
                NaN where missing; for distances.
            where: Where the rows come from, for messages.

        Raises:
            DataError: Names origin, row, column, what was expected and what was found.
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
        """Encode raw columns by feature: the second half of :meth:`encode`, with its arguments."""
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
        """Return what stands for a feature's value in the key of a statistic.

        Args:
            level: Level of the feature.
            name: Name of the feature, which has one id a row.
            raw: Its raw column; None for a computed feature.
            rows: How many rows.
            time_ms: As of :meth:`encode`.
            coordinates: As of :meth:`encode`.

        Returns:
            uint64 [rows]: a categorical's own key, known or not; else the id.
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
        """Level -> how many columns of ids, lists of ids and numbers its features have."""
        widths = {}
        for level, fitted in self._fitted.items():
            columns = [one.feature.tensor_columns() for one in fitted.values()]
            widths[level] = (
                sum(c.ids for c in columns),
                sum(c.jagged for c in columns),
                sum(len(c.numbers) for c in columns),
            )
        return widths

    @cached_property
    def _fitted(self) -> dict[str, dict[str, _FittedFeature]]:
        """Level -> name -> feature; made once, since requests are encoded feature by feature."""
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
        """Return the states that ``other``, of the same schema, has learned otherwise.

        Ids and numbers of these mean something else there.
        """
        changed: dict[str, None] = {}
        for level, name, feature in all_features(self.schema):
            path = feature.state_path(level, name)
            if path is not None:
                ours, theirs = (feature.state_to_json(e.states[path]) for e in (self, other))
                if ours != theirs:
                    changed[path[-1]] = None
        return list(changed)

    # -- what a model has to know ------------------------------------------------------------------

    def spec(self) -> InputSpec:
        """Tables, columns and tasks."""
        schema = self.schema
        tables: dict[str, int] = {}
        vocabularies: dict[str, None] = {}
        for level, name, feature in all_features(schema):
            columns, table = feature.tensor_columns(), feature.table_of(level, name)
            if columns.ids or columns.jagged:
                tables[table] = feature.table_rows(self._fitted[level][name].learned)
            if feature.vocabulary_settings() is not None:
                vocabularies[table] = None
        levels = {level: level_spec(schema, level, self.actions) for level in (*LEVELS, "event")}
        rate = schema.roles.negative_sampling_rate
        bias = schema.roles.bias
        return InputSpec(
            tables=tables,
            **levels,
            event_item_columns=tuple(
                levels["item"].names.index(name) for name in schema.event_item_features
            ),
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
        """Write the folder; ``texts`` are further tables for people, by vocabulary (columns id,
        value, count).
        """
        import pyarrow.parquet as pq

        folder.mkdir(parents=True, exist_ok=True)
        names = list(self.vocabularies)
        content = {
            "schema_version": 1,
            "schema_fingerprint": self.schema.fingerprint(),
            "vocabularies": names,
            **self._states_to_json(),
        }
        write_json(folder / "encoders.json", content)
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
    def load(cls, folder: Path) -> Encoders:
        """Read what :meth:`save` wrote. Raises DataError or SchemaError naming the file."""
        path = Path(folder) / "encoders.json"
        content = read_json(path, DataError)
        schema = Schema.load(path.parent / "schema.yaml")
        if content.get("schema_version") != 1:
            raise DataError(
                f"{path}: expected schema_version 1, found {content.get('schema_version')!r}"
            )
        if content["schema_fingerprint"] != schema.fingerprint():
            raise SchemaError(
                f"{path}: made for a schema of fingerprint {content['schema_fingerprint']}, "
                f"but schema.yaml beside it has {schema.fingerprint()}"
            )

        def key_map(stem: str) -> KeyMap:
            # the plain arrays, not memory maps: a look-up touches them all over
            return KeyMap(
                *(
                    np.array(load_array(path.parent / f"{stem}.{part}.npy"))
                    for part in ("keys", "ids")
                )
            )

        seen = {
            name: path.parent / f"{i:03d}.seen.npy"
            for i, name in enumerate(content["vocabularies"])
        }
        return cls(
            schema=schema,
            seen={name: np.array(load_array(file)) for name, file in seen.items() if file.exists()},
            vocabularies={
                name: key_map(f"{i:03d}") for i, name in enumerate(content["vocabularies"])
            },
            states=_states_from_json(schema, content, path),
            actions=tuple(content.get("actions", ())),
            users=key_map("users"),
            items=key_map("items"),
        )


def level_spec(schema: Schema, level: str, actions: Sequence[str] = ()) -> LevelSpec:
    """The columns that a level's features become, and behind them the numbers of statistics and
    (``actions``: the known ones) history counts.
    """
    ids: list[tuple[str, str]] = []
    jagged: list[tuple[str, str]] = []
    numbers: list[str] = []
    for name, feature in level_features(schema, level).items():
        columns, table = feature.tensor_columns(), feature.table_of(level, name)
        if columns.ids:
            ids.append((name, table))
        if columns.jagged:
            jagged.append((name, table))
        numbers += [name + suffix for suffix in columns.numbers]
    for name in schema.statistics_of(level):
        numbers += schema.statistics[name].number_names(name)
    if level == "context" and schema.history.counts:
        numbers += history_count_names(actions)
    return LevelSpec(
        names=tuple(n for n, _ in ids),
        tables=tuple(t for _, t in ids),
        jagged_names=tuple(n for n, _ in jagged),
        jagged_tables=tuple(t for _, t in jagged),
        number_names=tuple(numbers),
    )


def _stack(columns: list[Array], rows: int, dtype: type[np.generic]) -> Array:
    if not columns:
        return np.zeros((rows, 0), dtype)
    return np.stack(columns, axis=1).astype(dtype, copy=False)


def _states_from_json(
    schema: Schema, content: Mapping[str, Any], path: Path
) -> dict[StatePath, Any]:
    states: dict[StatePath, Any] = {}
    for level, name, feature in all_features(schema):
        state_path = feature.state_path(level, name)
        if state_path is None:
            continue
        state: Any = content
        for key in state_path:
            if not isinstance(state, Mapping) or key not in state:
                missing = ".".join(state_path)
                raise DataError(
                    f"{path}: damaged: {missing}, learned for {level}.{name}, is missing"
                )
            state = state[key]
        states[state_path] = feature.state_from_json(state)
    return states
