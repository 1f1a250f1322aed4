"""The text of a JSON value in a request is the text that the value has in a log, whatever the
column's Arrow type.
"""

from __future__ import annotations

import datetime
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from hemix.data.encode import Encoders
from hemix.data.texts import text_of, texts_of
from hemix.preparation.arrow_types import normalized
from hemix.serving.column_parser import ColumnParser, columns_of
from hemix.serving.field_validation import FieldValidator
from hemix.serving.http.rank import read_request
from hemix.serving.http.service import RequestLimits
from tests.data.small import PLAIN, at, prepared

COLUMNS: dict[str, tuple[pa.Array, list[Any]]] = {
    "decimal": (
        pa.array([Decimal("3.00"), Decimal(0), Decimal("2.5")], pa.decimal128(38, 18)),
        [3, 0.0, 2.5],
    ),
    "decimal256": (
        pa.array([Decimal("3.00"), Decimal(0), Decimal("2.5")], pa.decimal256(60, 18)),
        [3.0, "0", 2.5],
    ),
    "decimal32": (
        pa.array([Decimal("3.00"), Decimal(0), Decimal("2.5")], pa.decimal32(5, 2)),
        [3, 0, "2.5"],
    ),
    "float16": (pa.array([3, 0.1, 2.5]).cast(pa.float16()), [3, 0.1, 2.5]),
    "float32": (pa.array([3, 0.1, 2.5], pa.float32()), [3, 0.1, 2.5]),
    "float64": (pa.array([3, 0.1, 1e20], pa.float64()), [3.0, 0.1, 1e20]),
    "bool": (pa.array([True, False, None]), [True, False]),
    "uint64": (pa.array([2**63 + 5, 7, 8], pa.uint64()), [str(2**63 + 5), 7, 8.0]),
    "date32": (pa.array([datetime.date(2026, 1, 5)] * 3, pa.date32()), ["2026-01-05"]),
    "date64": (pa.array([datetime.date(2026, 1, 5)] * 3, pa.date64()), ["2026-01-05"]),
    "moment": (
        pa.array([datetime.datetime(2026, 1, 5, 6)] * 3, pa.timestamp("ns", "Asia/Tokyo")),
        ["2026-01-05T06:00:00Z"],
    ),
    "time": (pa.array([datetime.time(6, 30)] * 3, pa.time64("ns")), ["06:30:00"]),
    "decimal_dictionary": (
        pa.array([Decimal("3.00"), Decimal(0), Decimal("2.5")]).dictionary_encode(),
        [3, 0, 2.5],
    ),
    "text_view": (pa.array(["a", "é", "3"], pa.string_view()), ["a", "é", 3]),
    "bytes_view": (pa.array([b"a", b"\xc3\xa9", b"3"], pa.binary_view()), ["a", "é", 3]),
    "large_text": (pa.array(["true", "é", "3"], pa.large_string()), [True, "é", 3]),
    "bytes_of_one_size": (
        pa.array([b"abc", b"\xc3\xa9x", b"003"], pa.binary(3)),
        ["abc", "\u00e9x", "003"],
    ),
    "uuid": (
        pa.array([bytes(range(16))] * 3, pa.binary(16)).cast(pa.uuid()),
        ["00010203-0405-0607-0809-0a0b0c0d0e0f"],
    ),
}


def logs() -> pa.Table:
    """Three rows in each split, every column once and once in lists."""
    columns: dict[str, Any] = {
        "user_id": ["u"] * 9,
        "item_id": [f"i{n}" for n in range(9)],
        "time_ms": [at(n // 3, n) for n in range(9)],
        "click": [n % 2 for n in range(9)],
    }
    for name, (values, _) in COLUMNS.items():
        values = pa.concat_arrays([values] * 3)
        columns |= {
            name: values,
            f"{name}s": pa.ListArray.from_arrays(pa.array(range(10), pa.int32()), values),
        }
    return pa.table(columns)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Encoders:
    folder: Path = tmp_path_factory.mktemp("typed")
    one, many = (
        "{type: categorical, vocabulary: {min_count: 1}}",
        "{type: categorical, multi: true, vocabulary: {min_count: 1}}",
    )
    features = ", ".join(f"{name}: {one}, {name}s: {many}" for name in COLUMNS)
    prepared(folder, PLAIN + f"features: {{cross: {{{features}}}}}\n", impressions=logs())
    return Encoders.load(folder / "data" / "encoders")


@pytest.mark.parametrize("name", COLUMNS)
def test_a_request_finds_the_values_of_the_log(encoders: Encoders, name: str) -> None:
    column, live_values = COLUMNS[name]
    reader = ColumnParser(encoders.schema, "cross", FieldValidator(encoders.schema))
    rows = [{name: value, f"{name}s": [value]} for value in json.loads(json.dumps(live_values))]

    def refuse(_row: int, column: str, problem: str) -> None:
        raise AssertionError(f"{column}: {problem}")

    live = encoders.block("cross", reader.parse(len(rows), columns_of(rows), refuse), len(rows))
    logged = encoders.encode(
        "cross", {n: normalized(logs()[n].combine_chunks()) for n in (name, f"{name}s")}, 9
    )
    spec = encoders.spec().cross
    at_ids, at_jagged = spec.names.index(name), spec.jagged_names.index(f"{name}s")
    ids = live.ids[:, at_ids].tolist()
    assert len(set(ids)) == len(live_values) and min(ids) >= 2
    assert live.jagged[at_jagged].values.tolist() == ids
    assert (
        set(ids)
        <= set(logged.ids[:, at_ids].tolist())
        == set(logged.jagged[at_jagged].values.tolist())
    )
    assert {i for i in logged.ids[:, at_ids].tolist() if i >= 2} == set(ids), (
        "every value of the log can be named"
    )
    assert column.null_count == int(1 in logged.ids[:, at_ids])


def test_a_list_of_whole_and_other_numbers_is_one_of_numbers(encoders: Encoders) -> None:
    """As JavaScript writes 3.0 and 2.5."""
    checks = FieldValidator(encoders.schema)
    assert checks.problem("candidate", {"float64s": [3, 2.5, None]}) is None
    for mixed in ([3, "a"], [True, 1], [True, "true"], [[1]]):
        assert checks.problem("candidate", {"float64s": mixed}) is not None


@pytest.mark.parametrize("number", [-(2**63), 2**63 - 1, 2**53 + 1])
def test_a_request_may_hold_any_integer_of_a_log(number: int) -> None:
    """INT64_MIN, which often stands for "no value", too."""
    body = json.dumps({"user": "u", "items": [{"id": "i", "fields": {"f": number}}]}).encode()
    parsed = read_request(body, RequestLimits()).items[0].fields["f"]
    (logged,) = texts_of(pa.array([number])).to_pylist()
    assert type(parsed) is int and text_of(parsed) == logged
