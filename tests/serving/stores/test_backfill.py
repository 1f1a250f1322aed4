"""``hemix store load``: the events it stores are the histories that ``hemix prepare`` makes of the
same logs.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hemix import api
from hemix.backfill import logged_events
from hemix.data.dataset import Dataset
from hemix.data.encode import Encoders
from hemix.data.history import find_history_ranges
from hemix.data.keys import keys_of
from hemix.errors import DataError, HemixError, StoreError, UsageError
from hemix.features import CalendarField, Categorical
from hemix.preparation import prepare
from hemix.preparation.logs import open_logs
from hemix.serving.stores import Store, StoreLimits, open_store
from hemix.serving.types import Event
from tests.cli.run import Command, refused
from tests.data.small import PLAIN, at, write
from tests.refusals import raises
from tests.serving.redis_server import RedisServer
from tests.serving.stores.conftest import empty

IMPRESSIONS = """
name: shown
clock: {unit: s, timezone: Asia/Shanghai}
history: {fields: {tab: {type: categorical, vocabulary: {min_count: 1}}, price: {type: numeric,
  buckets: 4},
                   hour: {type: clock, part: hour}}, global_length: 4, realtime_length: 2}
labels: {click: {}, order: {given: click, available_at: known_s}, gift: {given: order,
  available_at: known_s}}
split: {valid: 2026-01-06, test: 2026-01-07}
"""
EVENTS = """
name: apart
tables: {events: events.parquet}
history: {clock_column: when, action: {column: deed, vocabulary: {min_count: 1}},
          fields: {paid: {type: numeric, buckets: 2}, flag: {type: categorical,
            vocabulary: {min_count: 1}},
                   at: {type: categorical, column: day, vocabulary: {min_count: 1}}}}
labels: {click: {}}
split: {valid: 2026-01-06, test: 2026-01-07}
"""


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    server: RedisServer = request.getfixturevalue("redis_server")
    empty(server)
    return server.url


def shown_logs(folder: Path) -> Path:
    """Impressions out of order, twice there, of several labels some of which became known later,
    whole numbers as ids.
    """
    rng = np.random.default_rng(3)
    rows: list[dict[str, Any]] = []
    for n in range(120):
        when = at(n % 3, int(rng.integers(0, 24))) // 1000
        click, order, gift = (int(v) for v in rng.integers(0, 2, 3))
        rows.append(
            {
                "user_id": int(rng.integers(0, 4)),
                "item_id": int(rng.integers(0, 9)),
                "time_ms": when,
                "click": click,
                "order": None if n % 11 == 0 else order,
                "gift": gift,
                "known_s": [None, when, when + 5_000][int(rng.integers(3))],
                "tab": None if n % 7 == 0 else f"t{n % 3}",
                "price": None if n % 5 == 0 else float(rng.random()),
            }
        )
    rows += rows[10:60:7]
    return write(
        folder,
        IMPRESSIONS,
        impressions=pa.Table.from_pylist([rows[n] for n in rng.permutation(len(rows))]),
    )


def event_logs(folder: Path) -> Path:
    """Events of their own: without times, twice there, of users without impressions, with fields of
    every type.
    """
    times = [at(0, 3), None, at(-1, 5), at(0, 3), at(0, 3), None, None, at(1, 2), at(-1, 5), at(-2)]
    events = pa.table(
        {
            "user_id": ["u", "u", "u", "u", "v", "u", "u", "v", "u", "nobody"],
            "item_id": [1, 2, 3, 4, 1, 2, 2, 5, 3, 1],
            "when": pa.array([None if t is None else t * 1000 for t in times], pa.timestamp("us")),
            "deed": pa.array(
                ["see", "buy", None, "see", "see", "buy", "buy", "buy", None, "see"]
            ).dictionary_encode(),
            "paid": pa.array([None, 3, 4, 5, 6, 3, 3, 9, 4, 1], pa.int64()),
            "flag": [True, False, None, True, True, False, False, True, None, False],
            "day": pa.array(
                [20_000, 20_001, None, 20_000, 1, 20_001, 20_001, 3, None, 4], pa.int32()
            ).cast(pa.date32()),
        }
    )
    shown = {
        "user_id": ["u", "v", "u"],
        "item_id": [1, 2, 3],
        "time_ms": [at(0, 9), at(1), at(2)],
        "click": [1, 0, 1],
    }
    return write(folder, EVENTS, impressions=shown, events=events)


TYPED = """
name: typed
tables: {events: events.parquet}
history: {action: {vocabulary: {min_count: 1}},
          fields: {price: {type: categorical, vocabulary: {min_count: 1}},
            noon: {type: categorical, vocabulary: {min_count: 1}},
                   seen: {type: categorical, vocabulary: {min_count: 1}}, code: {type: categorical,
                     vocabulary: {min_count: 1}},
                   rate: {type: numeric, buckets: 4}}}
