"""Raw values to ids: the one road for training logs and for live requests.

An encoder is learned once, on the training rows (see prepare/fit.py), saved with the dataset and the run, and only applied here:
cells (cells.py) to ids and numbers. 0 is an unknown value, 1 a missing one, known values begin at 2.

    categorical, vocabulary   2 + rank of the value by descending training count
    categorical, hash         2 + key % rows
    numeric, quantile         2 + number of edges <= value
    numeric, standardise      two numbers: (value - mean) / std, at most 10,000 either way, and 1 where missing
    vector                    its numbers, at most a million either way
    coordinates               three numbers: standardised latitude and longitude (one mean and std for all coordinates
                              features), and 1 where missing
    distance                  great-circle km in quantile buckets
    clock part                2 + part of the local time; missing for a timeless event

A saved folder holds encoders.json, schema.yaml, and per vocabulary NNN.keys.npy (sorted) with NNN.ids.npy and NNN.seen.npy, and
NNN.parquet for people; users and items likewise, with numbers in the place of ids. This module imports neither torch nor pandas.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.data.cells import Cell, Where, read_cell
from hemix.data.clock import clock_part
from hemix.data.keys import NULL_KEY
from hemix.data.layout import Block, load_array, save_array
from hemix.data.spec import FIRST, MISSING, UNKNOWN, InputSpec, LevelSpec, Task
from hemix.errors import DataError, SchemaError
from hemix.files import read_json, storage_errors, write_json, write_text
from hemix.schema import LEVELS, Categorical, ClockPart, Coordinates, Distance, Feature, Numeric, Schema, Vector

__all__ = ["Encoders", "KeyMap", "Place", "Scale", "counted_actions", "haversine_km", "level_features", "level_spec", "table_of"]

Array = npt.NDArray[Any]
_COUNTED_ACTIONS = 16
"""A larger vocabulary of actions is not counted action by action."""
_EARTH_RADIUS_KM = 6371.0088
_MOST_DEVIATIONS = 1e4
"""A value of the rows that a scale was learned on lies farther out only where they are more than a hundred million. What does is cut
to it, in training and serving alike, so that no finite value makes a model's numbers overflow."""
_MOST_IN_VECTOR = 1e6
"""The same of a vector's numbers, which no scale divides"""


def level_features(schema: Schema, level: str) -> Mapping[str, Feature]:
    """The features of a level, or the fields of an event for level ``event``."""
    return schema.event_fields if level == "event" else schema.features.level(level)


def table_of(level: str, name: str, feature: Feature) -> str:
    """The embedding table of an id column."""
    shared = feature.table if isinstance(feature, Categorical) else None
    return shared or f"{level}.{name}"


@dataclass(frozen=True)
class KeyMap:
    """Known keys with a number each: a vocabulary (key -> id) or the ids of users or items (key -> number)."""

    keys: Array
    """uint64 [n], ascending"""
    numbers: Array
    """int32 [n]"""

    def look_up(self, keys: Array, unknown: int) -> Array:
        """int32 [rows]: the number of every key, ``unknown`` where there is none."""
        if len(self.keys) == 0:
            return np.full(len(keys), unknown, dtype=np.int32)
        at = np.searchsorted(self.keys, keys)
        at[at == len(self.keys)] = 0
        found: Array = np.where(self.keys[at] == keys, self.numbers[at], np.int32(unknown))
        return found


@dataclass(frozen=True)
class Scale:
    """Mean and deviation of a standardised number."""

    mean: float = 0.0
    std: float = 1.0

    def apply(self, values: Array) -> Array:
        """float32, 0 where missing, 10,000 deviations at most."""
        with np.errstate(over="ignore"):  # infinity is cut too
            deviations = (values - self.mean) / self.std
        return np.where(np.isnan(deviations), 0.0, deviations.clip(-_MOST_DEVIATIONS, _MOST_DEVIATIONS)).astype(np.float32)


@dataclass(frozen=True)
class Place:
    """How coordinates are standardised: the same for every coordinates feature, so that two places stay comparable."""

    latitude: Scale = Scale()
    longitude: Scale = Scale()


