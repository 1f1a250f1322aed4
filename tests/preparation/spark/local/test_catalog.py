"""Tables of a catalog: any order of their rows gives the same dataset."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hemix.data.dataset import Dataset
from hemix.data.layout import load_array
from hemix.errors import DataError, SchemaError
from hemix.preparation import prepare
from hemix.preparation.spark.catalog import export_table
from hemix.preparation.spark.engine import SparkEngine
from hemix.schema import Schema
from tests.planted import SCHEMA, write_logs
from tests.preparation.same_bytes import file_hashes
from tests.refusals import raises

TABLES = ("impressions", "events", "items", "users")


@pytest.fixture(scope="module")
def logs(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parquet files, and the same rows in tables: lake.impressions and so on."""
    spark.sql("CREATE DATABASE lake")
    folder = write_logs(tmp_path_factory.mktemp("catalog") / "logs", users=20)
    for name in TABLES:
        frame = spark.read.parquet(str(folder / f"{name}.parquet"))
        frame.write.saveAsTable(f"lake.{name}")
    return folder


def schema_of_tables(folder: Path, database: str) -> Path:
    """A logs folder whose tables are in a database."""
    folder.mkdir()
    tables = ", ".join(f"{name}: spark://{database}.{name}" for name in TABLES)
    text = re.sub(r"^tables: .*$", f"tables: {{{tables}}}", SCHEMA, flags=re.MULTILINE)
    (folder / "schema.yaml").write_text(text)
    return folder


def test_the_order_of_a_tables_rows_changes_no_byte(spark: Any, logs: Path, tmp_path: Path) -> None:
    spark.sql("CREATE DATABASE shuffled")
    for name in TABLES:
        frame = spark.table(f"lake.{name}").orderBy("item_id" if name != "users" else "age")
        columns = sorted(frame.columns, reverse=True)
        frame.select(*columns).repartition(3).write.saveAsTable(f"shuffled.{name}")
    made = {}
    for database in ("lake", "shuffled"):
        folder = schema_of_tables(tmp_path / database, database)
        out = tmp_path / f"of {database}"
        made[database] = prepare(folder, out, partitions=2, engine=SparkEngine(spark))
    ours, theirs = (file_hashes(tmp_path / f"of {database}") for database in made)
    named = {"schema.yaml", "encoders/schema.yaml", "manifest.json"}  # they name the tables
    assert {k: v for k, v in ours.items() if k not in named} == {
        k: v for k, v in theirs.items() if k not in named
    }
    plain = prepare(logs, tmp_path / "plain", partitions=2)
    for key in ("splits", "history", "unknown_rate", "label_rates", "join_rate"):
        assert made["lake"][key] == plain[key]


def test_keys_of_rows_are_those_of_the_table(spark: Any, logs: Path, tmp_path: Path) -> None:  # noqa: ARG001
    """Rows of the same time are in the order of a hash, so row numbers say nothing to a user."""
    spark.sql("CREATE DATABASE keyed")
    for name in TABLES:
        frame = spark.table(f"lake.{name}")
        if name == "impressions":
            frame = frame.selectExpr("*", "concat_ws(' ', user_id, item_id, time_ms) AS key")
        frame.write.saveAsTable(f"keyed.{name}")
    folder = schema_of_tables(tmp_path / "logs", "keyed")
    text = (folder / "schema.yaml").read_text()
    (folder / "schema.yaml").write_text(text.replace("roles: {", "roles: {row_key: key, "))
    prepare(folder, tmp_path / "data", partitions=2, engine=SparkEngine(spark))
    data = Dataset(tmp_path / "data")
    items = pq.read_table(data.folder / "ids" / "items.parquet").column(0)
    number = load_array(data.folder / "items" / "number.npy")
    split = data.split("test")
    every = np.arange(split.impressions)
    users = data.user_ids(split.users_of(split.requests_of(every)))
    item = items.take(pa.array(number[split.item_row[every]]))
    rows = zip(split.row_keys(every).to_pylist(), users.to_pylist(), item.to_pylist(), strict=True)
    assert len(every) > 50
    for key, *ids in rows:
        assert key.split()[:2] == ids


def test_times_keep_their_zone(spark: Any, logs: Path, tmp_path: Path) -> None:  # noqa: ARG001
    spark.sql("SELECT timestamp_millis(time_ms) AS time_ms FROM lake.events").write.saveAsTable(
        "lake.moments"
    )
    schema = Schema.parse(SCHEMA)
    export_table(spark, schema, "events", "spark://lake.moments", tmp_path / "out")
    files = sorted((tmp_path / "out").glob("*.parquet"))
    times = pa.concat_tables([pq.read_table(path) for path in files])["time_ms"]
    assert times.type == pa.timestamp("us", tz="UTC")
    values = times.to_pylist()
    assert values == sorted(values)
    assert spark.conf.get("spark.sql.parquet.outputTimestampType") == "INT96"


def test_a_value_that_cannot_be_used(spark: Any, logs: Path, tmp_path: Path) -> None:  # noqa: ARG001
    spark.sql("CREATE DATABASE wrong")
    for name in TABLES:
        frame = spark.table(f"lake.{name}")
        if name == "impressions":
            frame = frame.selectExpr("* EXCEPT (click)", "2 AS click")
        frame.write.saveAsTable(f"wrong.{name}")
    folder = schema_of_tables(tmp_path / "logs", "wrong")
    with raises(DataError, "spark://wrong.impressions", field="click"):
        prepare(folder, tmp_path / "out", engine=SparkEngine(spark))
    assert not (tmp_path / "out").exists()


def test_a_table_that_is_not_there(spark: Any, tmp_path: Path) -> None:
    folder = schema_of_tables(tmp_path / "logs", "nowhere")
    with pytest.raises(DataError) as failed:
        prepare(folder, tmp_path / "out", engine=SparkEngine(spark))
    assert failed.value.field == "tables.impressions"
    assert list(tmp_path.iterdir()) == [folder]


def test_the_local_engine_reads_no_catalog(tmp_path: Path) -> None:
    folder = schema_of_tables(tmp_path / "logs", "lake")
    with pytest.raises(SchemaError) as failed:
        prepare(folder, tmp_path / "out")
    assert failed.value.field == "tables.impressions"