labels: {click: {}}
split: {valid: 2026-01-06, test: 2026-01-07}
"""


def typed_logs(folder: Path) -> Path:
    """Events whose ids, action and fields are of types that JSON does not have, and numbers that
    say "no value".
    """
    moments = [at(0, hour) for hour in range(6)]
    events = pa.table(
        {
            "user_id": pa.array([Decimal(n % 2) for n in range(6)], pa.decimal128(38, 18)),
            "item_id": pa.array([2**63 + n for n in range(6)], pa.uint64()),
            "time_ms": moments,
            "action": pa.array([b"see", b"buy"] * 3, pa.large_binary()),
            "price": pa.array([Decimal(n) / 4 for n in range(6)], pa.decimal128(9, 3)),
            "noon": pa.array([43_200, None] * 3, pa.time32("s")),
            "seen": pa.array(moments, pa.timestamp("ms", "Asia/Tokyo")),
            "code": pa.array([0.1, 3, None] * 2, pa.float32()),
            "rate": [1.7976931348623157e308, -1e300, 1.0, 2.0, 3.0, None],
        }
    )
    shown = {
        "user_id": [0, 1, 0],
        "item_id": [2**62, 5, 6],
        "time_ms": [at(0, 9), at(1), at(2)],
        "click": [1, 0, 1],
    }
    return write(folder, TYPED, impressions=shown, events=events)


@pytest.fixture(params=["shown", "events", "typed", "planted", "rich"])
def logs(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    match request.param:
        case "shown":
            return shown_logs(tmp_path / "logs")
        case "events":
            return event_logs(tmp_path / "logs")
        case "typed":
            return typed_logs(tmp_path / "logs")
    folder: Path = request.getfixturevalue(f"{request.param}_logs")
    return folder


def stored(url: str, impressions: bool) -> Store:
    return open_store(url, StoreLimits(impressions=impressions))


def encoded(encoders: Encoders, events: tuple[Event, ...]) -> np.ndarray:
    """int32 [E, fields]: from the events' JSON values."""
    (action,) = encoders.schema.event_fields["action"].columns("action")
    values = {action: pa.array([e.action for e in events], pa.string())}
    for name, field in encoders.schema.event_fields.items():
        if name != "action" and not isinstance(field, CalendarField):
            (column,) = field.columns(name)
            kind = pa.string() if isinstance(field, Categorical) else pa.float64()
            values[column] = pa.array([e.fields.get(column) for e in events], kind)
    time_ms = np.array([e.time_ms for e in events], np.int64)
    return encoders.encode("event", values, len(events), time_ms=time_ms).ids