@dataclass(frozen=True, kw_only=True)
class Encoders:
    """All that turns raw values into ids and numbers."""

    schema: Schema
    vocabularies: Mapping[str, KeyMap] = field(default_factory=dict)
    """Table name -> key -> id; tables that hash have none."""
    seen: Mapping[str, Array] = field(default_factory=dict)
    """Table name -> int64 [n], epoch ms, by the vocabulary's keys: the end of the train rows that last held the value"""
    edges: Mapping[str, Array] = field(default_factory=dict)
    """``level.feature`` -> float64 bucket edges, ascending; for quantile numerics and distances."""
    scales: Mapping[str, Scale] = field(default_factory=dict)
    """``level.feature`` -> scale of a standardised numeric."""
    place: Place = Place()
    actions: tuple[str, ...] = ()
    """The known actions by their ids; none where they hash or are more than 16."""
    users: KeyMap = KeyMap(np.zeros(0, np.uint64), np.zeros(0, np.int32))
    items: KeyMap = KeyMap(np.zeros(0, np.uint64), np.zeros(0, np.int32))

    # -- applying --------------------------------------------------------------------------------------------------------

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
        """Encode rows of ``user``, ``context``, ``item``, ``cross`` or ``event``: their features, without the numbers that come from
        statistics and history counts (see statistics.py and history.py), which a level's numbers end with.

        ``values`` are the raw columns by name; a column that is not there is missing in every row. ``time_ms`` int64 [rows]
        (UTC) serves the clock parts, ``coordinates`` the distances: float64 [rows, 2] latitude and longitude in degrees by
        ``level.feature``, NaN where missing. Raises DataError naming origin, row, column, expected and found.
        """
        cells = {n: read_cell(n, f, values, rows, where) for n, f in level_features(self.schema, level).items()}
        return self.block(level, cells, rows, time_ms=time_ms, coordinates=coordinates)

    def block(
        self,
        level: str,
        cells: Mapping[str, Cell | None],
        rows: int,
        *,
        time_ms: Array | None = None,
        coordinates: Mapping[str, Array] | None = None,
    ) -> Block:
        """The second half of :meth:`encode`: cells to ids and numbers."""
        ids: list[Array] = []
        numbers: list[Array] = []
        bags: list[tuple[Array, Array]] = []
        for name, feature in level_features(self.schema, level).items():
            key, cell = f"{level}.{name}", cells.get(name)
            match feature, cell:
                case Categorical(), (keys, offsets):
                    bags.append((self._key_ids(table_of(level, name, feature), feature, keys), offsets))
                case Categorical(), np.ndarray():
                    ids.append(self._key_ids(table_of(level, name, feature), feature, cell))
                case Numeric(encoding="quantile"), np.ndarray():
                    ids.append(self._bucket_ids(key, cell))
                case Numeric(), np.ndarray():
                    numbers += [self.scales[key].apply(cell), np.isnan(cell)]
                case Vector(), np.ndarray():
                    numbers += list(np.clip(cell, -_MOST_IN_VECTOR, _MOST_IN_VECTOR).T)
                case Coordinates(), np.ndarray():
                    numbers += [
                        self.place.latitude.apply(cell[:, 0]),
                        self.place.longitude.apply(cell[:, 1]),
                        np.isnan(cell[:, 0]),
                    ]
                case Distance(), _:
                    ids.append(self._bucket_ids(key, self.distance_km(feature, coordinates or {}, rows)))
                case ClockPart(), _:
                    ids.append(self._clock_ids(key, feature, time_ms))
                case _:
                    raise AssertionError(f"{key}: no cell")
        return Block(
            ids=np.stack(ids, axis=1).astype(np.int32, copy=False) if ids else np.zeros((rows, 0), np.int32),
            numbers=np.stack(numbers, axis=1).astype(np.float32, copy=False) if numbers else np.zeros((rows, 0), np.float32),
            bags=tuple(bags),
        )

    def _key_ids(self, table: str, feature: Categorical, keys: Array) -> Array:
        if feature.hash is not None:
            ids = (np.uint64(FIRST) + keys % np.uint64(feature.hash.rows)).astype(np.int32)
        else:
            ids = self.vocabularies[table].look_up(keys, UNKNOWN)
        ids[keys == NULL_KEY] = MISSING
        return ids

    def _bucket_ids(self, key: str, values: Array) -> Array:
        ids = (FIRST + np.searchsorted(self.edges[key], values, side="right")).astype(np.int32)
        ids[np.isnan(values)] = MISSING
        return ids

    def _clock_ids(self, key: str, feature: ClockPart, time_ms: Array | None) -> Array:
        assert time_ms is not None, f"{key} needs time_ms"
        part = clock_part(feature.part, time_ms, self.schema.clock.timezone)
        return np.where(part < 0, MISSING, FIRST + part).astype(np.int32)

    def keys(
        self,
        level: str,
        name: str,
        cell: Cell | None,
        rows: int,
        *,
        time_ms: Array | None = None,
        coordinates: Mapping[str, Array] | None = None,
    ) -> Array:
        """uint64 [rows]: what stands for a one-valued feature's value in the key of a statistic: a categorical's own key, known or
        not, else the id of its bucket or clock part."""
        feature = level_features(self.schema, level)[name]
        match feature, cell:
            case Categorical(), np.ndarray():
                return cell
            case Numeric(), np.ndarray():
                ids = self._bucket_ids(f"{level}.{name}", cell)
            case Distance(), _:
                ids = self._bucket_ids(f"{level}.{name}", self.distance_km(feature, coordinates or {}, rows))
            case ClockPart(), _:
                ids = self._clock_ids(f"{level}.{name}", feature, time_ms)
            case _:
                raise AssertionError(f"{level}.{name}: no cell")
        return ids.astype(np.uint64)

    @staticmethod
    def distance_km(feature: Distance, coordinates: Mapping[str, Array], rows: int) -> Array:
        """float64 [rows], NaN where an end is missing."""
        ends = [coordinates.get(end) for end in feature.between]
        if ends[0] is None or ends[1] is None:
            return np.full(rows, np.nan)
        return haversine_km(ends[0], ends[1])

    # -- what a model has to know -----------------------------------------------------------------------------------------

    def spec(self) -> InputSpec:
        """Tables, columns and tasks."""
        schema = self.schema
        tables: dict[str, int] = {}
        for level in (*LEVELS, "event"):
            for name, feature in level_features(schema, level).items():
                rows = self._rows(level, name, feature)
                if rows is not None:
                    tables[table_of(level, name, feature)] = rows
        levels = {level: level_spec(schema, level, self.actions) for level in (*LEVELS, "event")}
        rate = schema.roles.negative_sampling_rate
        bias = schema.roles.bias
        return InputSpec(
            tables=tables,
            **levels,
            event_item_columns=tuple(levels["item"].names.index(name) for name in schema.event_item_features),
            vocabularies=tuple(
                dict.fromkeys(
                    table_of(level, name, feature)
                    for level in (*LEVELS, "event")
                    for name, feature in level_features(schema, level).items()
                    if isinstance(feature, Categorical) and feature.vocabulary is not None
                )
            ),
            bias_rows=bias.max + 1 if bias else 0,
            tasks=tuple(Task(name=n, given=schema.tasks.index(v.given) if v.given else None) for n, v in schema.labels.items()),
            logit_shift=tuple(math.log(rate) if rate is not None and i == 0 else 0.0 for i in range(len(schema.tasks))),
        )

    def _rows(self, level: str, name: str, feature: Feature) -> int | None:
        match feature:
            case Categorical(hash=None):
                numbers = self.vocabularies[table_of(level, name, feature)].numbers
                return int(numbers.max(initial=FIRST - 1)) + 1
            case Categorical():
                assert feature.hash is not None
                return FIRST + feature.hash.rows
            case Numeric(encoding="quantile") | Distance():
                return FIRST + 1 + len(self.edges[f"{level}.{name}"])
            case ClockPart():
                return FIRST + feature.size
        return None

    # -- on disk ---------------------------------------------------------------------------------------------------------

    def save(self, folder: Path, *, texts: Mapping[str, pa.Table] | None = None) -> None:
        """Write the folder; ``texts`` are further tables for people, by vocabulary (columns id, value, count)."""
        import pyarrow.parquet as pq

        folder.mkdir(parents=True, exist_ok=True)
        names = list(self.vocabularies)
        content = {
            "schema_version": 1,
            "schema_fingerprint": self.schema.fingerprint(),
            "vocabularies": names,
            "edges": {key: edges.tolist() for key, edges in self.edges.items()},
            "scales": {key: [scale.mean, scale.std] for key, scale in self.scales.items()},
            "actions": list(self.actions),
            "place": [self.place.latitude.mean, self.place.latitude.std, self.place.longitude.mean, self.place.longitude.std],
        }
        write_json(folder / "encoders.json", content)
        write_text(folder / "schema.yaml", self.schema.to_yaml())
        for stem, key_map in [*((f"{i:03d}", self.vocabularies[n]) for i, n in enumerate(names)), *self._id_maps()]:
            save_array(folder / f"{stem}.keys.npy", key_map.keys)
            save_array(folder / f"{stem}.ids.npy", key_map.numbers)
        for i, name in enumerate(names):
            if name in self.seen:
                save_array(folder / f"{i:03d}.seen.npy", self.seen[name])
            if texts and name in texts:
                path = folder / f"{i:03d}.parquet"
                with storage_errors(path):
                    pq.write_table(texts[name], path)

    def _id_maps(self) -> list[tuple[str, KeyMap]]:
        return [("users", self.users), ("items", self.items)]

    @classmethod
    def load(cls, folder: Path) -> Encoders:
        """Read what :meth:`save` wrote. Raises DataError or SchemaError naming the file."""
        path = Path(folder) / "encoders.json"
        content = read_json(path, DataError)
        schema = Schema.load(path.parent / "schema.yaml")
        if content.get("schema_version") != 1:
            raise DataError(f"{path}: expected schema_version 1, found {content.get('schema_version')!r}")
        if content["schema_fingerprint"] != schema.fingerprint():
            raise SchemaError(
                f"{path}: made for a schema of fingerprint {content['schema_fingerprint']}, "
                f"but schema.yaml beside it has {schema.fingerprint()}"
            )

        def key_map(stem: str) -> KeyMap:
            # the plain arrays, not memory maps: a look-up touches them all over
            return KeyMap(*(np.array(load_array(path.parent / f"{stem}.{part}.npy")) for part in ("keys", "ids")))

        place = content["place"]
        seen = {name: path.parent / f"{i:03d}.seen.npy" for i, name in enumerate(content["vocabularies"])}
        return cls(
            schema=schema,
            seen={name: np.array(load_array(file)) for name, file in seen.items() if file.exists()},
            vocabularies={name: key_map(f"{i:03d}") for i, name in enumerate(content["vocabularies"])},
            edges={key: np.array(edges, dtype=np.float64) for key, edges in content["edges"].items()},
            scales={key: Scale(*scale) for key, scale in content["scales"].items()},
            place=Place(Scale(*place[:2]), Scale(*place[2:])),
            actions=tuple(content.get("actions", ())),
            users=key_map("users"),
            items=key_map("items"),
        )


