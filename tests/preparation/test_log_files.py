"""Logs that lie in another file system: the same dataset, and errors that name the URL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from hemix.errors import DataError
from hemix.preparation import prepare
from hemix.preparation.log_files import parquet_files
from tests.planted import SCHEMA, write_logs
from tests.preparation.test_inputs import arrays

TABLES = "impressions: memory://bucket/shown, events: memory://bucket/events.parquet, "


@pytest.fixture
def bucket() -> Iterator[fsspec.AbstractFileSystem]:
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/bucket", recursive=True)


@pytest.fixture
def logs(bucket: fsspec.AbstractFileSystem, tmp_path: Path) -> Path:
    """The planted logs: impressions and events in the bucket, users and items beside the schema."""
    schema = SCHEMA.replace("events: events.parquet, ", "").replace(
        "tables: {", f"tables: {{{TABLES}"
    )
    folder = write_logs(tmp_path / "logs", schema=schema)
    bucket.makedirs("/bucket/shown/day=1")
    for table, at in (("impressions", "shown/day=1/0.parquet"), ("events", "events.parquet")):
        with bucket.open(f"/bucket/{at}", "wb") as stream:
            stream.write((folder / f"{table}.parquet").read_bytes())
        (folder / f"{table}.parquet").unlink()
    bucket.touch("/bucket/shown/_SUCCESS")
    return folder


def test_logs_of_a_file_system_give_the_same_dataset(
    logs: Path, planted_data: Path, tmp_path: Path
) -> None:
    manifest = prepare(logs, tmp_path / "data")
    assert arrays(tmp_path / "data") == arrays(planted_data)
    assert manifest["tables"]["impressions"]["files"] == 1


def test_errors_of_remote_files_have_the_url(
    logs: Path, bucket: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    def problem() -> str:
        with pytest.raises(DataError) as caught:
            prepare(logs, tmp_path / "data")
        assert not (tmp_path / "data").exists()
        return str(caught.value)

    with bucket.open("/bucket/shown/day=1/0.parquet", "rb") as stream:
        whole = stream.read()
    with bucket.open("/bucket/shown/day=1/1.parquet", "wb") as stream:
        stream.write(whole[: len(whole) // 2])
    assert problem().startswith(
        "memory://bucket/shown/day=1/1.parquet: truncated or damaged Parquet: "
    )
    with bucket.open("/bucket/shown/day=1/1.parquet", "wb") as stream:
        stream.write(b"text")
    assert problem() == "memory://bucket/shown/day=1/1.parquet: not a Parquet file"
    bucket.rm("/bucket/shown", recursive=True)
    assert problem() == "memory://bucket/shown: no such file (tables.impressions)"
    bucket.makedirs("/bucket/shown")
    bucket.touch("/bucket/shown/notes.txt")
    assert problem() == (
        "memory://bucket/shown: expected Parquet files (*.parquet) in the folder "
        "(tables.impressions), found none"
    )
    text = (logs / "schema.yaml").read_text()
    (logs / "schema.yaml").write_text(
        text.replace("memory://bucket/shown", "nowhere://bucket/shown")
    )
    assert problem().startswith("nowhere://bucket/shown: cannot be reached (tables.impressions): ")


@pytest.mark.parametrize(
    "name", ["0.PARQUET", "0.parq", "0.pq", "000000_0", "20260105_000000_00001_abcde"]
)
@pytest.mark.usefixtures("logs")
def test_parquet_files_by_other_names(
    bucket: fsspec.AbstractFileSystem, tmp_path: Path, name: str
) -> None:
    """As Impala, Hive and Trino write them: by ending, or, without one, by their first bytes."""
    with bucket.open("/bucket/shown/README", "wb") as stream:
        stream.write(b"of no table")
    bucket.mv("/bucket/shown/day=1/0.parquet", f"/bucket/shown/day=1/{name}")
    local = tmp_path / "local"
    (local / "day=1").mkdir(parents=True)
    (local / "README").write_text("of no table")
    (local / "day=1" / name).write_bytes(bucket.cat(f"/bucket/shown/day=1/{name}"))
    assert [file.name for file in parquet_files("memory://bucket/shown", "tables.impressions")] == [
        name
    ]
    assert [file.name for file in parquet_files(local, "tables.impressions")] == [name]
