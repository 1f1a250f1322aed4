"""A pydantic error as one line for the person who wrote the YAML, and names that were meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from pydantic import ValidationError

__all__ = ["did_you_mean", "first_problem"]

_DISCRIMINATORS = {"categorical", "numeric", "vector", "coordinates", "distance", "clock"}


def first_problem(error: ValidationError) -> str:
    """The first problem of a pydantic error as ``key.path: message``, with what was found."""
    problems = error.errors(include_url=False)
    # a stray key explains a missing one
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    loc = [str(part) for part in problem["loc"]]
    # pydantic puts the chosen kind of feature into the path: features.user.age.numeric.buckets
    at = {"features": 3, "history": 3}.get(loc[0]) if loc else None
    if at is not None and len(loc) > at and loc[at] in _DISCRIMINATORS:
        del loc[at]
    key = ".".join(loc)
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{key}: unknown key"
    if kind == "missing":
        return f"{key}: missing"
    if kind == "union_tag_invalid":
        message = f"expected type {context['expected_tags']}, got {context['tag']!r}"
    elif kind == "union_tag_not_found":
        message = "expected a type (categorical, numeric, vector, coordinates, distance or clock)"
    elif kind in ("model_type", "dict_type", "model_attributes_type"):
        message = "expected keys with values"
    else:
        message = problem["msg"].removeprefix("Value error, ").replace("Input should be", "expected", 1)
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
