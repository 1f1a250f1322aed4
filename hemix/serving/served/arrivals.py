"""Histories as they stood, out of the log of events alone: whatever a store has dropped or
forgotten since.

An event is in a history from the revision that the log notes beside it. The cap and the time to
live are those under which a ranking was served. Events that a store had from elsewhere (a backfill,
a server with a log of its own) are not in the log.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from hemix.data.spec import TIMELESS_MS
from hemix.errors import DataError
from hemix.schema import Schema
from hemix.serving.served.columns import ServedColumns
from hemix.serving.served.files import log_columns, read_log_table
from hemix.serving.served.retention import log_files
from hemix.serving.types import Event

__all__ = ["LoggedArrivals", "history_at"]


class LoggedArrivals:
    """The events of a log folder and of the logs beside it: a version's log begins when it is
    loaded, its users' events before.
    """

    def __init__(self, folder: Path, schema: Schema) -> None:
        """Raises DataError naming a file that cannot be read, or that was logged without
        revisions.
        """
        columns = ServedColumns(schema)
        self._schema, self._clock, self._action = schema, columns.clock, columns.action
        own = {schema.user, schema.item, columns.clock, columns.action}
        events = {
            *own,
            "served_event",
            "served_kind",
            "served_ranking",
            "served_received",
            "served_fields",
            "served_revision",
        }
        self._events = _read(folder, "events", events, "served_revision")
        self._said = _read(folder, "features", {"kind", "id", "event", "revision"}, "revision")

    def of(self, users: Collection[str]) -> dict[str, list[tuple[int, Event | None]]]:
        """For each user, in the order of arrival: (revision, event; None for one that entered no
        history).
        """
        asked, schema = pa.array(sorted(users), pa.string()), self._schema
        found: dict[str, dict[tuple[int, str], Event | None]] = {user: {} for user in users}
        if self._events is not None:
            for row in self._events.filter(pc.is_in(self._events[schema.user], asked)).to_pylist():
                enters = (
                    row["served_kind"] == "interaction" or schema.history_source == "impressions"
                )
                # in the logs of several versions an event stands several times
                found[row[schema.user]].setdefault(
                    (row["served_revision"], row["served_event"]),
                    self._event(row) if enters else None,
                )
        if self._said is not None:
            of_users = pc.and_(
                pc.equal(self._said["kind"], "user"), pc.is_in(self._said["id"], asked)
            )
            for row in self._said.filter(of_users).to_pylist():
                found[row["id"]].setdefault((row["revision"], row["event"]), None)
        return {
            user: [(at, one) for (at, _), one in sorted(rows.items(), key=_revision)]
            for user, rows in found.items()
        }

    def _event(self, row: dict[str, Any]) -> Event:
        time = row[self._clock]
        return Event(
            id=row["served_event"],
            kind=row["served_kind"],
            time_ms=TIMELESS_MS if time is None else _ms(time),
            user=row[self._schema.user],
            item=row[self._schema.item],
            action=row[self._action],
            fields=json.loads(row["served_fields"] or "{}"),
            ranking=row["served_ranking"],
            received_ms=_ms(row["served_received"]),
        )


def history_at(
    arrived: list[tuple[int, Event | None]], revision: int, *, cap: int | None, ttl_ms: int | None
) -> list[Event] | None:
    """What a user's history was at a revision, by time; None where the log lacks the event that
    made the revision.
    """
    kept: list[Event] = []
    last = newest = 0
    for at, event in arrived:
        if at > revision:
            break
        if (
            ttl_ms is not None and last and at // 1000 - last // 1000 > ttl_ms
        ):  # a revision is the store's clock
            kept, newest = [], 0
        last = at
        if event is not None:
            kept.append(event)
            newest = at
    if newest != revision:
        return None
    kept.sort(key=lambda event: event.time_ms)  # stable: equal times stay in the order of arrival
    return kept if cap is None else kept[-cap:]


def _revision(pair: tuple[tuple[int, str], Event | None]) -> int:
    return pair[0][0]


def _ms(time: datetime) -> int:
    return round(time.timestamp() * 1000)


def _read(folder: Path, table: str, columns: set[str], revision: str) -> pa.Table | None:
    """The ``columns`` of all files of a table; logs beside the folder's own, of another schema, may
    lack some and are left out.
    """
    found = []
    own = sorted((folder / table).glob("*.parquet"))
    for path in [*own, *(path for path in log_files(folder.parent, table) if path not in own)]:
        there = log_columns(path)
        if columns <= there:
            found.append(read_log_table(path, sorted(columns)))
        elif path in own and revision not in there:
            raise DataError(
                f"{path}: logged without revisions; name the server's store to replay it"
            )
    return pa.concat_tables(found) if found else None
