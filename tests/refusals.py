"""Assertions on errors: class, code, field, and the values in the message."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

from hemix.errors import HemixError

Kind = TypeVar("Kind", bound=HemixError)


@contextmanager
def raises(
    kind: type[Kind],
    *values: object,
    code: str | None = None,
    field: object = None,
) -> Iterator[pytest.ExceptionInfo[Kind]]:
    """Expect an error of one line.

    Args:
        kind: Its class.
        *values: What its message holds: names, numbers, files.
        code: Its code; None: that of the class.
        field: Its field; None: any.
    """
    with pytest.raises(kind) as caught:
        yield caught
    error = caught.value
    assert error.code == (code or kind.code), error
    assert field is None or error.field == str(field), error
    assert "\n" not in str(error)
    for value in values:
        assert str(value) in str(error)
