"""`hemix simulate`: the city's logs, with the truth apart.

    LOGS/
      schema.yaml
      impressions.parquet        days 0 .. days - 1, by user, time and position
      events.parquet             90 days of past and the logged days, by user and time
      items.parquet  users.parquet
      truth/city.json   users, days and seed, so that its users can live on (hemix experiment)
      truth/impressions.parquet
      p_click, p_order, p_order_given_click, intent: row by row with the impressions

Users are simulated in chunks, one row group a chunk, so that memory does not grow with their
number; the rows do not depend on the chunks. This module knows nothing of how users live.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hemix.errors import UsageError
from hemix.files import new_folder
from hemix.lab.simulator import tables
from hemix.lab.simulator.city import CITY_FORMAT, City, build_city
from hemix.lab.simulator.record import record

__all__ = ["simulate"]

_CHUNK_USERS = 2000
"""At most; larger chunks are faster and take more memory."""
_LEAST_DAYS = 3
_MOST_USERS = 1_000_000
_MOST_DAYS = 1_000
"""The numbering of users and of requests has room for so many."""


def simulate(
    out: Path,
    *,
    users: int,
    days: int,
    seed: int,
    progress: Callable[[str, float], None] | None = None,
) -> dict[str, Any]:
    """Write the logs of ``users`` over ``days`` into a new folder ``out``; the same (users, days,
    seed) gives the same rows.

    ``progress`` is called with what is going on and the share done. Returns counts. Raises
    UsageError for numbers out of range and for an ``out`` that is not empty, before anything is
    made; StorageError for a disk that cannot be written. An interruption leaves nothing behind.
    """
    if not 1 <= users <= _MOST_USERS:
        raise UsageError(f"--users: expected 1 to {_MOST_USERS}, got {users}")
    if not _LEAST_DAYS <= days <= _MOST_DAYS:
        raise UsageError(
            f"--days: expected {_LEAST_DAYS} (one each to train, validate and test) to "
            f"{_MOST_DAYS}, got {days}"
        )
    with new_folder(out) as folder:
        city = build_city(users, days, seed)
        (folder / "schema.yaml").write_text(tables.schema_text(city), encoding="utf-8")
        pq.write_table(tables.items_table(city), folder / "items.parquet", compression="zstd")
        (folder / "truth").mkdir()
        asked = {
            "users": users,
            "days": days,
            "seed": seed,
            "parameters": city.parameters.fingerprint(),
        }
        CITY_FORMAT.write(folder / "truth" / "city.json", asked)
        return _write_lives(folder, city, progress or _silent)


def _silent(_what: str, _share: float) -> None: ...


def _write_lives(
    folder: Path, city: City, progress: Callable[[str, float], None]
) -> dict[str, Any]:
    counts = dict.fromkeys(("requests", "impressions", "clicks", "orders", "events"), 0)
    past_events = np.zeros(city.users, dtype=np.int64)
    with ExitStack() as stack:
        writers: dict[str, pq.ParquetWriter] = {}

        def write(name: str, table: pa.Table) -> None:
            if name not in writers:
                path = folder / f"{name}.parquet"
                writers[name] = stack.enter_context(
                    pq.ParquetWriter(path, table.schema, compression="zstd")
                )
            if table.num_rows:
                writers[name].write_table(table, row_group_size=table.num_rows)

        chunks = np.array_split(np.arange(city.users), -(-city.users // _CHUNK_USERS))
        for chunk in chunks:
            people = city.people(chunk)
            done, width = int(chunk[0]) / city.users, len(chunk) / city.users

            def report(share: float, done: float = done, width: float = width) -> None:
                progress("simulate", done + share * width)

            events, impressions = record(city, people, progress=report)
            shown = tables.impressions_table(city, impressions)
            write("users", tables.users_table(city, people))
            write("events", tables.events_table(city, events))
            write("impressions", shown)
            write("truth/impressions", tables.truth_table(city, impressions))

            counts["requests"] += len(np.unique(shown["request_id"].to_numpy()))
            counts["impressions"] += shown.num_rows
            counts["clicks"] += int(impressions["click"].sum())
            counts["orders"] += int(impressions["order"].sum())
            counts["events"] += len(events["user"])
            before = events["time_ms"].astype(np.int64) < city.start_ms
            past_events += np.bincount(
                events["user"][before].astype(np.int64), minlength=city.users
            )
    progress("simulate", 1.0)
    return {
        "users": city.users,
        "days": city.days,
        "items": len(city.places),
        **counts,
        "click_rate": counts["clicks"] / max(counts["impressions"], 1),
        "order_given_click_rate": counts["orders"] / max(counts["clicks"], 1),
        "past_events_median": float(np.median(past_events)),
        "past_events_p99": float(np.percentile(past_events, 99)),
        "parameters": city.parameters.fingerprint(),
    }
