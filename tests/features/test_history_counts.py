"""History counts by hand, and the columns that they become."""

from __future__ import annotations

import numpy as np

from hemix.features.history_counts import (
    counted_actions,
    history_count_names,
    history_counts,
    number_of_actions,
)


def test_counts_by_hand() -> None:
    """Two known actions (ids 2 and 3); 0 and 1, unknown and missing, count in the totals alone."""
    actions = np.array([2, 3, 3, 0, 2, 1, 2])
    history_ranges = np.array([[0, 4, 7], [1, 1, 3], [5, 5, 5]])
    numbers = history_counts(history_ranges, actions, 2)
    # today, before, today's 2 and 3, the 2 and 3 before
    assert np.expm1(numbers).round(5).tolist() == [
        [3, 4, 2, 0, 1, 2],
        [2, 0, 0, 2, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ]
    assert history_counts(history_ranges, actions, 0).shape == (3, 2)
    assert history_counts(np.zeros((1, 3), np.int64), actions[:0], 1).tolist() == [[0.0] * 4]


def test_names_and_numbers_agree() -> None:
    names = history_count_names(("view", "buy"))
    assert names == [
        "history.today",
        "history.before",
        "history.today.view",
        "history.today.buy",
        "history.before.view",
        "history.before.buy",
    ]
    assert [number_of_actions(len(history_count_names("abc"[:n]))) for n in range(4)] == [
        0,
        1,
        2,
        3,
    ]


def test_many_actions_are_not_counted_apart() -> None:
    assert counted_actions([str(n) for n in range(16)]) == tuple(str(n) for n in range(16))
    assert counted_actions([str(n) for n in range(17)]) == ()
