"""What is wrong, or differs, in one line for the person who wrote the YAML; names that were
meant.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

__all__ = ["did_you_mean", "first_difference", "first_problem"]


def first_problem(error: ValidationError) -> str:
    """The first problem of a pydantic error as ``key.path: message``, with what was found."""
    problems = error.errors(include_url=False)
    # a stray key explains a missing one
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    key, kind = ".".join(str(part) for part in problem["loc"]), problem["type"]
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
    """Return ``did you mean ...?`` with the closest known name; empty where none is close.

    Args:
        name: What was found.
        known: The names that there are.
    """
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else ""


def first_difference(ours: Any, theirs: Any, where: str = "") -> str | None:
    """The first key in which two dumped schemas differ, with both values; None where none does."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in [*ours, *(k for k in theirs if k not in ours)]:
            if where == "" and key in ("name", "tables") and "labels" in ours:
                continue  # the schema's name and the files' places mean nothing
            found = first_difference(
                ours.get(key), theirs.get(key), f"{where}.{key}" if where else str(key)
            )
            if found:
                return found
        return None
    return (
        None
        if ours == theirs or _list_like(ours) == _list_like(theirs)
        else f"{where}: {ours!r} against {theirs!r}"
    )


def _list_like(value: Any) -> Any:
    """Tuples as lists, so that JSON's lists compare equal."""
    return [_list_like(v) for v in value] if isinstance(value, list | tuple) else value
