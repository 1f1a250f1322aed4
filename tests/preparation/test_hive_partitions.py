"""Columns in the names of folders, and logs behind links."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hemix.backfill import logged_events
from hemix.errors import DataError
from hemix.preparation import prepare
from hemix.preparation.log_table import LogTable
from hemix.preparation.logs import open_logs
from tests.data.small import PLAIN, at, shown, write
from tests.refusals import raises

DAYS = ["2026-01-05", "2026-01-06", "2026-01-07"]


def folders(root: Path, files: Mapping[str, Mapping[str, Any] | pa.Table]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(
            content if isinstance(content, pa.Table) else pa.table(dict(content)), root / name
        )
    return root


def table(root: Path, files: Mapping[str, Mapping[str, Any]]) -> LogTable:
    return LogTable(folders(root, files), "tables.impressions")


def column(opened: LogTable, name: str) -> list[Any]:
    return [
        value for chunk in opened.chunks([name], 10) for value in chunk.columns[name].to_pylist()
    ]


def test_types_of_partition_columns(tmp_path: Path) -> None:
    files = {
        "dt=2026-01-05/hour=08/n=7/x=__HIVE_DEFAULT_PARTITION__/a%2Fb=p%3Dq%20r/1.parquet": {
            "v": [1, 2]
        },
        "dt=2026-01-06/hour=11/n=__HIVE_DEFAULT_PARTITION__/"
        "x=__HIVE_DEFAULT_PARTITION__/a%2Fb=caf%C3%A9/1.parquet": {"v": [3]},
    }
    opened = table(tmp_path, files)
    assert opened.names == ["v", "dt", "hour", "n", "x", "a/b"]
    assert [opened.arrow_schema.field(n).type for n in opened.names[1:]] == [
        pa.string(),
        pa.int64(),
        pa.int64(),
        pa.null(),
        pa.string(),
    ]
    assert column(opened, "dt") == ["2026-01-05", "2026-01-05", "2026-01-06"]
    assert column(opened, "hour") == [8, 8, 11]
    assert column(opened, "n") == [7, 7, None]
    assert column(opened, "x") == [None, None, None]
    assert column(opened, "a/b") == ["p=q r", "p=q r", "caf\u00e9"]
    assert [chunk.rows for chunk in opened.chunks(["dt", "hour"], 1)] == [1, 1, 1]
    assert opened.value(2, "n") is None


def test_partition_values_are_text_unless_all_are_whole_numbers(tmp_path: Path) -> None:
    opened = table(tmp_path, {"k=01/1.parquet": {"v": [1]}, "k=a/1.parquet": {"v": [2]}})
    assert column(opened, "k") == ["01", "a"]
    opened = table(tmp_path / "large", {f"k={2**64}/1.parquet": {"v": [1]}})
    assert column(opened, "k") == [str(2**64)]


def test_a_stored_column_has_priority_over_the_folders_name(tmp_path: Path) -> None:
    opened = table(
        tmp_path, {"dt=1/1.parquet": {"v": [1], "dt": [9]}, "dt=2/1.parquet": {"v": [2]}}
    )
    assert column(opened, "dt") == [9, 2]
    opened = table(
        tmp_path / "text", {"dt=02/1.parquet": {"v": [2]}, "dt=1/1.parquet": {"dt": ["a"]}}
    )
    assert column(opened, "dt") == ["02", "a"]


def test_a_partition_column_missing_in_some_folders(tmp_path: Path) -> None:
    rows = shown([("u", "i", at(0), 1)])
    logs = write(tmp_path / "logs", PLAIN + "features: {context: {dt: {type: categorical}}}")
    shows = logs / "impressions.parquet"
    folders(shows, {"dt=1/1.parquet": rows, "2.parquet": rows})
    values = (shows / "2.parquet", "features.context.dt")
    with raises(DataError, *values, code="missing_column", field="dt"):
        prepare(logs, tmp_path / "data")
    folders(shows, {"dt=1/dt=2/1.parquet": rows})
    with raises(DataError, "dt=1/dt=2/1.parquet", field="dt"):
        prepare(logs, tmp_path / "data")


SCHEMA = """
name: parts
labels: {click: {}}
tables: {events: events.parquet, items: items.parquet, users: users.parquet}
roles: {request_id: req}
features:
  user: {country: {type: categorical, vocabulary: {min_count: 1}}}
  item: {brand: {type: categorical, vocabulary: {min_count: 1}}}
  context: {site: {type: categorical, vocabulary: {min_count: 1}}}
