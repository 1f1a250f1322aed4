"""What JSON values are numbers and scalars: the checks that feature types share."""

from __future__ import annotations

from typing import Any

from hemix.data.raw_columns import MAX_NUMBER

__all__ = ["SCALAR_SCHEMA", "degrees_problem", "is_number", "number_problem", "scalar_problem"]

_MAX_CATEGORY = 1e300
"""A category may be a number up to here."""

SCALAR_SCHEMA: dict[str, Any] = {"type": ["string", "number", "boolean", "null"]}
"""The JSON schema of a category."""


def is_number(value: Any) -> bool:
    """Return whether a JSON value is a finite number; a boolean counts as 0 or 1."""
    # math.isfinite refuses large integers
    return isinstance(value, int | float) and abs(value) < _MAX_CATEGORY


def number_problem(value: Any) -> str | None:
    """Return what was expected where a value is not a feature's number, else None."""
    fits = is_number(value) and abs(value) <= MAX_NUMBER
    return None if fits else f"a finite number up to {MAX_NUMBER:g}"


def scalar_problem(value: Any) -> str | None:
    """Return what was expected where a value is not a category, else None."""
    fits = isinstance(value, str) or is_number(value)
    return None if fits else "a string, a number or a boolean"


def degrees_problem(value: Any, limit: float) -> str | None:
    """Return the expected value if ``value`` is no angle from -limit to limit, else None.

    Args:
        value: A JSON value.
        limit: Degrees.
    """
    fits = is_number(value) and abs(value) <= limit
    return None if fits else f"degrees from -{limit:g} to {limit:g}"
