"""The Spark engine on a real local Spark: partitions, tasks, and the bytes of the local engine."""

from __future__ import annotations

import errno
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from hemix import api
from hemix.errors import DataError, SparkError, StorageError
from hemix.lab.datasets import import_logs
from hemix.preparation import prepare
from hemix.preparation.decoding import LOGS
from hemix.preparation.engine import PartitionedLogs, task_folder
from hemix.preparation.job import PrepareJob
from hemix.preparation.local_engine import LocalEngine
from hemix.preparation.logs import open_logs
from hemix.preparation.rows import as_batch, concatenate_rows
from hemix.preparation.spark.engine import SparkEngine
from hemix.preparation.splits import Splitter
from hemix.preparation.user_partitions import partition_of
from tests.preparation.same_bytes import file_hashes
from tests.refusals import raises

# -- partition -------------------------------------------------------------------------------------


def opened_job(logs: Path, folder: Path) -> PrepareJob:
    opened = open_logs(logs, None)
    kind = opened.impressions.arrow_schema.field(opened.schema.clock.column).type
    splitter = Splitter(opened.schema, kind, str(opened.impressions.path))
    job = PrepareJob(logs=opened, splitter=splitter, folder=folder, partitions=5, memory_rows=50)
    job.temporary.mkdir(parents=True)
    return job


def contents(partitioned: PartitionedLogs) -> list[Any]:
    """All rows of every partition by log, with the text of each row's user."""
    partitions = []
    for source in partitioned.sources:
        for log in LOGS:
            read = list(source.read(log))
            rows = concatenate_rows([d.rows for d in read]) if read else {}
            users = [
                text
                for d in read
                for text in d.users.texts.take(pa.array(np.asarray(d.rows["user"]))).to_pylist()
            ]
            columns = as_batch({k: v for k, v in rows.items() if k != "user"}).to_pydict()
            partitions.append((source.rows(log), columns, users))
    return partitions


def test_partitions_have_the_rows_of_the_local_engine(
    spark: Any, rich_logs: Path, tmp_path: Path
) -> None:
    """In the order of the log, with their row numbers; chunks are smaller than the log."""
    local, ours = (opened_job(rich_logs, tmp_path / name) for name in ("local", "spark"))
    expected = contents(LocalEngine().partition(local))
    partitioned = SparkEngine(spark).partition(ours)
    assert repr(contents(partitioned)) == repr(expected)
    assert sum(rows for rows, _, _ in expected) > 3 * ours.memory_rows
    texts = {path for path in partitioned.texts if path.exists()}
    assert len(texts) == len(partitioned.texts) > 3
    partitioned.discard()
    left = [path for path in ours.temporary.rglob("*") if path.is_file()]
    assert set(left) == texts


def test_a_partition_is_that_of_a_sql_expression(spark: Any) -> None:
    """So that users of Spark can find the partition of a user."""
    ids = ["", "u1", "a text of more than thirty-two bytes, to be sure", "\u00fc\u732b", "-17"]
    frame = spark.createDataFrame([(text,) for text in ids], "id STRING")
    rows = frame.selectExpr("pmod(xxhash64(id), 7) AS partition").collect()
    assert [row.partition for row in rows] == partition_of(pa.array(ids), 7).tolist()


# -- map -------------------------------------------------------------------------------------------


def write_square(number: int, folder: Path) -> int:
    (folder / "square").write_text(str(number**2))
    return number**2


def fail_first_attempt(marker: Path, number: int, folder: Path) -> int:
    (folder / f"of-{os.getpid()}-{folder.name}").touch()
    if number == 2 and not marker.exists():
        marker.touch()
        raise RuntimeError("lost")
    return number


def fail_from_three(number: int, _folder: Path) -> int:
    if number >= 3:
        raise DataError(f"row {number}", field=f"column {number}", hint="mend it")
    return number


def always_broken(_number: int, _folder: Path) -> int:
    raise ZeroDivisionError("of nothing")


