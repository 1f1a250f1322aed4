"""Where a split's boundaries fall: times with and without seconds and offsets, zones, dates,
numbers, text of one format.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from hemix.errors import DataError, HemixError, SchemaError, UsageError
from hemix.preparation import prepare, shift_split
from hemix.schema import Schema, Split
from tests.data.small import at, shown, write
from tests.refusals import raises

HEAD = "name: s\nlabels: {click: {}}\n"
SHANGHAI = HEAD + "clock: {timezone: Asia/Shanghai}\n"


def split_rows(
    folder: Path, split: str, column: Any = None, *, head: str = HEAD, days: int = 0, **more: Any
) -> list[int]:
    """Rows of train, valid and test; ``column``: the values of column ``c``, one row each, a day
    apart on the clock.
    """
    count = 4 if column is None else len(column)
    rows = shown([("u", "i", at(day), day % 2) for day in range(count)]) | more
    logs = write(
        folder / "logs",
        f"{head}split: {split}\n",
        impressions=rows if column is None else rows | {"c": column},
    )
    schema = shift_split(logs, days) if days else None
    manifest = prepare(logs, folder / f"data{len(list(folder.iterdir()))}", schema=schema)
    return [manifest["splits"][name]["rows"] for name in ("train", "valid", "test")]


def refusal(folder: Path, *args: Any, kind: type[HemixError] = DataError, **more: Any) -> str:
    with pytest.raises(kind) as error:
        split_rows(folder, *args, **more)
    assert "\n" not in str(error.value) and not (folder / "data").exists()
    return str(error.value)


@pytest.mark.parametrize(
    ("valid", "test", "expected"),
    [
        ("2026-01-06", "2026-01-06 06:00", [1, 1, 2]),
        ("2026-01-06", '"2026-01-06T05:00:01"', [1, 1, 2]),
        ("2026-01-06 00:00", "2026-01-06 00:00:01", [1, 1, 2]),
        ("2026-01-06T08:00:00+08:00", "2026-01-06 06:00", [1, 1, 2]),
        ('"2026-01-06T00:00Z"', '"2026-01-06T18:00-05:00"', [1, 1, 2]),
        ("2026-01-05 23:00:00", "2026-01-06T08:01:00+08:00", [1, 1, 2]),
    ],
)
def test_times_are_ordered_as_moments(
    tmp_path: Path, valid: str, test: str, expected: list[int]
) -> None:
    """Impressions at midnight UTC of 5, 6, 7 and 8 January."""
    assert split_rows(tmp_path, f"{{valid: {valid}, test: {test}}}") == expected


@pytest.mark.parametrize(
    ("valid", "test", "zone"),
    [
        ("2026-01-15 06:00", "2026-01-15", "UTC"),
        ("2026-01-15T00:00:00+08:00", "2026-01-14T16:00:00+00:00", "UTC"),  # the same moment
        ("2026-01-15T06:00:00+08:00", "2026-01-14 23:00", "Asia/Shanghai"),
        ("2026-01-15", "2026-01-15T00:00:00", "UTC"),
    ],
)
def test_boundaries_that_do_not_ascend(valid: str, test: str, zone: str) -> None:
    with raises(SchemaError, f"{valid!r} and {test!r}", field="split"):
        Schema.parse(
            f"{HEAD}clock: {{timezone: {zone}}}\nsplit: {{valid: '{valid}', test: '{test}'}}"
        )


def test_a_time_of_the_zone_and_one_with_an_offset() -> None:
    """06:00 in Shanghai is before 23:00 UTC of the same day."""
    text = "split: {valid: 2026-01-15 06:00, test: 2026-01-15T01:00:00+00:00}"
    assert Schema.parse(SHANGHAI + text).split.valid == "2026-01-15 06:00"
    boundaries = ("2026-01-15 06:00", "2026-01-15T01:00:00+00:00")
    with raises(SchemaError, *boundaries, field="split"):
        Schema.parse(HEAD + text)


@pytest.mark.parametrize("value", ["true", ".nan"])
def test_invalid_boundaries_are_refused(value: str) -> None:
    with raises(SchemaError, field="split.test"):
        Schema.parse(f"{HEAD}split: {{valid: 1, test: {value}}}")


def test_date_and_time_objects() -> None:
    split = Split(valid=date(2026, 1, 6), test=datetime(2026, 1, 7, 6))  # type: ignore[arg-type]
    assert (split.valid, split.test) == ("2026-01-06", "2026-01-07T06:00:00")


def stamps(kind: pa.DataType, *texts: str) -> pa.Array:
    moments = [int(datetime.fromisoformat(text).timestamp() * 1000) for text in texts]
    return pa.array(moments, pa.timestamp("ms")).cast(pa.timestamp(kind.unit)).cast(kind)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Shanghai", "America/New_York", "+08:00"])
def test_a_zoned_column_splits_at_local_midnight(tmp_path: Path, unit: str, zone: str) -> None:
    """Midnight of 6 January in Shanghai is 16:00 UTC of the 5th."""
    times = stamps(
        pa.timestamp(unit, zone),
        "2026-01-05T15:59:59Z",
        "2026-01-05T16:00:00Z",
        "2026-01-06T15:59:59Z",
        "2026-01-06T16:00:00Z",
        "2026-01-07T15:59:59Z",
    )
    split = "{column: c, valid: 2026-01-06, test: 2026-01-07}"
    assert split_rows(tmp_path, split, times, head=SHANGHAI) == [1, 2, 2]
    assert split_rows(tmp_path, split, times, head=HEAD)[:2] == [2, 2]
    with_offset = "{column: c, valid: 2026-01-05T16:00:00+00:00, test: 2026-01-07T00:00:00+08:00}"
    assert split_rows(tmp_path, with_offset, times, head=HEAD) == [1, 2, 2]
    longer = pa.concat_arrays(
        [times, stamps(times.type, "2026-01-08T15:59:59Z")]
    )  # the log ends on the 8th
    assert split_rows(
        tmp_path, "{column: c, valid: 2026-01-07, test: 2026-01-08}", longer, head=SHANGHAI, days=-1
    ) == [1, 2, 2]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_a_naive_column_compares_as_it_is_written(tmp_path: Path, unit: str) -> None:
    written = [
        "2026-01-05 23:59:59",
        "2026-01-06 00:00:00",
        "2026-01-07 05:59:59",
        "2026-01-07 06:00:00",
    ]
    times = pa.array([datetime.fromisoformat(text) for text in written], pa.timestamp(unit))
    split = "{column: c, valid: 2026-01-06, test: 2026-01-07 06:00}"
    assert split_rows(tmp_path, split, times, head=SHANGHAI) == [1, 2, 1]


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64()])
def test_a_date_column(tmp_path: Path, kind: pa.DataType) -> None:
    days = pa.array([date(2026, 1, 5), date(2026, 1, 6), date(2026, 1, 6), date(2026, 1, 7)], kind)
    assert split_rows(
        tmp_path, "{column: c, valid: 2026-01-06, test: 2026-01-07 00:00:00}", days
    ) == [1, 2, 1]
    longer = pa.concat_arrays([days, pa.array([date(2026, 1, 8)], kind)])
    assert split_rows(
        tmp_path, "{column: c, valid: 2026-01-07, test: 2026-01-08}", longer, days=-1
    ) == [1, 2, 1]
    for boundary in ("2026-01-06 06:00", "2026-01-06T00:00:00+08:00"):
        message = refusal(
            tmp_path,
            f"{{column: c, valid: '{boundary}', test: 2026-01-07}}",
            days,
            kind=SchemaError,
        )
        assert message.startswith("split.valid: ") and "write a day such as 2026-01-15" in message
    assert "split.valid: 20260106" in refusal(
        tmp_path, "{column: c, valid: 20260106, test: 20260107}", days, kind=SchemaError
    )


@pytest.mark.parametrize(
    "kind", [pa.int8(), pa.uint64(), pa.int64(), pa.float32(), pa.float64(), pa.decimal128(5, 1)]
)
def test_numbers(tmp_path: Path, kind: pa.DataType) -> None:
    values = pa.array([Decimal(n) if pa.types.is_decimal(kind) else n for n in (1, 2, 2, 3)], kind)
    assert split_rows(tmp_path, "{column: c, valid: 2, test: 3}", values) == [1, 2, 1]
    assert split_rows(tmp_path, "{column: c, valid: 1.5, test: 2.5, end: 1000}", values) == [
        1,
        2,
        1,
    ]
    message = refusal(tmp_path, '{column: c, valid: "2", test: "3"}', values, kind=SchemaError)
    assert "without quotes" in message


@pytest.mark.parametrize(
    ("boundary", "hint"),
    [("2026-01-06", "20260106"), ("20260106 06", "20260106"), ("soon", "quotes")],
)
def test_text_for_a_column_of_numbers(tmp_path: Path, boundary: str, hint: str) -> None:
    split = f'{{column: c, valid: "{boundary}", test: "z"}}'
    message = refusal(tmp_path, split, [20260105, 20260106, 20260107], kind=SchemaError)
    assert message.startswith(f"split.valid: {boundary!r} ") and hint in message


def test_large_numbers_compare_exactly(tmp_path: Path) -> None:
    big = 2**53
    values = pa.array([big, big + 1, big + 1, big + 2], pa.int64())
    assert split_rows(tmp_path, f"{{column: c, valid: {big + 1}, test: {big + 2}}}", values) == [
        1,
        2,
        1,
    ]


def test_nan_in_the_split_column_is_refused_with_its_row(tmp_path: Path) -> None:
    message = refusal(tmp_path, "{column: c, valid: 2, test: 3}", [1.0, 2.0, float("nan"), 3.0])
    assert "impressions.parquet: row 2: column 'c': expected a finite number" in message
    assert "row 1: column 'c': expected a value, found null" in refusal(
        tmp_path, "{column: c, valid: 2, test: 3}", [1, None, 2, 3]
    )


@pytest.mark.parametrize(
    ("values", "valid", "test"),
    [
        (["2026-01-05", "2026-01-06", "2026-01-06", "2026-01-07"], "2026-01-06", "2026-01-07"),
        (["20260105", "20260106", "20260106", "20260107"], "20260106", "20260107"),
        (
            ["2026-01-05 23", "2026-01-06 00", "2026-01-06 23", "2026-01-07 00"],
            "2026-01-06",
            "2026-01-07",
        ),
        (["2026010523", "2026010600", "2026010623", "2026010700"], "20260106", "20260107"),
        (
            [
                "2026-01-05T23:00:00",
                "2026-01-06T06:00:00",
                "2026-01-06T07:00:00",
                "2026-01-07T06:00:00",
            ],
            "2026-01-06T06:00",
            "2026-01-07T06:00",
        ),
        (["a", "b", "b", "c"], "b", "c"),
    ],
)
def test_text_of_one_format(tmp_path: Path, values: list[str], valid: str, test: str) -> None:
    assert split_rows(tmp_path, f'{{column: c, valid: "{valid}", test: "{test}"}}', values) == [
        1,
        2,
        1,
    ]


@pytest.mark.parametrize(
    ("values", "valid", "test", "row", "hint"),
    [
        (["2026-01-05", "2026-01-06", "2026-01-07"], "20260106", "20260107", 0, "2026-01-06"),
        (["20260105", "20260106", "20260107"], "2026-01-06", "2026-01-07", 0, "20260106"),
        (["2026-01-05", "2026/01/06", "2026-01-07"], "2026-01-06", "2026-01-07", 1, ""),
        (
            ["2026-01-05T01:00", "2026-01-06T01:00", "2026-01-07T01:00"],
            "2026-01-06 01:00",
            "2026-01-07 01:00",
            0,
            "",
        ),
        (["05.01.2026", "06.01.2026", "07.01.2026"], "2026-01-06", "2026-01-07", 0, ""),
        (
            ["2026-01-05T00:00:00Z", "2026-01-06T00:00:00Z", "2026-01-07T00:00:00+08:00"],
            "2026-01-06T00:00:00Z",
            "2026-01-07T00:00:00Z",
            2,
            "",
        ),
        (["8", "9", "10"], "9", "99", 2, ""),
        (["2026-01-05", "", "2026-01-07"], "2026-01-06", "2026-01-07", 1, ""),
    ],
)
def test_text_of_another_format_is_refused(
    tmp_path: Path, values: list[str], valid: str, test: str, row: int, hint: str
) -> None:
    message = refusal(tmp_path, f'{{column: c, valid: "{valid}", test: "{test}"}}', values)
    assert f"impressions.parquet: row {row}: column 'c': {values[row]!r} " in message
    assert message.endswith(hint)


def test_a_compact_day_is_refused_as_a_clock_boundary(tmp_path: Path) -> None:
    message = refusal(tmp_path, "{valid: 20260106, test: 20260107}", kind=SchemaError)
    assert message.startswith("split.valid: ") and message.endswith("write 2026-01-06")
    assert split_rows(tmp_path, '{valid: "20260106", test: "20260107"}') == [1, 1, 2]
    assert split_rows(tmp_path, f"{{start: 0, valid: {at(1)}, test: {at(2)}, end: .inf}}") == [
        1,
        1,
        2,
    ]
    assert split_rows(
        tmp_path,
        f"{{valid: {at(1) * 10**6}, test: {at(2) * 10**6}}}",
        head=HEAD + "clock: {unit: ns}\n",
        time_ms=[at(day) * 10**6 for day in range(4)],
    ) == [1, 1, 2]


def test_text_boundaries_keep_their_format_when_shifted(tmp_path: Path) -> None:
    """A row at the boundary stays above it: 2026-01-07 06:00 is no 2026-01-07 06:00:00."""
    hours = [f"2026-01-0{day} 06:00" for day in (5, 6, 7, 8, 9)]
    split = '{column: c, valid: "2026-01-08 06:00", test: "2026-01-09 06:00"}'
    assert split_rows(tmp_path, split, hours, days=-1) == [2, 1, 1]
    compact = ["20260227", "20260228", "20260301", "20260302", "20260303"]
    split = '{column: c, valid: "20260301", test: "20260302"}'
    assert split_rows(tmp_path, split, compact, days=-1) == [1, 1, 2]


def test_a_split_shifted_beyond_all_dates_is_refused(tmp_path: Path) -> None:
    for days in (-(10**6), -(10**12)):
        assert "--shift-days" in refusal(
            tmp_path, "{valid: 2026-01-06, test: 2026-01-07}", days=days, kind=UsageError
        )


def test_moved_numbers_of_nanoseconds(tmp_path: Path) -> None:
    times = {"time_ms": [at(day) * 10**6 for day in range(4)]}
    split = f"{{valid: {at(2) * 10**6}, test: {at(3) * 10**6}}}"
    assert split_rows(tmp_path, split, head=HEAD + "clock: {unit: ns}\n", days=-1, **times) == [
        1,
        1,
        1,
    ]


def test_decimals_with_fractions(tmp_path: Path) -> None:
    values = [Decimal("0.5"), Decimal("1.5"), Decimal("1.5"), Decimal("2.5")]
    assert split_rows(tmp_path, "{column: c, valid: 1, test: 2}", pa.array(values)) == [1, 2, 1]


def test_far_timestamps_do_not_overflow_into_the_range_of_dates(tmp_path: Path) -> None:
    """INT64_MAX milliseconds for "never": as microseconds it would be a second before 1970."""
    values = pa.array([at(0), at(1), at(2), 2**63 - 1], pa.timestamp("ms"))
    assert split_rows(tmp_path, "{column: c, valid: 2026-01-06, test: 2026-01-07}", values) == [
        1,
        1,
        2,
    ]
