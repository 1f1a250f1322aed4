"""Layouts of logs: other data sets, several files, and folders with odd names give equal bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hemix.lab.datasets import import_logs
from hemix.preparation import prepare
from hemix.preparation.spark.engine import SparkEngine
from tests.lab.datasets.test_movielens import ml_100k
from tests.planted import SCHEMA, write_logs
from tests.preparation.same_bytes import file_hashes

KEYED = SCHEMA.replace("roles: {", "roles: {row_key: key, ")


def assert_same_bytes(spark: Any, logs: Path, folder: Path) -> dict[str, str]:
    """Prepare with both engines; return the hashes of the files."""
    prepare(logs, folder / "local", partitions=5)
    prepare(logs, folder / "spark", partitions=5, memory_rows=90, engine=SparkEngine(spark))
    hashes = file_hashes(folder / "spark")
    assert hashes == file_hashes(folder / "local")
    return hashes


def test_movielens(spark: Any, tmp_path: Path) -> None:
    """Numbers as ids, times in seconds, and no events: each impression is its own request."""
    raw = ml_100k(tmp_path / "raw")
    times = [880_000_000 + 3600 * (n * 7 % 40) for n in range(40)]
    ratings = [f"{1 + n % 2}\t{10 + n % 3}\t{1 + n % 5}\t{time}\n" for n, time in enumerate(times)]
    (raw / "u.data").write_text("".join(ratings))
    import_logs("movielens", raw, tmp_path / "logs")
    assert_same_bytes(spark, tmp_path / "logs", tmp_path)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """Impressions with a key of each row, in the order of the log."""
    logs = write_logs(tmp_path_factory.mktemp("planted"), users=20)
    table = pq.read_table(logs / "impressions.parquet")
    keys = pa.array([f"k\u00fc{n}" for n in range(table.num_rows)])
    return table.append_column("key", keys)


@pytest.mark.parametrize(
    "names",
    [
        ("a b/c d.parquet", "a%20b/c%2Fd.parquet", "dt=2026-01-05/part 0.parquet"),
        ("\u732b/\u00e9.parquet", "e\u0301/+&=.parquet", "[x]{1,2}*?/#;'.parquet"),
    ],
    ids=["spaces and escapes", "letters and patterns"],
)
def test_several_files_in_folders_with_odd_names(
    spark: Any, tmp_path: Path, table: pa.Table, names: tuple[str, ...]
) -> None:
    logs = write_logs(tmp_path / "lo gs %20 \u732b", users=20, schema=KEYED)
    (logs / "impressions.parquet").unlink()
    folder = logs / "impressions.parquet"
    bounds = [0, 7, table.num_rows // 2, table.num_rows]
    for name, begin, end in zip(names, bounds[:-1], bounds[1:], strict=True):
        (folder / name).parent.mkdir(parents=True)
        rows = table.slice(begin, end - begin)
        pq.write_table(rows, folder / name, row_group_size=100)
    hashes = assert_same_bytes(spark, logs, tmp_path)
    assert "partitions/00000/train/row_key.values.npy" in hashes
