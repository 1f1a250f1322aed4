"""Validation errors as values, differences between schemas, and suggestions for wrong names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from hemix.errors import UsageError

__all__ = [
    "InvalidKey",
    "Problem",
    "closest_name",
    "did_you_mean",
    "first_difference",
    "first_problem",
    "unknown_name",
]

_CODES = {"extra_forbidden": "unknown_key", "missing": "missing_key"}
"""Codes by pydantic's type of a problem"""


class InvalidKey(ValueError):
    """A key inside a section has a wrong value; raised by the validator of the whole section."""

    def __init__(self, key: str, problem: str) -> None:
        """Make the error.

        Args:
            key: Path of the key, such as ``labels.click.given``.
            problem: What was expected and what was found.
        """
        super().__init__(f"{key}: {problem}")
        self.key = key
        self.problem = problem


@dataclass(frozen=True)
class Problem:
    """One problem of a pydantic error; its text is ``key.path: message``."""

    field: str | None
    """Path of the key; None for the whole content"""
    message: str
    code: str | None = None
    """``unknown_key``, ``missing_key`` or None"""

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


def first_problem(error: ValidationError) -> Problem:
    """Return the first problem of a pydantic error."""
    problems = error.errors(include_url=False)
    # an unknown key is often the misspelt name of a missing key
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    kind, path = problem["type"], [str(name) for name in problem["loc"]]
    cause = problem.get("ctx", {}).get("error")
    if isinstance(cause, InvalidKey):
        path.append(cause.key)
    field = ".".join(path) or None
    if kind in _CODES:
        message = "unknown key" if kind == "extra_forbidden" else "missing"
        return Problem(field, message, _CODES[kind])
    if isinstance(cause, InvalidKey):
        message = cause.problem
    elif kind in ("model_type", "dict_type", "model_attributes_type"):
        message = "expected keys with values"
    else:
        message = (
            problem["msg"].removeprefix("Value error, ").replace("Input should be", "expected", 1)
        )
        if kind != "value_error" and not isinstance(problem["input"], dict | list):
            message += f", got {problem['input']!r}"
    if len(problems) > 1:
        message += f" (and {len(problems) - 1} more)"
    return Problem(field, message)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``did you mean ...?`` with the closest known name; empty if no name is close.

    Args:
        name: The wrong name.
        known: All valid names.
    """
    close = closest_name(name, known)
    return f"did you mean {close}?" if close else ""


def closest_name(name: str, known: Iterable[str]) -> str | None:
    """Return the valid name that a wrong one is probably meant to be; None if none is close.

    Args:
        name: The wrong name.
        known: All valid names.
    """
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)), None)


def first_difference(ours: Any, theirs: Any, where: str = "") -> str | None:
    """Return the first key in which two dumped schemas differ, with both values.

    Args:
        ours: The content of one schema.
        theirs: The content of the other schema.
        where: The path of both contents; empty for a whole schema.

    Returns:
        ``key: value against value``; None if they are equal but for name and table paths.
    """
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in [*ours, *(k for k in theirs if k not in ours)]:
            if where == "" and key in ("name", "tables") and "labels" in ours:
                continue  # the schema's name and the paths of its tables do not count
            difference = first_difference(
                ours.get(key), theirs.get(key), f"{where}.{key}" if where else str(key)
            )
            if difference:
                return difference
        return None
    return (
        None
        if ours == theirs or _list_like(ours) == _list_like(theirs)
        else f"{where}: {ours!r} against {theirs!r}"
    )


def _list_like(value: Any) -> Any:
    """The value with lists for tuples, so that it compares equal with JSON."""
    return [_list_like(v) for v in value] if isinstance(value, list | tuple) else value


def unknown_name(problem: str, known: Iterable[str], field: str = "name") -> UsageError:
    """Return the error for a name that is none of some.

    Args:
        problem: The message, such as ``import imdb: unknown data set``.
        known: The names.
        field: The argument or flag.
    """
    hint = f"known: {', '.join(known)}"
    return UsageError(problem, code="unknown_name", field=field, hint=hint)
