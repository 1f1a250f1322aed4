"""Past histories rebuilt from the log of events, also where the store has dropped events since.

An event is in a history from its logged revision on. The cap and the time to live are those that
the ranking logged. Events that the store received elsewhere (a backfill, another server) are not in
the log.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from hemix.data.spec import TIMELESS_MS
from hemix.errors import DataError
from hemix.schema import Schema
from hemix.serving.ranking_log.files import has_column, read_columns, sibling_files
from hemix.serving.ranking_log.tables import LogTables
from hemix.serving.types import Event

__all__ = ["Arrival", "LoggedEvents", "history_at"]

Arrival: TypeAlias = tuple[int, Event | None]
"""Revision and event; None for an event that enters no history"""


class LoggedEvents:
    """The events of a log folder and of its sibling logs.

    Siblings count because a version's log begins when the version is loaded.
    """

    def __init__(self, folder: Path, schema: Schema) -> None:
        """Read the events.

        Args:
            folder: A log folder.
            schema: Schema of the logged model.

        Raises:
            DataError: A file cannot be read, or was logged without revisions.
        """
        raw = LogTables(schema).columns
        self._schema, self._clock, self._action = schema, raw.clock, raw.action
        event_columns = {
            schema.user,
            schema.item,
            raw.clock,
            raw.action,
            "served_event",
            "served_kind",
            "served_ranking",
            "served_received",
            "served_fields",
            "served_revision",
        }
        self._events = _read(folder, "events", event_columns, "served_revision")
        feature_columns = {"kind", "id", "event", "revision"}
        self._features = _read(folder, "features", feature_columns, "revision")

    def of(self, users: Collection[str]) -> dict[str, list[Arrival]]:
        """Return each user's events in the order of arrival."""
        # an event may be in the logs of several versions
        arrivals: dict[str, dict[tuple[int, str], Event | None]] = {user: {} for user in users}
        user_column, ids = self._schema.user, pa.array(sorted(users), pa.string())
        if self._events is not None:
            of_users = pc.is_in(self._events[user_column], ids)
            for row in self._events.filter(of_users).to_pylist():
                key = (row["served_revision"], row["served_event"])
                arrivals[row[user_column]].setdefault(key, self._history_event(row))
        if self._features is not None:
            is_user = pc.equal(self._features["kind"], "user")
            of_users = pc.and_(is_user, pc.is_in(self._features["id"], ids))
            for row in self._features.filter(of_users).to_pylist():
                arrivals[row["id"]].setdefault((row["revision"], row["event"]), None)
        return {
            user: [
                (revision, of_user[revision, event])
                for revision, event in sorted(of_user, key=lambda key: key[0])
            ]
            for user, of_user in arrivals.items()
        }

    def _history_event(self, row: dict[str, Any]) -> Event | None:
        if row["served_kind"] != "interaction" and self._schema.history_source != "impressions":
            return None
        time = row[self._clock]
        return Event(
            id=row["served_event"],
            kind=row["served_kind"],
            time_ms=TIMELESS_MS if time is None else _to_ms(time),
            user=row[self._schema.user],
            item=row[self._schema.item],
            action=row[self._action],
            fields=json.loads(row["served_fields"] or "{}"),
            ranking=row["served_ranking"],
            received_ms=_to_ms(row["served_received"]),
        )


def history_at(
    arrivals: Sequence[Arrival], revision: int, *, cap: int | None, ttl_ms: int | None
) -> list[Event] | None:
    """Return a user's history at a revision, sorted by time.

    Args:
        arrivals: The user's events in the order of arrival.
        revision: Revision of the history.
        cap: The store's cap; None: unlimited.
        ttl_ms: The store's time to live; None: unlimited.

    Returns:
        The events; None where the log lacks the event that made the revision.
    """
    history: list[Event] = []
    previous = newest = 0
    for arrival, event in arrivals:
        if arrival > revision:
            break
        # a revision is the store's clock in microseconds
        gap_ms = arrival // 1000 - previous // 1000
        if ttl_ms is not None and previous and gap_ms > ttl_ms:
            history, newest = [], 0
        previous = arrival
        if event is not None:
            history.append(event)
            newest = arrival
    if newest != revision:
        return None
    history.sort(key=lambda event: event.time_ms)  # stable: equal times keep the order of arrival
    return history if cap is None else history[-cap:]


def _to_ms(time: datetime) -> int:
    return round(time.timestamp() * 1000)


def _read(folder: Path, table: str, columns: set[str], revision: str) -> pa.Table | None:
    """Read columns of a table's files; sibling logs that lack some are left out."""
    own_files = sorted((folder / table).glob("*.parquet"))
    tables = []
    for path in [*own_files, *sibling_files(folder, table)]:
        rows = read_columns(path, columns)
        if rows is not None:
            tables.append(rows)
        elif path in own_files and not has_column(path, revision):
            raise DataError(
                f"{path}: logged without revisions",
                code="missing_column",
                field=revision,
                hint="name the server's store to replay it",
            )
    return pa.concat_tables([rows.select(sorted(columns)) for rows in tables]) if tables else None
