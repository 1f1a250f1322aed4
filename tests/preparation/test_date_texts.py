"""Boundaries against a column of text: a moment is the same moment in whatever length it is
written.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from hemix.errors import SchemaError
from hemix.preparation.date_texts import comparable, lower_bound
from hemix.schema import Schema
from tests.preparation.test_boundaries import HEAD, refusal, split_rows
from tests.refusals import raises

DAYS = ["2026-01-05", "2026-01-06", "2026-01-07", "2026-01-08"]
HOURS = [f"{day} 03:00:00" for day in DAYS]


@pytest.mark.parametrize(
    ("mark", "bound"),
    [
        ("2026-01-06", "2026-01-06"),
        ("2026-01-06T00:00:00", "2026-01-06"),
        ("2026-01-06T00:00:00.000Z", "2026-01-06"),
        ("2026-01-06T20:00:00+08:00", "2026-01-06T20"),
        ("2026-01-06 06:30:00", "2026-01-06 06:30"),
        ("2026-01-06T06:30:00.500Z", "2026-01-06T06:30:00.5"),
        ("2026/01/06 00:00", "2026/01/06"),
        ("2026-02-01", "2026-02"),
        ("2026-01-06-00", "2026-01-06"),
        ("2026010600", "20260106"),
        ("20260106100000", "2026010610"),
        ("100", "100"),
        ("b00", "b00"),
    ],
)
def test_the_lower_bound_of_a_boundary(mark: str, bound: str) -> None:
    assert lower_bound(mark) == bound


@pytest.mark.parametrize(
    ("values", "valid", "test"),
    [
        (DAYS, "2026-01-06T00:00:00", "2026-01-07T00:00:00"),
        (DAYS, "'2026-01-06 00:00'", "'2026-01-07 00:00'"),
        (HOURS, "2026-01-06T00:00:00", "2026-01-07T00:00:00"),  # YAML makes a T of the space
        (HOURS, "'2026-01-06 03:00'", "'2026-01-07 03:00:00'"),
        (
            [v.replace(" ", "T") + "Z" for v in HOURS],
            "2026-01-06T00:00:00Z",
            "2026-01-07T00:00:00Z",
        ),
        ([v[:16] for v in HOURS], "'2026-01-06 03:00:00'", "'2026-01-07 03:00:00'"),
        (["2026-01", "2026-02", "2026-03", "2026-04"], "2026-02-01", "2026-03-01"),
        (["20260105", "20260106", "20260107", "20260108"], "'2026010600'", "'2026010700'"),
        ([v.replace("-", "/") for v in DAYS], "2026/01/06 00:00", "2026/01/07 00:00"),
        (["05.01.2026", "06.01.2026", "07.01.2026", "08.01.2026"], "06.01.2026", "07.01.2026"),
        (["01/05/2026", "01/20/2026", "02/07/2026", "02/08/2026"], "01/20/2026", "02/07/2026"),
        (["2026-1-5", "2026-1-6", "2026-1-7 03:00", "2026-1-8"], "2026-1-6", "2026-1-7"),
        (["1234-56-a", "1234-56-b", "1234-56-c", "1234-56-d"], "1234-56-b", "1234-56-c"),
    ],
)
def test_a_row_at_a_boundary_belongs_to_the_later_split(
    tmp_path: Path, values: list[str], valid: str, test: str
) -> None:
    assert split_rows(tmp_path, f"{{column: c, valid: {valid}, test: {test}}}", values) == [1, 1, 2]


@pytest.mark.parametrize(
    ("values", "valid", "test", "row"),
    [
        (
            ["2024-01-05", "2025-01-06", "2026-01-07"],
            "2025/01/01",
            "2026/01/01",
            0,
        ),  # else cut by the year alone
        (["2024-01-05", "2025-01-06", "2026-01-07"], "2025.01.01", "2026.01.01", 0),
        (
            ["15.01.2026", "03.02.2026", "20.02.2026"],
            "10.02.2026",
            "18.02.2026",
            0,
        ),  # 03.02. is below 15.01.
        (["01/05/2025", "01/20/2026", "02/07/2026"], "01/20/2026", "02/07/2026", 0),
        (["1/9/2026", "1/10/2026", "1/11/2026"], "1/10/2026", "1/11/2026", 0),
        (["2026-1-5", "2026-1-6", "2026-1-10"], "2026-1-6", "2026-1-7", 2),
    ],
)
def test_days_whose_text_order_is_not_time_order_are_refused(
    tmp_path: Path, values: list[str], valid: str, test: str, row: int
) -> None:
    message = refusal(tmp_path, f"{{column: c, valid: {valid}, test: {test}}}", values)
    assert f"row {row}: column 'c': " in message


def test_offsets_of_utc_are_one() -> None:
    assert comparable("2026-01-06T03:00:00Z", "2026-01-06T00:00:00+00:00")
    assert not comparable("2026-01-06T03:00:00Z", "2026-01-06T00:00:00+08:00")


@pytest.mark.parametrize("value", ["null", "[1]", "{a: 1}", ".nan", "true"])
def test_an_invalid_boundary_gives_a_one_line_error(value: str) -> None:
    with raises(SchemaError, field="split.valid"):
        Schema.parse(f"{HEAD}split: {{valid: {value}, test: 2026-01-07}}")
    Schema.parse(f"{HEAD}split: {{start: null, valid: 2026-01-06, test: 2026-01-07, end: null}}")
