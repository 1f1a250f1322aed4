"""Which version of a row held at a time."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hemix.data.spec import TIMELESS_MS
from hemix.data.versions import Versions


def test_a_version_is_valid_from_its_start_time() -> None:
    versions = Versions(
        first_row=np.array([0, 1, 4]), valid_from_ms=np.array([TIMELESS_MS, TIMELESS_MS, 100, 200])
    )
    number = np.array([0, 1, 1, 1, 1, 1])
    time = np.array([999, 99, 100, 199, 200, TIMELESS_MS])
    assert versions.row_at(number, time).tolist() == [0, 1, 2, 2, 3, 1]


@given(
    starts=st.lists(st.lists(st.integers(0, 50), max_size=6, unique=True), min_size=1, max_size=5),
    queries=st.lists(st.tuples(st.integers(0, 4), st.integers(-5, 60)), max_size=20),
)
def test_agrees_with_a_plain_search(
    starts: list[list[int]], queries: list[tuple[int, int]]
) -> None:
    each = [[TIMELESS_MS, *sorted(s)] for s in starts]
    first = np.cumsum([0, *map(len, each)])
    versions = Versions(
        first_row=first, valid_from_ms=np.concatenate([np.array(e, dtype=np.int64) for e in each])
    )
    number = np.array([n % len(each) for n, _ in queries], dtype=np.int64)
    time = np.array([t for _, t in queries], dtype=np.int64)
    expected = [
        int(first[n]) + max(i for i, s in enumerate(each[n]) if s <= t)
        for n, t in zip(number, time, strict=True)
    ]
    assert versions.row_at(number, time).tolist() == expected
