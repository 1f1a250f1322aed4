"""The age of an event: log-scale buckets, and rotary angles of absolute times.

Two functions of times alone, shared by the fast path and the reference; neither knows a model.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from hemix.data.spec import TIMELESS_MS

__all__ = [
    "AGE_BUCKETS",
    "TIMELESS_BUCKET",
    "TimeEncoding",
    "age_bucket",
    "rotary_angles",
    "rotary_turns",
    "rotate",
]

TimeEncoding = Literal["bias", "rotary", "embedding", "none"]
"""How an event's age enters, without entering keys and values: decision 6."""

_SECOND_MS = 1000
_DAY_MS = 86_400_000
_EPOCH_MS = 1_600_000_000_000
_PERIOD_MIN_MS = 5 * 60 * _SECOND_MS
_PERIOD_MAX_MS = 730 * _DAY_MS

_EDGES_MS = [round(10 * _SECOND_MS * 2 ** (i * 0.75)) for i in range(30)]
"""Upper ends of all buckets but the last: 10 s, then a factor of 1.68 each, to 405 days."""

TIMELESS_BUCKET = len(_EDGES_MS) + 1
AGE_BUCKETS = TIMELESS_BUCKET + 1
"""Buckets of timed events, and one for timeless ones."""


def age_bucket(request_time_ms: Tensor, event_time_ms: Tensor) -> Tensor:
    """Return the age bucket of every (request, event) pair: int64 in [0, AGE_BUCKETS).

    An event at or after the request (possible only for what is masked) falls into the youngest
    bucket.

    Args:
        request_time_ms: int64, UTC; broadcast with the events' times.
        event_time_ms: int64, UTC; TIMELESS_MS for an event without a time.
    """
    edges = torch.tensor(_EDGES_MS, device=event_time_ms.device)
    timeless = event_time_ms == TIMELESS_MS
    bucket = torch.bucketize(request_time_ms - event_time_ms.masked_fill(timeless, 0), edges)
    return bucket.masked_fill(timeless, TIMELESS_BUCKET)


def rotary_turns(pairs: int, device: torch.device | None = None) -> Tensor:
    """Return turns per millisecond, fp64 [pairs], from one in five minutes to one in two years.

    Args:
        pairs: How many frequencies there are.
        device: The device of the result.
    """
    exponent = torch.arange(pairs, dtype=torch.float64, device=device) / max(pairs - 1, 1)
    return (1 / _PERIOD_MIN_MS) * (_PERIOD_MIN_MS / _PERIOD_MAX_MS) ** exponent


def rotary_angles(
    time_ms: Tensor, pairs: int, dtype: torch.dtype, turns_per_ms: Tensor | None = None
) -> Tensor:
    """Return angles [..., pairs] in [0, 2 pi), one per frequency; zeros for a timeless event.

    They are computed in fp64 from one fixed epoch and reduced before the cast: UTC milliseconds in
    fp32 are 131 s apart.

    Args:
        time_ms: int64 [...], UTC.
        pairs: How many frequencies there are.
        dtype: Of the result.
        turns_per_ms: :func:`rotary_turns`, computed earlier; None: computed here.
    """
    if turns_per_ms is None:
        turns_per_ms = rotary_turns(pairs, time_ms.device)
    since_epoch = (time_ms - _EPOCH_MS).masked_fill(time_ms == TIMELESS_MS, 0).to(torch.float64)
    turns = since_epoch.unsqueeze(-1) * turns_per_ms
    return ((turns - turns.floor()) * (2 * math.pi)).to(dtype)


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn the pairs (x[..., i], x[..., i + half]) by angles[..., i].

    Args:
        x: [..., 2 * pairs].
        angles: [..., pairs]; its leading shape is broadcast with that of ``x``.
    """
    cos, sin = angles.cos(), angles.sin()
    left, right = x.chunk(2, -1)
    return torch.cat([left * cos - right * sin, left * sin + right * cos], -1)
