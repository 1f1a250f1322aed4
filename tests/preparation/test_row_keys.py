"""``roles.row_key``: keys of the user's own, from the log to the predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hemix.data.dataset import Dataset
from hemix.data.layout import SPLITS
from hemix.errors import DataError, SchemaError
from hemix.preparation import prepare
from hemix.runs import Run
from tests.data.small import PLAIN, at, shown, write
from tests.refusals import raises

KEYED = PLAIN + "roles: {row_key: key}\n"
ROWS = [(f"u{n % 7}", f"i{n % 5}", at(n % 3, n // 9), n % 2) for n in range(60)]


def keyed(keys: Any) -> pa.Table:
    return pa.table({**shown(ROWS), "key": keys})


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        (pa.array(range(60), pa.int32()), pa.int64()),
        (pa.array([2**64 - 1 - n for n in range(60)], pa.uint64()), pa.string()),
        (pa.array([f"\u00fc{n}" * (n % 4 + 1) for n in range(60)]), pa.string()),
    ],
    ids=["numbers", "numbers above int64", "texts"],
)
@pytest.mark.parametrize(("partitions", "memory_rows"), [(1, 500), (3, 10)])
def test_every_impression_has_the_key_of_its_row(
    tmp_path: Path, keys: pa.Array, kind: pa.DataType, partitions: int, memory_rows: int
) -> None:
    logs = write(tmp_path / "logs", KEYED, impressions=keyed(keys))
    prepare(logs, tmp_path / "data", partitions=partitions, memory_rows=memory_rows)
    data, seen = Dataset(tmp_path / "data"), 0
    for name in SPLITS:
        split = data.split(name)
        own = split.row_keys(np.arange(split.impressions))
        assert own.type == kind
        expected = keys.take(pa.array(split.log_row.read()))
        assert own.to_pylist() == expected.cast(kind).to_pylist()
        seen += len(own)
    assert seen == 60


def test_files_of_numbers_and_of_texts_give_texts(tmp_path: Path) -> None:
    logs = write(tmp_path / "logs", KEYED + "tables: {impressions: days}\n")
    (logs / "days").mkdir()
    for name, keys in (("a", range(60)), ("b", [f"k{n}" for n in range(60)])):
        table = keyed(list(keys))
        pq.write_table(table, logs / "days" / f"{name}.parquet")
    prepare(logs, tmp_path / "data", partitions=2)
    split = Dataset(tmp_path / "data").split("test")
    own = split.row_keys(np.arange(split.impressions)).to_pylist()
    rows = split.log_row.read().tolist()
    assert own == [str(row) if row < 60 else f"k{row - 60}" for row in rows]


def test_a_null_key_names_its_row(tmp_path: Path) -> None:
    logs = write(tmp_path / "logs", KEYED, impressions=keyed([*range(59), None]))
    with raises(DataError, "impressions.parquet", "59", field="key"):
        prepare(logs, tmp_path / "data")


@pytest.mark.parametrize("name", ["score", "log_row", "time_ms", "user_id", "click"])
def test_a_key_may_not_take_the_name_of_a_column_of_predictions(tmp_path: Path, name: str) -> None:
    schema = KEYED.replace("row_key: key", f"row_key: {name}")
    logs = write(tmp_path / "logs", schema, impressions=keyed(range(60)))
    with raises(SchemaError, name, field="roles.row_key"):
        prepare(logs, tmp_path / "data")


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    logs = write(tmp_path / "logs", KEYED, impressions=shown(ROWS))
    with raises(DataError, "roles.row_key", code="missing_column", field="key"):
        prepare(logs, tmp_path / "data")


def test_predictions_repeat_the_keys(rich_logs: Path, rich_run: Path, tmp_path: Path) -> None:
    """Of a run from before the role was named, too: no model reads the keys."""
    logs = tmp_path / "logs"
    logs.mkdir()
    for path in rich_logs.iterdir():
        (logs / path.name).symlink_to(path)
    text = (logs / "schema.yaml").read_text()
    assert text.count("roles: {") == 1
    (logs / "schema.yaml").unlink()
    (logs / "schema.yaml").write_text(text.replace("roles: {", "roles: {row_key: request_id, "))
    prepare(logs, tmp_path / "data")
    predictions = Run.load(rich_run).predict(Dataset(tmp_path / "data"))
    column = pq.read_table(rich_logs / "impressions.parquet")["request_id"]
    expected = column.take(predictions["log_row"]).to_pylist()
    assert predictions["request_id"].to_pylist() == expected
