"""Write the logs of a simulated city, as ``hemix simulate`` does.

LOGS holds schema.yaml, impressions.parquet, events.parquet, items.parquet and users.parquet;
LOGS/truth holds the city's parameters and, for every impression, the true probabilities.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hemix.errors import UsageError
from hemix.files import new_folder
from hemix.lab.simulator import tables
from hemix.lab.simulator.city import CITY_FORMAT, City, build_city
from hemix.lab.simulator.generate import Columns, generate_logs
from hemix.lab.simulator.parameters import CityParameters

__all__ = ["simulate"]

_CHUNK_USERS = 2000
"""Users simulated at a time and written as one row group; more are faster and need more memory."""

_MIN_DAYS = 3
_MAX_USERS = 1_000_000
_MAX_DAYS = 1_000
"""The columns of user and request ids have no room for more."""

Progress = Callable[[str, float], None]


def simulate(
    out: Path,
    *,
    users: int,
    days: int,
    seed: int,
    parameters: CityParameters | None = None,
    on_progress: Progress = lambda _stage, _fraction: None,
) -> dict[str, Any]:
    """Simulate a city and write its logs; the same users, days and seed give the same rows.

    Args:
        out: Folder to create; it must not exist, or be empty. An interruption leaves nothing.
        users: Number of users, 1 to 1,000,000.
        days: Number of logged days, 3 to 1,000.
        seed: Seed of all random draws.
        parameters: Constants of the city; None: those of this version.
        on_progress: Called with the stage and its finished fraction, 0 to 1.

    Returns:
        Counts and rates of the logs, and the fingerprint of the city's parameters.

    Raises:
        UsageError: If a number is out of range or ``out`` is not empty.
        StorageError: If the disk cannot be written.
    """
    if not 1 <= users <= _MAX_USERS:
        raise UsageError(f"--users: expected 1 to {_MAX_USERS}, got {users}", field="--users")
    if not _MIN_DAYS <= days <= _MAX_DAYS:
        raise UsageError(
            f"--days: expected {_MIN_DAYS} (one each to train, validate and test) to "
            f"{_MAX_DAYS}, got {days}",
            field="--days",
        )
    with new_folder(out) as folder:
        own = {} if parameters is None else {"parameters": parameters}
        city = build_city(users, days, seed, **own)
        (folder / "schema.yaml").write_text(tables.schema_text(city), encoding="utf-8")
        pq.write_table(tables.items_table(city), folder / "items.parquet", compression="zstd")
        (folder / "truth").mkdir()
        arguments = {"users": users, "days": days, "seed": seed}
        fingerprint = city.parameters.fingerprint()
        CITY_FORMAT.write(folder / "truth" / "city.json", {**arguments, "parameters": fingerprint})
        return _write_users(folder, city, on_progress)


def _write_users(folder: Path, city: City, on_progress: Progress) -> dict[str, Any]:
    """Simulate and write all users in chunks, so that memory does not grow with their number."""
    totals = _Totals(city)
    chunks = np.array_split(np.arange(city.user_count), -(-city.user_count // _CHUNK_USERS))
    with _TableWriters(folder) as writers:
        for chunk in chunks:
            users = city.users(chunk)
            done, width = int(chunk[0]) / city.user_count, len(chunk) / city.user_count

            def report(fraction: float, done: float = done, width: float = width) -> None:
                on_progress("simulate", done + fraction * width)

            events, impressions = generate_logs(city, users, on_progress=report)
            writers.write("users", tables.users_table(city, users))
            writers.write("events", tables.events_table(city, events))
            writers.write("impressions", tables.impressions_table(city, impressions))
            writers.write("truth/impressions", tables.truth_table(city, impressions))
            totals.add(events, impressions)
    on_progress("simulate", 1.0)
    return totals.summary()


class _TableWriters:
    """Write the Parquet files of a folder, one row group per call."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._writers: dict[str, pq.ParquetWriter] = {}

    def __enter__(self) -> _TableWriters:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    def write(self, name: str, table: pa.Table) -> None:
        """Append a table to its file, which is created even for an empty table.

        Args:
            name: The file's name without ``.parquet``.
            table: The rows.
        """
        if name not in self._writers:
            writer = pq.ParquetWriter(
                self._folder / f"{name}.parquet", table.schema, compression="zstd"
            )
            self._writers[name] = self._stack.enter_context(writer)
        if table.num_rows:
            self._writers[name].write_table(table, row_group_size=table.num_rows)


class _Totals:
    """Add up the logs of all chunks."""

    def __init__(self, city: City) -> None:
        self._city = city
        self._counts = dict.fromkeys(("requests", "impressions", "clicks", "orders", "events"), 0)
        self._past_events = np.zeros(city.user_count, dtype=np.int64)
        """[users]: events before the first logged day."""

    def add(self, events: Columns, impressions: Columns) -> None:
        counts, city = self._counts, self._city
        counts["requests"] += len(np.unique(tables.request_ids(impressions)))
        counts["impressions"] += len(impressions["user"])
        counts["clicks"] += int(impressions["click"].sum())
        counts["orders"] += int(impressions["order"].sum())
        counts["events"] += len(events["user"])
        is_past = events["time_ms"].astype(np.int64) < city.start_ms
        past_users = events["user"][is_past].astype(np.int64)
        self._past_events += np.bincount(past_users, minlength=city.user_count)

    def summary(self) -> dict[str, Any]:
        counts, city = self._counts, self._city
        return {
            "users": city.user_count,
            "days": city.days,
            "items": len(city.venues),
            **counts,
            "click_rate": counts["clicks"] / max(counts["impressions"], 1),
            "order_given_click_rate": counts["orders"] / max(counts["clicks"], 1),
            "past_events_median": float(np.median(self._past_events)),
            "past_events_p99": float(np.percentile(self._past_events, 99)),
            "parameters": city.parameters.fingerprint(),
        }
