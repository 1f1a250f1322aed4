"""Decode a chunk of a log: check every value and turn the columns into raw columns.

Errors name file, row and column (:class:`hemix.preparation.chunks.Chunk`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hemix.data.keys import NULL_KEY, keys_of
from hemix.data.levels import level_features
from hemix.data.raw_columns import RawColumn, Where, numbers_of
from hemix.data.spec import TIMELESS_MS
from hemix.preparation.chunks import Chunk
from hemix.preparation.duplicates import chunk_hashes
from hemix.preparation.job import PrepareJob
from hemix.preparation.log_table import LogTable
from hemix.preparation.role_columns import (
    check_ids,
    check_not_null,
    labels_of,
    positions_of,
    propensities_of,
    score_numbers_of,
    weights_of,
)
from hemix.preparation.rows import Rows
from hemix.preparation.texts import ITEMS, KeyTexts, observed_texts, text_bytes
from hemix.preparation.times import times_of
from hemix.schema import Schema

__all__ = [
    "LOGS",
    "DecodedRows",
    "LogName",
    "decode",
    "decode_entities",
    "entity_columns",
    "log_table",
    "valid_from_times",
]

Array = npt.NDArray[Any]
LogName: TypeAlias = Literal["impressions", "events", "users"]

LOGS: tuple[LogName, ...] = ("impressions", "events", "users")
"""The tables whose rows belong to a user, in the order in which users are numbered"""


@dataclass(frozen=True, kw_only=True)
class DecodedRows:
    """Checked rows of a log, in the order of the log."""

    rows: Rows
    """``user``: int32, the position among :attr:`users`; ``item``: uint64, the key, NULL_KEY of
    events without an item; ``log_row``: int64, the row in the log; and those of :func:`decode`
    """
    users: KeyTexts
    """The users of the rows, in the order of their first appearance"""
    texts: Mapping[str, KeyTexts]
    """By table (:func:`hemix.preparation.texts.text_tables`) the texts of the rows' keys; empty if
    they are in a file
    """


def log_table(job: PrepareJob, log: LogName) -> LogTable | None:
    """Return the table of a log; None if the schema has none.

    Args:
        job: The open logs.
        log: Name of the log.
    """
    table: LogTable | None = getattr(job.logs, log)
    return table


def decode(job: PrepareJob, log: LogName, chunk: Chunk) -> DecodedRows:
    """Check and decode the rows of a chunk.

    Args:
        job: Logs and schema.
        log: The log of the chunk.
        chunk: Rows of the log with all columns of their files; of ``users`` those of
            :func:`entity_columns`.

    Returns:
        Columns by name. Impressions: ``time_ms``, ``hash``, ``split``, ``label.*``,
        ``available.*``, ``request``, ``row_key``, ``weight``, ``bias``, ``context.*``, ``cross.*``
        and, without an events table, ``event.*``. Events: ``time_ms``, ``hash``, ``event.*``.
        Users: ``valid_from_ms``, ``user.*``.

    Raises:
        DataError: A value cannot be used; names file, row and column.
    """
    decoders: dict[LogName, Callable[[PrepareJob, Chunk], DecodedRows]] = {
        "impressions": _decode_impressions,
        "events": _decode_events,
        "users": _decode_users,
    }
    return decoders[log](job, chunk)


# -- impressions -----------------------------------------------------------------------------------


def _decode_impressions(job: PrepareJob, chunk: Chunk) -> DecodedRows:
    schema, columns = job.schema, chunk.columns
    users, rows, texts, keys = _ids(schema, chunk)
    clock = schema.clock
    check_not_null(clock.column, columns[clock.column], chunk.where)
    time_ms = times_of(clock.column, columns[clock.column], clock, chunk.where, is_clock=True)
    rows |= {
        "time_ms": time_ms,
        "hash": chunk_hashes(chunk, job.logs.clocks, keys),
        "split": job.splitter.assign(chunk, time_ms),
        **_labels(schema, chunk),
        **_roles(job, chunk),
    }
    levels = ["context", "cross"]
    if schema.history_source == "impressions":
        levels.append("event")
    for level in levels:
        raw = {
            name: feature.read(name, columns, chunk.rows, chunk.where)
            for name, feature in level_features(schema, level).items()
            if (level, name) != ("event", "action")
        }
        _merge(texts, observed_texts(schema, level, raw, columns))
        rows |= {f"{level}.{name}": values for name, values in raw.items() if values is not None}
    return DecodedRows(rows=rows, users=users, texts=texts)


def _labels(schema: Schema, chunk: Chunk) -> Rows:
    where, columns = chunk.where, chunk.columns
    rows: Rows = {}
    for name, label in schema.labels.items():
        column = label.column or name
        rows[f"label.{name}"] = labels_of(column, columns[column], where)
        if label.available_at is not None:
            rows[f"available.{name}"] = times_of(
                label.available_at, columns[label.available_at], schema.clock, where
            )
    return rows


def _roles(job: PrepareJob, chunk: Chunk) -> Rows:
    where, columns, roles = chunk.where, chunk.columns, job.schema.roles
    rows: Rows = {}
    if roles.row_key is not None:
        keys = columns[roles.row_key]
        check_ids(roles.row_key, keys, where)
        rows["row_key"] = (
            keys.cast(pa.int64()).to_numpy() if job.logs.row_keys_are_int64 else text_bytes(keys)
        )
    if roles.request_id is not None:
        check_ids(roles.request_id, columns[roles.request_id], where)
        rows["request"] = keys_of(columns[roles.request_id])
    if roles.weight is not None:
        rows["weight"] = weights_of(roles.weight, columns[roles.weight], where)
    if roles.propensity is not None:
        column, floor = roles.propensity.column, roles.propensity.floor
        propensities = propensities_of(column, columns[column], where, floor=floor)
        rows["weight"] = (rows.get("weight", 1) / propensities).astype(np.float32)
    if roles.bias is not None:
        bias = roles.bias
        rows["bias"] = positions_of(
            bias.column, columns[bias.column], where, serve_as=bias.serve_as, maximum=bias.max
        )
    return rows


# -- events ----------------------------------------------------------------------------------------


def _decode_events(job: PrepareJob, chunk: Chunk) -> DecodedRows:
    schema, columns, clock = job.schema, chunk.columns, job.logs.event_clock
    users, rows, texts, keys = _ids(schema, chunk, items_nullable=True)
    rows |= {
        "time_ms": times_of(clock, columns[clock], schema.clock, chunk.where),
        "hash": chunk_hashes(chunk, {clock: schema.clock}, keys),
    }
    raw = {
        name: field.read(name, columns, chunk.rows, chunk.where)
        for name, field in schema.event_fields.items()
    }
    _merge(texts, observed_texts(schema, "event", raw, columns))
    rows |= {f"event.{name}": column for name, column in raw.items() if column is not None}
    return DecodedRows(rows=rows, users=users, texts=texts)


# -- users and items -------------------------------------------------------------------------------


def _decode_users(job: PrepareJob, chunk: Chunk) -> DecodedRows:
    own = job.schema.user
    check_ids(own, chunk.columns[own], chunk.where)
    users, codes = KeyTexts.of(chunk.columns[own])
    rows, texts = decode_entities(job, "user", chunk)
    return DecodedRows(rows={"user": codes, **rows}, users=users, texts=texts)


def decode_entities(
    job: PrepareJob, level: Literal["user", "item"], chunk: Chunk
) -> tuple[Rows, dict[str, KeyTexts]]:
    """Check and decode rows of the user or item table, apart from their ids.

    Args:
        job: Logs and schema.
        level: ``user`` or ``item``.
        chunk: Rows with the columns of :func:`entity_columns`.

    Returns:
        ``log_row``, ``valid_from_ms``, ``level.*`` and, of items with a score expression, ``raw``;
        and the texts of their keys.

    Raises:
        DataError: A value cannot be used; names file, row and column.
    """
    schema, columns, where = job.schema, chunk.columns, chunk.where
    raw: dict[str, RawColumn | None] = {
        name: feature.read(name, columns, chunk.rows, where)
        for name, feature in schema.features.level(level).items()
    }
    rows: Rows = {
        "log_row": chunk.log_row,
        "valid_from_ms": valid_from_times(schema, columns, chunk.rows, where),
    }
    rows |= {f"{level}.{name}": column for name, column in raw.items() if column is not None}
    scores = job.schema.score_columns if level == "item" else ()
    if scores:
        numbers = [score_numbers_of(column, columns[column], where) for column in scores]
        rows["raw"] = np.stack(numbers, axis=1)
    return rows, observed_texts(schema, level, raw, columns)


def entity_columns(job: PrepareJob, level: Literal["user", "item"]) -> list[str]:
    """Return the columns to read of the user or item table.

    Args:
        job: The open logs.
        level: ``user`` or ``item``.
    """
    schema = job.schema
    table = job.logs.users if level == "user" else job.logs.items
    features = schema.features.level(level).items()
    columns = [schema.user if level == "user" else schema.item]
    columns += [column for name, feature in features for column in feature.columns(name)]
    columns += job.schema.score_columns if level == "item" else ()
    since = schema.valid_from
    if table is not None and since is not None and since in table.names:
        columns.append(since)
    return columns


def valid_from_times(
    schema: Schema, columns: Mapping[str, pa.Array], rows: int, where: Where
) -> Array:
    """Return when the rows of a table of users or items begin to apply.

    Args:
        schema: Names the column.
        columns: The columns of the table.
        rows: Number of rows.
        where: Where the rows come from, for messages.

    Returns:
        int64 [rows], ms UTC; TIMELESS_MS without versions.

    Raises:
        DataError: A value is no time; names file, row and column.
    """
    since = schema.valid_from
    if since is None or since not in columns:
        return np.full(rows, TIMELESS_MS, dtype=np.int64)
    values = columns[since]
    if not pa.types.is_temporal(values.type):  # the number 0 means from the beginning, like null
        from_start = np.nan_to_num(numbers_of(since, values, where)) == 0
        values = pc.if_else(pa.array(from_start), pa.scalar(None, values.type), values)
    return times_of(since, values, schema.clock, where)


# -- of impressions and events ---------------------------------------------------------------------


def _ids(
    schema: Schema, chunk: Chunk, *, items_nullable: bool = False
) -> tuple[KeyTexts, Rows, dict[str, KeyTexts], dict[str, Array]]:
    """The users; the rows with ``user``, ``item`` and ``log_row``; the texts of the items; and by
    column the keys of both. The key of a null item is NULL_KEY.
    """
    check_ids(schema.user, chunk.columns[schema.user], chunk.where)
    check_ids(schema.item, chunk.columns[schema.item], chunk.where, nullable=items_nullable)
    users, user = KeyTexts.of(chunk.columns[schema.user])
    items, item = KeyTexts.of(chunk.columns[schema.item])
    item_keys = np.append(items.keys, NULL_KEY)[item]  # the code of null is -1
    rows: Rows = {"user": user, "item": item_keys, "log_row": chunk.log_row}
    keys = {schema.user: users.keys[user], schema.item: item_keys}
    return users, rows, {ITEMS: items}, keys


def _merge(texts: dict[str, KeyTexts], more: Mapping[str, KeyTexts]) -> None:
    """Add texts to those of the same tables."""
    for table, values in more.items():
        texts[table] = KeyTexts.concatenate([texts[table], values] if table in texts else [values])
