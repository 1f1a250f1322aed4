"""Assertions on errors: class, code, field, and the values in the message."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

import pytest

from hemix.errors import HemixError

Kind = TypeVar("Kind", bound=HemixError)
Refused = Callable[[], AbstractContextManager[object]]
"""Parameter of a test: ``partial(raises, UsageError, 500, field="--users")``"""


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
        *values: What its message holds: names, numbers, files. A number stands by itself: 1 is
            not found in 10.
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
        assert _holds(str(error), value), (value, str(error))


def _holds(message: str, value: object) -> bool:
    if isinstance(value, int | float):
        return re.search(rf"(?<![\w.-]){re.escape(str(value))}(?!\w|[.-]\d)", message) is not None
    return str(value) in message
