"""One-line descriptions of validation errors and differences, and suggestions for wrong names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

__all__ = ["did_you_mean", "first_difference", "first_problem"]


def first_problem(error: ValidationError) -> str:
    """Return the first problem of a pydantic error as ``key.path: message, got value``."""
    problems = error.errors(include_url=False)
    # an unknown key is often the misspelt name of a missing key
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    key, kind = ".".join(str(name) for name in problem["loc"]), problem["type"]
    if kind == "extra_forbidden":
        return f"{key}: unknown key"
    if kind == "missing":
        return f"{key}: missing"
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        message = "expected keys with values"
    else:
        message = (
            problem["msg"].removeprefix("Value error, ").replace("Input should be", "expected", 1)
        )
        if kind != "value_error" and not isinstance(problem["input"], dict | list):
            message += f", got {problem['input']!r}"
    if len(problems) > 1:
        message += f" (and {len(problems) - 1} more)"
    return f"{key}: {message}" if key else message


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``did you mean ...?`` with the closest known name; empty if no name is close.

    Args:
        name: The wrong name.
        known: All valid names.
    """
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else ""


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
