"""Buckets and angles of time: exact edges, timeless events, and angles that stay sharp at epoch
milliseconds.
"""

from __future__ import annotations

import math

import torch

from hemix.data.spec import TIMELESS_MS
from hemix.nn.time_encoding import AGE_BUCKETS, TIMELESS_BUCKET, age_bucket, rotary_angles, rotate

NOW_MS = 1_770_000_000_000


def test_buckets() -> None:
    """The first ends at 10 s inclusive, the second at 10 s x 2^0.75 = 16.818 s; the last timed one
    holds everything older.
    """
    ages_ms = torch.tensor([0, 1, 10_000, 10_001, 16_818, 16_819, 86_400_000 * 3650])
    assert age_bucket(torch.tensor(NOW_MS), NOW_MS - ages_ms).tolist() == [
        0,
        0,
        0,
        1,
        1,
        2,
        TIMELESS_BUCKET - 1,
    ]


def test_timeless_events_have_a_bucket_of_their_own() -> None:
    assert age_bucket(torch.tensor([NOW_MS]), torch.tensor([TIMELESS_MS])).tolist() == [
        TIMELESS_BUCKET
    ]
    assert TIMELESS_BUCKET == AGE_BUCKETS - 1


def test_rotated_products_depend_on_the_difference_of_times_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    key, query = torch.randn(2, 16, generator=generator)
    event, request = torch.tensor(NOW_MS - 5_000_000), torch.tensor(NOW_MS)

    def score(shift_ms: int) -> float:
        turned = (
            rotate(x, rotary_angles(t + shift_ms, 8, torch.float32))
            for x, t in ((key, event), (query, request))
        )
        first, second = turned
        return float(first @ second)

    for shift_ms in (1, 86_400_000, 400 * 86_400_000):
        assert math.isclose(score(0), score(shift_ms), abs_tol=2e-5)
    assert abs(score(0) - float(key @ query)) > 1e-2


def test_angles_tell_one_second_apart_at_epoch_milliseconds() -> None:
    """The fastest pair turns once in 5 minutes: 1 s is 2 pi / 300.

    In fp32 both times would be the same number.
    """
    times = torch.tensor([NOW_MS, NOW_MS + 1000])
    assert times[0].float() == times[1].float()
    first, second = rotary_angles(times, 4, torch.float32)[:, 0].tolist()
    assert math.isclose((second - first) % (2 * math.pi), 2 * math.pi / 300, rel_tol=1e-4)


def test_timeless_keys_are_not_turned() -> None:
    assert rotary_angles(torch.tensor([TIMELESS_MS]), 4, torch.float64).tolist() == [[0, 0, 0, 0]]
