"""The same logs in other clothes give the same dataset: timestamps for milliseconds, a folder for a
file.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hemix.preparation import prepare
from tests.planted import SCHEMA, write_logs
from tests.preparation.same_bytes import file_hashes


def arrays(data: Path) -> dict[str, str]:
    """The hashes of all files but those that tell of the logs' files."""
    hashes = file_hashes(data).items()
    return {
        name: value
        for name, value in hashes
        if name != "manifest.json" and not name.endswith("schema.yaml")
    }


def rewritten(logs: Path, table: str, kind: pa.DataType) -> None:
    path = logs / f"{table}.parquet"
    content = pq.read_table(path)
    at = content.column_names.index("time_ms")
    millis = content["time_ms"].cast(pa.timestamp("ms"))
    pq.write_table(content.set_column(at, "time_ms", millis.cast(kind)), path)


@pytest.mark.parametrize(
    "kind",
    [
        pa.timestamp("ms"),
        pa.timestamp("us", tz="Asia/Shanghai"),
        pa.timestamp("ns"),
        pa.timestamp("s"),
    ],
)
def test_timestamps_are_times_whatever_their_unit(
    planted_data: Path, tmp_path: Path, kind: pa.DataType
) -> None:
    logs = write_logs(tmp_path / "logs")
    for table in ("impressions", "events"):
        rewritten(logs, table, kind)
    prepare(logs, tmp_path / "data")
    assert arrays(tmp_path / "data") == arrays(planted_data)


def test_a_table_in_files_of_subfolders_is_read_in_the_order_of_their_paths(
    planted_data: Path, tmp_path: Path
) -> None:
    logs = write_logs(
        tmp_path / "logs", schema=SCHEMA.replace("tables: {", "tables: {impressions: shown, ")
    )
    whole = pq.read_table(logs / "impressions.parquet")
    third = whole.num_rows // 3
    for name, first in (("a/1.parquet", 0), ("a/2.parquet", third), ("b/c/1.parquet", 2 * third)):
        (logs / "shown" / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(
            whole.slice(first, third if first < 2 * third else None), logs / "shown" / name
        )
    (logs / "shown" / "_SUCCESS.parquet").write_text("a marker of another tool")
    (logs / "impressions.parquet").unlink()
    manifest = prepare(logs, tmp_path / "data")
    assert manifest["tables"]["impressions"] == {"rows": whole.num_rows, "files": 3}
    assert arrays(tmp_path / "data") == arrays(planted_data)


def test_files_of_one_folder_may_have_columns_of_their_own_and_times_and_ids_of_other_types(
    planted_data: Path, tmp_path: Path
) -> None:
    """As rows that a server kept lie beside older logs."""
    logs = write_logs(
        tmp_path / "logs", schema=SCHEMA.replace("tables: {", "tables: {impressions: shown, ")
    )
    whole = pq.read_table(logs / "impressions.parquet")
    numbers = whole["request_id"].combine_chunks().dictionary_encode().indices.cast(pa.int64())
    whole = whole.set_column(whole.column_names.index("request_id"), "request_id", numbers)
    half = whole.num_rows // 2 + 1  # in the middle of a request
    assert numbers[half - 1] == numbers[half]
    (logs / "shown").mkdir()
    pq.write_table(
        whole.slice(0, half).append_column("mine", pa.array(["alone"] * half)),
        logs / "shown" / "1.parquet",
    )
    other = whole.slice(half)
    for name, kind in (("time_ms", pa.timestamp("ms", tz="UTC")), ("request_id", pa.string())):
        assert pa.types.is_integer(whole[name].type)
        other = other.set_column(other.column_names.index(name), name, other[name].cast(kind))
    pq.write_table(other, logs / "shown" / "2.parquet")
    prepare(logs, tmp_path / "data")
    assert arrays(tmp_path / "data") == arrays(planted_data)
