"""Local days and hours, against the standard library and by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hemix.data.clock import calendar_field, day_start_ms, local_ms

HOUR_MS = 3_600_000


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def test_shanghai_day_begins_at_16_utc() -> None:
    times = np.array([ms("2026-01-05T15:59:59+00:00"), ms("2026-01-05T16:00:00+00:00")])
    assert day_start_ms(times, "Asia/Shanghai").tolist() == [
        ms("2026-01-04T16:00:00+00:00"),
        ms("2026-01-05T16:00:00+00:00"),
    ]
    assert calendar_field("hour", times, "Asia/Shanghai").tolist() == [23, 0]
    assert calendar_field("weekday", times, "Asia/Shanghai").tolist() == [0, 1]  # Monday ends
    assert calendar_field("hour_of_week", times, "Asia/Shanghai").tolist() == [23, 24]


def test_a_day_with_a_clock_change_begins_at_its_own_midnight() -> None:
    # Berlin, 2026-03-29: 02:00 becomes 03:00; at 12:00 summer time the day began at 00:00 winter
    # time, 11 hours before
    noon = np.array([ms("2026-03-29T12:00:00+02:00")])
    assert day_start_ms(noon, "Europe/Berlin").tolist() == [ms("2026-03-29T00:00:00+01:00")]
    assert calendar_field("hour", noon, "Europe/Berlin").tolist() == [12]


@pytest.mark.parametrize(
    "zone", ["UTC", "Asia/Kathmandu", "America/New_York", "Australia/Lord_Howe"]
)
@given(seconds=st.lists(st.integers(0, 4_000_000_000), min_size=1, max_size=20))
def test_agrees_with_the_standard_library(zone: str, seconds: list[int]) -> None:
    times = np.array(seconds, dtype=np.int64) * 1000
    for time_ms, local, start in zip(
        times, local_ms(times, zone), day_start_ms(times, zone), strict=True
    ):
        here = datetime.fromtimestamp(int(time_ms) / 1000, tz=UTC).astimezone(ZoneInfo(zone))
        assert local == int(here.replace(tzinfo=UTC).timestamp() * 1000)
        assert start == int(here.replace(hour=0, minute=0, second=0, fold=0).timestamp() * 1000)
    many = np.tile(times, 40)  # they are asked for once each
    assert (local_ms(many, zone) == np.tile(local_ms(times, zone), 40)).all()
    assert (day_start_ms(many, zone) == np.tile(day_start_ms(times, zone), 40)).all()


@pytest.mark.parametrize(
    ("zone", "change"),
    [
        ("America/St_Johns", "2010-03-14T03:31:00+00:00"),  # 00:01 local time
        ("America/Moncton", "2006-04-02T04:01:00+00:00"),
        ("Antarctica/Casey", "2020-10-03T16:01:00+00:00"),
    ],
)
@pytest.mark.parametrize("times", [1, 100])
def test_an_offset_that_changes_within_a_quarter_of_an_hour(
    zone: str, change: str, times: int
) -> None:
    moments = np.array(
        [ms(change) + offset for offset in (-60_000, -1, 0, 1, 60_000, 10 * 60_000)] * times
    )
    expected = [
        int(
            datetime.fromtimestamp(m / 1000, tz=UTC)
            .astimezone(ZoneInfo(zone))
            .replace(tzinfo=UTC)
            .timestamp()
            * 1000
        )
        for m in (moments // 1000 * 1000).tolist()
    ]
    assert (local_ms(moments, zone) // 1000 * 1000).tolist() == expected