def test_the_histories_that_prepare_makes(logs: Path, url: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    manifest = prepare(logs, data)
    counts = api.store_load(logs, url)
    assert counts["accepted"] == manifest["history"]["events"]
    assert (
        counts["duplicates"]
        == manifest["history" if manifest["history"]["source"] == "events" else "impressions"][
            "duplicates"
        ]
    )

    encoders, dataset = Encoders.load(data / "encoders"), Dataset(data)
    item_number = np.load(data / "items" / "number.npy")
    store = stored(url, manifest["history"]["source"] == "impressions")
    items = {
        str(item): n
        for n, item in enumerate(
            pq.read_table(data / "ids" / "items.parquet").column("id").to_pylist()
        )
    }
    compared = 0
    users = [
        (user, history, slice(*history.offsets[number : number + 2].tolist()))
        for partition in map(dataset.partition, dataset.partitions)
        for history in [partition.history]
        for number, user in enumerate(partition.user_ids.to_pylist())
    ]
    for user, history, own in users:
        events, time_ms = store.history(str(user), limit=10_000).events, history.time_ms
        assert [e.time_ms for e in events] == time_ms[own].tolist()
        of_events = item_number[history.item_row[own]]
        assert [items[e.item or ""] for e in events] == of_events.tolist()
        np.testing.assert_array_equal(encoded(encoders, events), history.ids[own])
        for request_ms in (at(0, 12), at(1), at(2, 23)):
            ours = np.array([e.time_ms for e in events], np.int64)
            schema = encoders.schema
            ranges = [
                find_history_ranges(
                    times,
                    np.array([first]),
                    np.array([last]),
                    np.array([request_ms]),
                    schema.history,
                    schema.clock.timezone,
                    delay_ms=0,
                )
                - first
                for times, first, last in ((ours, 0, len(ours)), (time_ms, own.start, own.stop))
            ]
            np.testing.assert_array_equal(ranges[0], ranges[1])
        compared += len(events)
    assert compared == manifest["history"]["events"] > 0
    assert (encoders.items.look_up(keys_of(pa.array(list(items))), -1) >= 0).any()
    store.close()


def test_a_second_load_adds_only_new_events(tmp_path: Path, url: str) -> None:
    logs = event_logs(tmp_path / "logs")
    first = api.store_load(logs, url)
    store = stored(url, False)
    before = store.history("u", limit=99)
    again = api.store_load(logs, url)
    assert (
        again["accepted"] == 0
        and again["duplicates"] == first["events"] == 10
        and first["duplicates"] == 1
    )
    assert store.history("u", limit=99) == before
    events = pq.read_table(logs / "events.parquet")
    new = events.slice(0, 1).set_column(2, "when", pa.array([at(1, 20) * 1000], pa.timestamp("us")))
    pq.write_table(pa.concat_tables([events, new.cast(events.schema)]), logs / "events.parquet")
    assert api.store_load(logs, url)["accepted"] == 1
    assert len(store.history("u", limit=99).events) == len(before.events) + 1
    store.close()


EVENTS_SCHEMA = (
    PLAIN + "tables: {events: event_log}\nhistory: {fields: {paid: {type: numeric, buckets: 2}}}\n"
)


def logs_with_events_table(folder: Path) -> Path:
    """Events of which two differ in a column that the schema does not name, two in none, and two
    have no time.
    """
    shown = {
        "user_id": [1, 2, 1],
        "item_id": [1, 2, 3],
        "time_ms": [at(0, 9), at(1), at(2)],
        "click": [1, 0, 1],
    }
    logs = write(folder, EVENTS_SCHEMA, impressions=shown)
    (logs / "event_log").mkdir()
    pq.write_table(events_table(), logs / "event_log" / "b.parquet")
    return logs


def events_table() -> pa.Table:
    times = [at(-1), at(-1), at(-1, 2), at(-1, 2), None, None, at(-1, 3)]
    return pa.table(
        {
            "user_id": [1] * 7,
            "item_id": [1, 1, 2, 2, 3, 3, 4],
            "time_ms": times,
            "action": ["view"] * 7,
            "paid": pa.array([0.1, 0.1, None, None, 2, 2, 3.5], pa.float32()),
            "page": ["p", "q", "r", "r", "s", "s", "t"],
        }
    )


def moved(table: pa.Table, **kinds: pa.DataType) -> pa.Table:
    for name, kind in kinds.items():
        values = (
            table[name].cast(pa.timestamp("ms")) if pa.types.is_timestamp(kind) else table[name]
        )
        table = table.set_column(table.column_names.index(name), name, values.cast(kind))
    return table


NEW = pa.table(
    {
        "user_id": [2],
        "item_id": [9],
        "time_ms": [at(1, 5)],
        "action": ["view"],
        "paid": [1.0],
        "page": ["p"],
    }
)


@pytest.mark.parametrize(
    ("file", "content", "accepted"),
    [
        ("c", NEW, 1),
        ("c", NEW.drop_columns("page"), 1),
        ("a", NEW.select(list(reversed(NEW.column_names))), 1),
        ("c", moved(NEW, user_id=pa.string(), item_id=pa.decimal128(25, 2), paid=pa.float32()), 1),
        (
            "a",
            moved(NEW, time_ms=pa.timestamp("ms", "Europe/Berlin")).append_column(
                "more", pa.array([{"a": b"\xff"}])
            ),
            1,
        ),
        ("c", pa.concat_tables([NEW, NEW]), 1),
        ("c", pa.concat_tables([NEW, NEW.set_column(5, "page", pa.array(["q"]))]), 2),
        # the same file once more, written otherwise
        ("b", events_table(), 0),
        (
            "b",
            events_table().select(["page", "paid", "action", "time_ms", "item_id", "user_id"]),
            0,
        ),
        ("b", events_table().drop_columns("page"), 0),
        ("b", events_table().set_column(5, "page", pa.array(["later", *"qrrsst"])), 0),
        (
            "b",
            moved(
                events_table(),
                user_id=pa.string(),
                item_id=pa.float64(),
                time_ms=pa.timestamp("us", "UTC"),
                paid=pa.float64(),
            ),
            0,
        ),
        (
            "b",
            events_table().set_column(
                4, "paid", pa.array([0.1, 0.1, None, None, 2, 2, 3.5], pa.float64())
            ),
            0,
        ),
        (
            "b",
            events_table().append_column("more", pa.array(range(7))),
            1,
        ),  # the two that were equal differ now
        ("b", events_table().set_column(3, "action", pa.array(["click", *["view"] * 6])), 1),
    ],
)
def test_an_event_stays_itself_when_logs_grow_or_are_written_anew(
    tmp_path: Path, file: str, content: pa.Table, accepted: int
) -> None:
    logs, db = logs_with_events_table(tmp_path / "logs"), f"sqlite:///{tmp_path / 'store.db'}"
    first = api.store_load(logs, db)
    assert (first["events"], first["accepted"]) == (7, 6) and prepare(logs, tmp_path / "data")[
        "history"
    ]["events"] == 6
    pq.write_table(content, logs / "event_log" / f"{file}.parquet")
    assert api.store_load(logs, db)["accepted"] == accepted


def test_impressions_that_differ_in_a_column_that_another_file_lacks(tmp_path: Path) -> None:
    rows = {
        "user_id": [1, 1, 1],
        "item_id": [1, 1, 2],
        "time_ms": [at(0), at(0), at(1)],
        "click": [1, 1, 0],
        "imp_id": ["a", "b", "c"],
    }
    logs, db = (
        write(tmp_path / "logs", PLAIN + "tables: {impressions: days}\n"),
        f"sqlite:///{tmp_path / 'store.db'}",
    )
    (logs / "days").mkdir()
    pq.write_table(pa.table(rows), logs / "days" / "b.parquet")
    assert api.store_load(logs, db)["accepted"] == 3
    pq.write_table(
        pa.table({"click": [0], "user_id": ["2"], "item_id": ["1"], "time_ms": [at(2)]}),
        logs / "days" / "a.parquet",
    )
    assert api.store_load(logs, db)["accepted"] == 1
    assert prepare(logs, tmp_path / "data")["history"]["events"] == 4


def test_nothing_is_loaded_of_logs_with_a_wrong_value(tmp_path: Path) -> None:
    logs, db = logs_with_events_table(tmp_path / "logs"), f"sqlite:///{tmp_path / 'store.db'}"
    pq.write_table(NEW.set_column(0, "user_id", pa.array([""])), logs / "event_log" / "c.parquet")
    with raises(DataError, "c.parquet", "row 0", field="user_id"):
        api.store_load(logs, db)
    store = stored(db, False)
    assert store.history("1", limit=99).events == ()
    store.close()


def test_it_says_so_where_many_events_are_equal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    api.store_load(logs_with_events_table(tmp_path / "logs"), f"sqlite:///{tmp_path / 'store.db'}")
    assert "1 of 7 rows (14 %)" in caplog.text and "event_log" in caplog.text


def test_the_chunk_size_does_not_matter(logs: Path) -> None:
    def events(rows: int) -> list[tuple[object, ...]]:
        loaded = [
            event for _, chunk in logged_events(open_logs(logs, None), rows) for event in chunk
        ]
        return [(e.id, e.time_ms, e.user, e.item, e.action, e.fields) for e in loaded]

    assert events(3) == events(100_000)


def test_events_without_an_item_are_loaded_and_may_not_be_impressions(tmp_path: Path) -> None:
    columns = {"user_id": ["u", "u"], "item_id": [None, "a"], "time_ms": [at(0, 1), at(0, 2)]}
    shown = {"user_id": ["u"], "item_id": ["a"], "time_ms": [at(0)], "click": [1]}
    schema = PLAIN + "tables: {events: events.parquet}\n"
    events = {**columns, "action": ["search", "view"]}
    logs = write(tmp_path / "logs", schema, impressions=shown, events=events)
    loaded = [e for _, chunk in logged_events(open_logs(logs, None), 10) for e in chunk]
    assert [(e.item, e.action, e.time_ms) for e in loaded] == [
        (None, "search", at(0, 1)),
        ("a", "view", at(0, 2)),
    ]
    assert len({e.id for e in loaded}) == 2
    logs = write(tmp_path / "shown", impressions={**columns, "click": [1, 0]})
    with raises(DataError, field="item_id"):
        list(logged_events(open_logs(logs, None), 10))


def test_progress_and_a_cap(tmp_path: Path, url: str) -> None:
    reports: list[tuple[str, float]] = []
    logs = event_logs(tmp_path / "logs")
    api.store_load(
        logs,
        url,
        history_cap=1,
        on_progress=lambda what, fraction: reports.append((what, fraction)),
    )
    assert reports[-1] == ("loading events", 1.0)
    store = stored(url, False)
    assert len(store.history("u", limit=99).events) == 6  # no cap is below what a request sees
    store.close()


# -- wrong input -----------------------------------------------------------------------------------


def wrong(tmp_path: Path) -> Iterator[tuple[Path, str, type[HemixError], str]]:
    logs = event_logs(tmp_path / "logs")
    db = f"sqlite:///{tmp_path / 'store.db'}"
    yield tmp_path / "none", db, DataError, "no such folder of logs"
    yield logs, "mongo://h", UsageError, "store 'mongo://h': expected memory://, sqlite:///"
    yield logs, "memory://", UsageError, "--store memory://: "
    yield logs, "redis://127.0.0.1:1/0", StoreError, "redis://127.0.0.1:1/0: cannot be reached"
    yield logs, f"sqlite:///{logs / 'schema.yaml'}", StoreError, "not a SQLite database"
    broken = event_logs(tmp_path / "broken")
    events = pq.read_table(broken / "events.parquet")
    pq.write_table(events.drop_columns("deed"), broken / "events.parquet")
    yield broken, db, DataError, "no column 'deed' (history.action)"
    pq.write_table(
        events.set_column(4, "paid", pa.array([1.0] * 9 + [float("nan")])),
        broken / "events.parquet",
    )
    yield (
        broken,
        db,
        DataError,
        "events.parquet: row 9: column 'paid': expected a finite number or null, found nan",
    )


def test_wrong_input_is_one_line(tmp_path: Path) -> None:
    for logs, url, kind, says in wrong(tmp_path):
        with pytest.raises(kind) as refused:
            api.store_load(logs, url)
        assert says in str(refused.value) and "\n" not in str(refused.value)


def test_the_command(hemix: Command, tmp_path: Path) -> None:
    logs, db = event_logs(tmp_path / "logs"), f"sqlite:///{tmp_path / 'store.db'}"
    code, out, err = hemix("store", "load", logs, "--store", db)
    assert code == 0, err
    assert "10 events, 9 accepted, 1 duplicates, 3 users" in out
    line = refused(hemix("store", "load", logs, "--store", "mongo://h"))
    assert line.startswith("store 'mongo://h': expected")


def test_it_loads_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, hemix; hemix.store_load(sys.argv[1], sys.argv[2]); print('torch' in "
        "sys.modules)"
    )
    logs, db = event_logs(tmp_path / "logs"), f"sqlite:///{tmp_path / 'store.db'}"
    done = subprocess.run(
        [sys.executable, "-c", code, str(logs), db], capture_output=True, text=True
    )
    assert done.stdout == "False\n", done.stderr


def test_tables_of_a_catalog_are_refused(hemix: Command, tmp_path: Path) -> None:
    logs = write(tmp_path / "logs", PLAIN + "tables: {impressions: 'spark://lake.shown'}\n")
    store = f"sqlite:///{tmp_path / 'store.db'}"
    line = refused(hemix("store", "load", logs, "--store", store))
    assert "tables.impressions" in line and "spark://lake.shown" in line
    assert not (tmp_path / "store.db").exists()