def counted_actions(texts: list[str]) -> tuple[str, ...]:
    """The actions that history counts tell apart, by id: all of a vocabulary, or none where it is too large."""
    return tuple(texts) if len(texts) <= _COUNTED_ACTIONS else ()


def level_spec(schema: Schema, level: str, actions: Sequence[str] = ()) -> LevelSpec:
    """The columns that a level's features become, and behind them the numbers of statistics and (``actions``: the known ones) history
    counts."""
    ids: list[tuple[str, str]] = []
    bags: list[tuple[str, str]] = []
    numbers: list[str] = []
    for name, feature in level_features(schema, level).items():
        match feature:
            case Categorical(multi=True):
                bags.append((name, table_of(level, name, feature)))
            case Categorical() | Numeric(encoding="quantile") | Distance() | ClockPart():
                ids.append((name, table_of(level, name, feature)))
            case Numeric():
                numbers += [name, f"{name}.missing"]
            case Vector():
                numbers += [f"{name}.{i}" for i in range(feature.size)]
            case Coordinates():
                numbers += [f"{name}.latitude", f"{name}.longitude", f"{name}.missing"]
    for name in schema.statistics_of(level):
        numbers += [f"{name}.rate", f"{name}.count"]
    if level == "context" and schema.history.counts:
        parts = ("history.today", "history.before")
        numbers += [*parts, *(f"{part}.{action}" for part in parts for action in actions)]
    return LevelSpec(
        names=tuple(n for n, _ in ids),
        tables=tuple(t for _, t in ids),
        bag_names=tuple(n for n, _ in bags),
        bag_tables=tuple(t for _, t in bags),
        number_names=tuple(numbers),
    )


def haversine_km(a: Array, b: Array) -> Array:
    """Great-circle distance in km between places in degrees, float64 [rows, 2] each (or [2], the same for all rows); NaN where an
    end is missing."""
    latitude_a, longitude_a = np.radians(a[..., 0]), np.radians(a[..., 1])
    latitude_b, longitude_b = np.radians(b[..., 0]), np.radians(b[..., 1])
    half = (
        np.sin((latitude_b - latitude_a) / 2) ** 2
        + np.cos(latitude_a) * np.cos(latitude_b) * np.sin((longitude_b - longitude_a) / 2) ** 2
    )
    km: Array = 2 * _EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.clip(half, 0.0, 1.0)))
    return km
