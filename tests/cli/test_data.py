"""``hemix prepare``: refusals of logs that name file, row and key."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cli.run import Command, refused
from tests.planted import SCHEMA, write_logs


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"click": pa.array([2] * 1, pa.int64())}, "click"),
        ({"click": pa.array([float("nan")])}, "found nan"),
        ({"time_ms": pa.array([1_767_571_200])}, "clock.unit: s"),
    ],
)
def test_bad_values_name_file_and_row(
    hemix: Command, tmp_path: Path, change: dict[str, pa.Array], says: str
) -> None:
    logs = write_logs(tmp_path / "logs", users=20)
    table = pq.read_table(logs / "impressions.parquet")
    name, value = next(iter(change.items()))
    column = table[name].cast(value.type).to_pylist()
    column = (
        [value[0].as_py()] * len(column)
        if name == "time_ms"
        else [*column[:17], value[0].as_py(), *column[18:]]
    )
    pq.write_table(
        table.set_column(table.column_names.index(name), name, pa.array(column, value.type)),
        logs / "impressions.parquet",
    )
    line = refused(hemix("prepare", logs, "--out", tmp_path / "data"))
    assert says in line
    assert "impressions.parquet" in line
    assert name == "time_ms" or "17" in line
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("click: {}", "click: {column: is_clicked}", "is_clicked"),
        ("tables: {events: events.parquet", "tables: {events: clicks.parquet", "clicks.parquet"),
        ("test: 2026-01-09", "test: 2027-01-09", "test"),
        ("roles:", "rolls:", "rolls: unknown key"),
    ],
)
def test_a_schema_that_does_not_fit_is_refused_by_key(
    hemix: Command, tmp_path: Path, old: str, new: str, says: str
) -> None:
    logs = write_logs(tmp_path / "logs", users=20, schema=SCHEMA.replace(old, new))
    assert says in refused(hemix("prepare", logs, "--out", tmp_path / "data"))
    assert not (tmp_path / "data").exists()


def test_files_that_are_not_logs(hemix: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "schema.yaml" in refused(
        hemix("prepare", tmp_path / "empty", "--out", tmp_path / "data")
    )
    logs = write_logs(tmp_path / "logs", users=20)
    (logs / "events.parquet").write_text("user,item\n")
    assert "events.parquet" in refused(hemix("prepare", logs, "--out", tmp_path / "data"))
    logs = write_logs(tmp_path / "cut", users=20)
    content = (logs / "impressions.parquet").read_bytes()
    (logs / "impressions.parquet").write_bytes(content[: len(content) // 2])
    assert "impressions.parquet" in refused(hemix("prepare", logs, "--out", tmp_path / "data"))
    logs = write_logs(tmp_path / "strangers", users=20)
    events = pq.read_table(logs / "events.parquet")
    stranger = pa.array([f"x{n}" for n in range(events.num_rows)])
    pq.write_table(events.set_column(0, "user_id", stranger), logs / "events.parquet")
    assert "events.parquet" in refused(hemix("prepare", logs, "--out", tmp_path / "data"))


@pytest.mark.parametrize("partitions", [0, 1_000_001])
def test_a_number_of_partitions_out_of_range(
    hemix: Command, tmp_path: Path, partitions: int
) -> None:
    logs = write_logs(tmp_path / "logs", users=20)
    result = hemix("prepare", logs, "--out", tmp_path / "data", "--partitions", partitions)
    assert "--partitions" in refused(result)


def test_another_number_of_partitions_than_that_of_init_from(
    hemix: Command, tmp_path: Path
) -> None:
    logs = write_logs(tmp_path / "logs", users=20)
    assert hemix("prepare", logs, "--out", tmp_path / "first", "--partitions", 2)[0] == 0
    arguments = ("--init-from", tmp_path / "first", "--partitions", 3)
    line = refused(hemix("prepare", logs, "--out", tmp_path / "data", *arguments))
    assert "--partitions 3" in line and "has 2" in line


def test_a_table_of_a_catalog(hemix: Command, tmp_path: Path) -> None:
    schema = SCHEMA.replace("events: events.parquet", "events: 'spark://lake.events'")
    logs = write_logs(tmp_path / "logs", users=20, schema=schema)
    line = refused(hemix("prepare", logs, "--out", tmp_path / "data"))
    assert "tables.events" in line and "--engine spark" in line


def test_columns_whose_types_differ_between_files(hemix: Command, tmp_path: Path) -> None:
    """Numbers beside days: their values have no text in common."""
    logs = write_logs(tmp_path / "logs", users=20)
    users = pq.read_table(logs / "users.parquet")
    (logs / "users.parquet").unlink()
    (logs / "users.parquet").mkdir()
    for name, kind in (("a", pa.int64()), ("b", pa.date32())):
        ids = pa.nulls(users.num_rows, kind)
        table = users.set_column(users.column_names.index("user_id"), "user_id", ids)
        pq.write_table(table, logs / "users.parquet" / f"{name}.parquet")
    line = refused(hemix("prepare", logs, "--out", tmp_path / "data"))
    assert "b.parquet" in line and "user_id" in line
