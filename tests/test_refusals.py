"""The assertion on errors fails for another code, field or value."""

from __future__ import annotations

from typing import Any

import pytest

from hemix.errors import DataError
from tests.refusals import raises


def refuse() -> None:
    message = "/data-1/a.parquet: row 10: expected -1.5 to 20, found 2026-01-15"
    raise DataError(message, code="damaged_file", field="price")


@pytest.mark.parametrize(
    ("values", "options"),
    [
        ((), {}),
        ((), {"code": "missing_file"}),
        ((), {"code": "damaged_file", "field": "cost"}),
        (("b.parquet",), {"code": "damaged_file"}),
        *[((number,), {"code": "damaged_file"}) for number in (0, 1, 2, 5, 1.5, 15, -15, 2026)],
    ],
)
def test_another_code_field_or_value_fails(
    values: tuple[object, ...], options: dict[str, Any]
) -> None:
    with pytest.raises(AssertionError), raises(DataError, *values, **options):
        refuse()


def test_code_field_and_values_pass() -> None:
    with raises(DataError, "a.parquet", 10, -1.5, 20, code="damaged_file", field="price"):
        refuse()
