"""A matrix of Arrow types: both engines prepare the same bytes, or refuse alike."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hemix.errors import HemixError
from hemix.preparation import prepare
from hemix.preparation.spark.engine import SparkEngine
from tests.preparation.same_bytes import file_hashes

ROWS = 60
DAY = datetime(2026, 1, 5, tzinfo=UTC)


# -- columns ---------------------------------------------------------------------------------------


def numbers(kind: pa.DataType, last: Any = 1) -> pa.Array:
    """Small numbers, a null, and the largest of the type."""
    values = [n % 7 for n in range(ROWS - 2)]
    return pa.array([*values, None, last], pa.int64() if isinstance(last, bool) else kind)


def texts(kind: pa.DataType) -> pa.Array:
    return pa.array([f"t{n % 7} ü" for n in range(ROWS - 1)] + [None], pa.string()).cast(kind)


def moments(kind: pa.DataType) -> pa.Array:
    return pa.array([DAY + timedelta(hours=2 * n) for n in range(ROWS - 1)] + [None], kind)


WHOLE = {
    f"{sign}int{bits}": numbers(getattr(pa, f"{sign}int{bits}")(), (1 << (bits - (not sign))) - 1)
    for bits in (8, 16, 32, 64)
    for sign in ("", "u")
}
OTHER_NUMBERS = {
    "float16": numbers(pa.float16()),
    "float32": numbers(pa.float32(), 1e30),
    "float64": numbers(pa.float64(), 1e300),
    "decimal": pa.array(
        [Decimal(n % 5) / 4 for n in range(ROWS - 1)] + [None], pa.decimal128(9, 2)
    ),
    "wide_decimal": pa.array([Decimal(n % 5) for n in range(ROWS)], pa.decimal256(50, 3)),
    "bool": pa.array([n % 3 == 0 for n in range(ROWS - 1)] + [None]),
}
TEXTS = {
    "string": texts(pa.string()),
    "large_string": texts(pa.large_string()),
    "string_view": texts(pa.string_view()),
    "binary": texts(pa.binary()),
    "large_binary": texts(pa.large_binary()),
    "dictionary": texts(pa.string()).dictionary_encode(),
    "number_dictionary": numbers(pa.int32()).dictionary_encode(),
}
MOMENTS = {
    f"timestamp_{unit}_{place}": moments(pa.timestamp(unit, tz=zone))
    for unit in ("s", "ms", "us", "ns")
    for place, zone in (("none", None), ("utc", "UTC"), ("shanghai", "Asia/Shanghai"))
}
OTHERS = {
    "date32": pa.array([date(2026, 1, 5 + n % 7) for n in range(ROWS)], pa.date32()),
    "date64": pa.array([date(2026, 1, 5 + n % 7) for n in range(ROWS)], pa.date64()),
    "time": pa.array(range(ROWS), pa.time32("s")),
    "nulls": pa.nulls(ROWS),
}
LISTS = {
    "list_of_ints": pa.array([[n % 3] * (n % 4) for n in range(ROWS)], pa.list_(pa.int16())),
    "large_list": pa.array(
        [["a", None, f"b{n % 3}"] if n % 5 else None for n in range(ROWS)],
        pa.large_list(pa.large_string()),
    ),
    "fixed_size_list": pa.array([[n % 3, 4] for n in range(ROWS)], pa.list_(pa.uint64(), 2)),
}
VECTORS = {
    "fixed_list": pa.array([[n / 4, -n] for n in range(ROWS)], pa.list_(pa.float32(), 2)),
    "list_of_doubles": pa.array([[n / 4, -n] for n in range(ROWS)], pa.list_(pa.float64())),
}
REFUSED = {
    "struct": pa.array([{"a": n} for n in range(ROWS)]),
    "map": pa.array([[("a", n)] for n in range(ROWS)], pa.map_(pa.string(), pa.int64())),
    "nested_list": pa.array([[[n]] for n in range(ROWS)]),
    "duration": pa.array(range(ROWS), pa.duration("s")),
}

SCHEMA = """
name: types
clock: {{column: when, unit: s}}
labels: {{click: {{}}, {labels}}}
features:
  context: {{{context}}}
  item: {{item_id: {{type: categorical, vocabulary: {{min_count: 1}}}}}}
