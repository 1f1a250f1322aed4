"""Cuts of a history: by hand, and against a plain search."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hemix.data.history import find_history_ranges
from hemix.data.spec import TIMELESS_MS
from hemix.schema import History

DAY_MS = 86_400_000
NOON = 10 * DAY_MS + DAY_MS // 2


def ranges(times: list[int], request: int, **history: object) -> list[int]:
    settings = History.model_validate(history)
    got = find_history_ranges(
        np.array(times, dtype=np.int64),
        np.array([0]),
        np.array([len(times)]),
        np.array([request]),
        settings,
        "UTC",
        delay_ms=settings.delay_ms,
    )
    return got[0].tolist()  # type: ignore[no-any-return]


def test_leak_an_event_at_the_request_is_hidden_and_one_a_millisecond_before_is_not() -> None:
    assert ranges([NOON], NOON) == [0, 0, 0]
    assert ranges([NOON - 1], NOON) == [0, 0, 1]
    assert ranges([NOON + 1], NOON) == [0, 0, 0]


def test_leak_the_delay_hides_the_newest_events() -> None:
    assert ranges([NOON - 60_000, NOON - 59_999], NOON, delay="1min") == [0, 0, 0]
    assert ranges([NOON - 60_001, NOON - 60_000], NOON, delay="1min") == [0, 0, 1]


def test_real_time_begins_with_the_local_day() -> None:
    midnight = 10 * DAY_MS
    assert ranges([midnight - 1, midnight, midnight + 1], NOON) == [0, 1, 3]


def test_real_time_as_a_duration() -> None:
    times = [NOON - 7_200_001, NOON - 7_200_000, NOON - 1]
    assert ranges(times, NOON, realtime_window="2h") == [0, 1, 3]


def test_lengths_are_capped_from_the_newest_and_the_rest_of_today_counts_as_global() -> None:
    yesterday = [9 * DAY_MS + i for i in range(5)]
    today = [10 * DAY_MS + i for i in range(4)]
    assert ranges(yesterday + today, NOON, realtime_length=2, global_length=3) == [4, 7, 9]


def test_timeless_events_are_always_visible_and_global() -> None:
    assert ranges([TIMELESS_MS, TIMELESS_MS, NOON - 1], NOON) == [0, 2, 3]
    assert ranges([TIMELESS_MS], NOON, delay="30d") == [0, 1, 1]


def test_a_delay_longer_than_the_day_leaves_no_real_time() -> None:
    assert ranges([9 * DAY_MS, 10 * DAY_MS + 5], NOON, delay="20h") == [0, 1, 1]


def test_an_empty_history() -> None:
    assert ranges([], NOON) == [0, 0, 0]


@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    data=st.data(),
    delay=st.integers(0, 3),
    global_length=st.integers(1, 5),
    realtime_length=st.integers(1, 5),
)
def test_agrees_with_a_plain_search(
    lengths: list[int], data: st.DataObject, delay: int, global_length: int, realtime_length: int
) -> None:
    hour = 3_600_000
    moment = st.integers(0, 60)
    users = [sorted(data.draw(st.lists(moment, min_size=n, max_size=n))) for n in lengths]
    requests = [(u, data.draw(moment)) for u in range(len(users)) for _ in range(2)]
    settings = History.model_validate(
        {
            "delay": f"{delay}h" if delay else 0,
            "global_length": global_length,
            "realtime_length": realtime_length,
        }
    )
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    times = np.array([t * hour for user in users for t in user], dtype=np.int64)
    who = np.array([u for u, _ in requests])
    when = np.array([t * hour for _, t in requests], dtype=np.int64)
    got = find_history_ranges(
        times, offsets[who], offsets[who + 1], when, settings, "UTC", delay_ms=settings.delay_ms
    )
    for (user, time), (begin, middle, end) in zip(requests, got.tolist(), strict=True):
        seen = [t for t in users[user] if t < time - delay]
        today = [t for t in seen if t >= time // 24 * 24][-realtime_length:]
        earlier = seen[: len(seen) - len(today)][-global_length:]
        first = int(offsets[user])
        assert end - first == len(seen)
        assert end - middle == len(today)
        assert middle - begin == len(earlier)
    alone = [
        find_history_ranges(
            times,
            *(part[i : i + 1] for part in (offsets[who], offsets[who + 1], when)),
            settings,
            "UTC",
            delay_ms=settings.delay_ms,
        )
        for i in range(len(requests))
    ]
    assert (np.concatenate(alone) == got).all()