def full_disk(number: int, folder: Path) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / f"{number}.npy"))


def loaded_modules(_number: int, _folder: Path) -> list[str]:
    return sorted(sys.modules)


def test_map_gives_answers_and_folders_in_order(spark: Any, tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    engine = SparkEngine(spark, progress=lambda stage, done: told.append((stage, done)))
    assert engine.map("squares", write_square, [3, 1, 2], tmp_path / "squares") == [9, 1, 4]
    files = [path for path in sorted((tmp_path / "squares").rglob("*")) if path.is_file()]
    assert [path.read_text() for path in files] == ["9", "1", "4"]
    assert files[1] == task_folder(tmp_path / "squares", 1) / "square"
    assert told[0] == ("squares", 0.0)
    assert told[-1] == ("squares", 1.0)
    assert engine.map("nothing", write_square, [], tmp_path / "nothing") == []


def test_only_the_files_of_attempts_that_count_are_left(spark: Any, tmp_path: Path) -> None:
    function = partial(fail_first_attempt, tmp_path / "marker")
    assert SparkEngine(spark).map("retried", function, range(4), tmp_path / "out") == [0, 1, 2, 3]
    assert (tmp_path / "marker").exists()
    entries = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in entries] == ["00000", "00001", "00002", "00003"]
    assert [len(list(path.iterdir())) for path in entries] == [1, 1, 1, 1]


def test_the_error_of_the_first_argument_is_raised_once(spark: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError) as failed:
        SparkEngine(spark).map("rows", fail_from_three, range(8), tmp_path / "out")
    assert (failed.value.field, failed.value.hint) == ("column 3", "mend it")


def test_another_failure_names_the_stage_and_the_error(spark: Any, tmp_path: Path) -> None:
    with raises(SparkError, "broken", "ZeroDivisionError: of nothing"):
        SparkEngine(spark).map("broken", always_broken, [1], tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_full_disk_is_an_error_of_the_disk(spark: Any, tmp_path: Path) -> None:
    with pytest.raises(StorageError) as failed:
        SparkEngine(spark).map("full", full_disk, [1], tmp_path / "out")
    assert failed.value.code == "disk_full"


# -- bytes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("partitions", [1, 5])
def test_every_feature_gives_the_bytes_of_the_local_engine(
    spark: Any, rich_logs: Path, tmp_path: Path, partitions: int
) -> None:
    prepare(rich_logs, tmp_path / "local", partitions=partitions)
    engine = SparkEngine(spark)
    out = tmp_path / "of spark [1], 100 %: é"
    prepare(rich_logs, out, partitions=partitions, memory_rows=70, engine=engine)
    assert file_hashes(out) == file_hashes(tmp_path / "local")
    modules = set(engine.map("modules", loaded_modules, [0], tmp_path / "modules")[0])
    assert not {"torch", "pandas"} & modules


def test_the_city_gives_the_bytes_of_the_local_engine(spark: Any, tmp_path: Path) -> None:
    """By the front door: a session that is handed over stays open."""
    api.simulate(tmp_path / "logs", users=100, days=4)
    api.prepare(tmp_path / "logs", tmp_path / "local")
    api.prepare(tmp_path / "logs", tmp_path / "spark", engine=spark)
    assert spark.range(3).count() == 3
    assert file_hashes(tmp_path / "spark") == file_hashes(tmp_path / "local")


@pytest.mark.real_data
@pytest.mark.slow
def test_kuairand_gives_the_bytes_of_the_local_engine(
    spark: Any, kuairand: Path, tmp_path: Path
) -> None:
    import_logs("kuairand", kuairand, tmp_path / "logs")
    prepare(tmp_path / "logs", tmp_path / "local")
    prepare(tmp_path / "logs", tmp_path / "spark", engine=SparkEngine(spark))
    assert file_hashes(tmp_path / "spark") == file_hashes(tmp_path / "local")