split: {{valid: 2026-01-07, test: 2026-01-08}}
"""


def write_logs(
    folder: Path, columns: dict[str, pa.Array], context: list[str], labels: dict[str, str]
) -> Path:
    """Write impressions with these columns as features and times of labels."""
    folder.mkdir()
    whole = list(WHOLE.values())
    base = {
        "user_id": [n % 6 for n in range(ROWS)],
        "item_id": whole[-1].fill_null(0),
        "when": [int(DAY.timestamp()) + 7200 * n for n in range(ROWS)],
        "click": [n % 2 for n in range(ROWS)],
    }
    base |= {name: [n % 2 for n in range(ROWS)] for name in labels}
    pq.write_table(pa.table(base | columns), folder / "impressions.parquet", row_group_size=25)
    at = ", ".join(f"{name}: {{available_at: {column}}}" for name, column in labels.items())
    text = SCHEMA.format(labels=at, context=", ".join(context))
    (folder / "schema.yaml").write_text(text)
    return folder


def accepted_logs(folder: Path) -> Path:
    """Every accepted type in every role that takes it."""
    scalars = WHOLE | OTHER_NUMBERS | TEXTS | MOMENTS | OTHERS
    small = "vocabulary: {min_count: 1}"
    numeric = {f"number_{name}": values for name, values in (WHOLE | OTHER_NUMBERS).items()}
    context = [f"{name}: {{type: categorical, {small}}}" for name in scalars]
    context += [f"{name}: {{type: numeric, buckets: 3}}" for name in numeric]
    context += [f"{name}: {{type: categorical, multi: true, {small}}}" for name in LISTS]
    context += [f"{name}: {{type: vector, size: 2}}" for name in VECTORS]
    labels = {f"label_{name}": f"known_{name}" for name in MOMENTS}
    known = {f"known_{name}": values for name, values in MOMENTS.items()}
    columns = scalars | numeric | LISTS | VECTORS | known
    return write_logs(folder, columns, context, labels)


# -- tests -----------------------------------------------------------------------------------------


def refusal(action: Callable[[], object]) -> tuple[Any, ...]:
    """Class, code, field and text, which names file, row and column."""
    with pytest.raises(HemixError) as failed:
        action()
    error = failed.value
    return type(error), error.code, error.field, str(error)


def test_all_types_that_are_accepted(spark: Any, tmp_path: Path) -> None:
    logs = accepted_logs(tmp_path / "logs")
    prepare(logs, tmp_path / "local", partitions=2)
    prepare(logs, tmp_path / "spark", partitions=2, memory_rows=20, engine=SparkEngine(spark))
    assert file_hashes(tmp_path / "spark") == file_hashes(tmp_path / "local")


@pytest.mark.parametrize("name", REFUSED)
def test_types_that_are_refused(spark: Any, tmp_path: Path, name: str) -> None:
    logs = write_logs(
        tmp_path / "logs",
        {name: REFUSED[name]},
        [f"{name}: {{type: categorical, vocabulary: {{min_count: 1}}}}"],
        {},
    )
    local = refusal(lambda: prepare(logs, tmp_path / "local"))
    assert refusal(lambda: prepare(logs, tmp_path / "out", engine=SparkEngine(spark))) == local


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("user_id", pa.array([f"u{n % 6}" if n != 41 else None for n in range(ROWS)])),
        ("user_id", pa.array([b"\xff" if n == 41 else b"u" for n in range(ROWS)])),
        ("click", pa.array([2 if n == 41 else 1 for n in range(ROWS)], pa.uint8())),
        ("click", pa.array([float("nan") if n == 41 else 1.0 for n in range(ROWS)])),
        ("when", pa.array([None if n == 41 else n for n in range(ROWS)], pa.timestamp("ns"))),
        ("known", pa.array([(1 << 62) if n == 41 else 5 for n in range(ROWS)])),
    ],
    ids=["null id", "not UTF-8", "two", "nan", "null time", "time out of range"],
)
def test_values_that_are_refused_in_a_task(
    spark: Any, tmp_path: Path, column: str, values: pa.Array
) -> None:
    known = {"known": pa.nulls(ROWS, pa.int64())}
    logs = write_logs(tmp_path / "logs", known, [], {"late": "known"})
    table = pq.read_table(logs / "impressions.parquet")
    table = table.drop_columns([column]).append_column(column, values)
    pq.write_table(table, logs / "impressions.parquet", row_group_size=20)
    local = refusal(lambda: prepare(logs, tmp_path / "local"))
    assert refusal(lambda: prepare(logs, tmp_path / "out", engine=SparkEngine(spark))) == local
    assert "impressions.parquet:41:" in local[3] or local[2] == column
