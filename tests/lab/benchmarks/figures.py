"""Checks of a benchmark's JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

MACHINE_KEYS = {"cpu", "cores", "memory_bytes"}


def assert_figures(case: Mapping[str, Any], keys: set[str]) -> None:
    """The case has exactly these keys, and all of its numbers are finite."""
    assert set(case) == keys
    for key, value in case.items():
        assert all(math.isfinite(number) for number in _numbers(value)), key


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for entry in value:
            yield from _numbers(entry)
    elif isinstance(value, int | float):
        yield value