history: {fields: {app: {type: categorical, vocabulary: {min_count: 1}}}}
split: {column: dt, valid: 2026-01-06, test: 2026-01-07}
"""


def partitioned(root: Path) -> None:
    for day, dt in enumerate(DAYS):
        rows = shown([("u", "i", at(day, 1), day % 2), ("u", "j", at(day, 1), 0)])
        folders(
            root / "impressions.parquet",
            {f"dt={dt}/site=s{day % 2}/req={day}/part-0.parquet": rows},
        )
        events = {"user_id": ["u"], "item_id": ["i"], "time_ms": [at(day)], "action": ["view"]}
        folders(root / "events.parquet", {f"app=a{day}/0.parquet": events})
    folders(
        root / "items.parquet",
        {f"brand={b}/0.parquet": {"item_id": [i]} for b, i in (("x", "i"), ("y", "j"))},
    )
    folders(root / "users.parquet", {"country=de/0.parquet": {"user_id": ["u"]}})


def check(data: Path, logs: Path) -> None:
    manifest = prepare(logs, data, partitions=1)
    assert {
        name: (split["rows"], split["requests"]) for name, split in manifest["splits"].items()
    } == {
        "train": (2, 1),
        "valid": (2, 1),
        "test": (2, 1),
    }
    assert manifest["unknown_rate"]["valid"]["context.site"] == 1.0  # train holds s0 alone
    assert manifest["unknown_rate"]["test"]["context.site"] == 0.0
    assert manifest["missing_rate"]["test"] == dict.fromkeys(
        ("context.site", "item.brand", "user.country"), 0.0
    )
    ids = np.load(data / "partitions" / "00000" / "history" / "ids.npy")
    assert ids.shape == (3, 2) and (ids[:, 1] != 1).all()  # the field app is there


def test_every_table_and_role(tmp_path: Path) -> None:
    logs = write(tmp_path / "logs", SCHEMA)
    partitioned(logs)
    check(tmp_path / "data", logs)
    chunks = [events for _, events in logged_events(open_logs(logs, None))]
    assert [event.fields for events in chunks for event in events] == [
        {"app": "a0"},
        {"app": "a1"},
        {"app": "a2"},
    ]


@pytest.fixture
def bucket() -> Iterator[fsspec.AbstractFileSystem]:
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/parts", recursive=True)


def test_logs_in_another_file_system(tmp_path: Path, bucket: fsspec.AbstractFileSystem) -> None:
    partitioned(tmp_path / "local")
    bucket.put(f"{tmp_path}/local/", "/parts/", recursive=True)
    urls = ", ".join(
        f"{t}: memory://parts/{t}.parquet" for t in ("impressions", "events", "items", "users")
    )
    head, _, tail = SCHEMA.partition("tables: {")
    check(
        tmp_path / "data",
        write(tmp_path / "logs", f"{head}tables: {{{urls}}}{tail[tail.index('}') + 1 :]}"),
    )


def test_links_to_folders_and_files(tmp_path: Path) -> None:
    partitioned(tmp_path / "elsewhere")
    logs = write(tmp_path / "real", SCHEMA)
    (tmp_path / "logs").symlink_to(logs)
    for name in ("events", "items", "users"):
        (logs / f"{name}.parquet").symlink_to(tmp_path / "elsewhere" / f"{name}.parquet")
    shows = logs / "impressions.parquet"
    shows.mkdir()
    for dt in DAYS:
        (shows / f"dt={dt}").symlink_to(tmp_path / "elsewhere" / "impressions.parquet" / f"dt={dt}")
    (shows / "back").symlink_to(shows)  # a link back is not followed for ever
    check(tmp_path / "data", tmp_path / "logs")
    (shows / "gone.parquet").symlink_to(tmp_path / "nowhere")
    gone = tmp_path / "logs" / "impressions.parquet" / "gone.parquet"
    with raises(DataError, code="unreadable_file", field=gone):
        prepare(tmp_path / "logs", tmp_path / "again")


def test_a_file_that_is_a_link(tmp_path: Path) -> None:
    logs = write(tmp_path / "logs", impressions=shown([("u", "i", at(day), 1) for day in range(3)]))
    (logs / "impressions.parquet").rename(tmp_path / "shown.parquet")
    (logs / "impressions.parquet").symlink_to(tmp_path / "shown.parquet")
    assert prepare(logs, tmp_path / "data")["tables"]["impressions"] == {"rows": 3, "files": 1}


def test_partitioned_logs_give_the_dataset_of_plain_logs(tmp_path: Path) -> None:
    """Folders whose names are no columns stay what they were; a hidden folder is a column where its
    name says so.
    """
    rows = [("u", "i", at(day, hour), 1) for day in range(3) for hour in range(2)]
    logs = write(tmp_path / "logs", PLAIN + "features: {context: {_h: {type: categorical}}}")
    files = {f"a/_h={i}/0.parquet": shown([row]) for i, row in enumerate(rows)}
    folders(logs / "impressions.parquet", files | {"_temporary/0/0.parquet": shown(rows)})
    assert prepare(logs, tmp_path / "data")["tables"]["impressions"] == {"rows": 6, "files": 6}


def bytes_of(root: Path, name: bytes, content: Mapping[str, Any]) -> None:
    folder = root / os.fsdecode(name)
    folder.mkdir(parents=True)
    with (folder / "1.parquet").open("wb") as stream:
        pq.write_table(pa.table(dict(content)), stream)


def test_a_folders_name_that_is_not_utf8(tmp_path: Path) -> None:
    """Two values of one byte each are two values; where the schema names the column they are
    refused as in a file.
    """
    day = shown([("u", "i", at(0), 1)])
    files = {
        "k=%FF/1.parquet": day,
        "k=%FE/1.parquet": shown([("u", "i", at(1), 0)]),
        "k=a/1.parquet": shown([("u", "i", at(2), 0)]),
    }
    opened = table(tmp_path / "read", files)
    assert column(opened, "k") == [b"\xfe", b"\xff", b"a"]
    logs = write(tmp_path / "logs", PLAIN)
    folders(logs / "impressions.parquet", files)
    prepare(logs, tmp_path / "data")
    (logs / "schema.yaml").write_text(PLAIN + "features: {context: {k: {type: categorical}}}\n")
    with raises(DataError, "k=%FE/1.parquet: row 0", "UTF-8", field="k"):
        prepare(logs, tmp_path / "none")


def test_a_path_that_is_not_utf8(tmp_path: Path) -> None:
    for number, name in enumerate((b"caf\xe9", b"k=\xff", b"k=b")):
        bytes_of(tmp_path / "shown", name, shown([("u", "i", at(number), number % 2)]))
    logs = write(
        tmp_path / "logs", PLAIN.replace("labels", "tables: {impressions: ../shown}\nlabels", 1)
    )
    assert prepare(logs, tmp_path / "data")["splits"]["train"]["rows"] == 1
    (logs / "schema.yaml").write_text(
        (logs / "schema.yaml").read_text() + "roles: {request_id: k}\n"
    )
    with pytest.raises(DataError) as error:
        prepare(logs, tmp_path / "none")
    str(error.value).encode()  # can be printed
