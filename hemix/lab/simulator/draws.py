"""Randomness by key: a draw is a function of what it is for, and of nothing else.

``key(seed, purpose, user, moment, item)`` hashes its parts (SplitMix64 finaliser, one round a part)
into 64 random bits; the functions below turn keys into numbers. A draw therefore does not depend on
the order of the program, on what else was drawn, on how users are divided into chunks, or on the
arm of an experiment.

This module knows nothing of the city.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Keys", "branch", "choice", "extend", "gumbel", "key", "normal", "poisson", "uniform"]

Keys = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_A = np.uint64(0xBF58476D1CE4E5B9)
_B = np.uint64(0x94D049BB133111EB)
_SECOND = np.uint64(0xD1B54A32D192ED03)


def _mix(bits: Keys) -> Keys:
    bits = bits ^ (bits >> np.uint64(30))
    bits *= _A
    bits ^= bits >> np.uint64(27)
    bits *= _B
    bits ^= bits >> np.uint64(31)
    return bits


@lru_cache(maxsize=1024)
def _root(seed: int, purpose: str) -> int:
    return int.from_bytes(
        hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest(), "little"
    )


def key(seed: int, purpose: str, *parts: Any) -> Keys:
    """Keys for ``parts`` (integers or integer arrays, broadcast against each other), of at least
    one dimension.
    """
    return extend(np.full(1, _root(seed, purpose), dtype=np.uint64), *parts)


def extend(keys: Keys, *parts: Any) -> Keys:
    """Keys of the same purpose with further parts: ``extend(key(s, p, a), b) == key(s, p, a,
    b)``.
    """
    for part in parts:
        step = np.atleast_1d(np.asarray(part)).astype(np.int64).astype(np.uint64) + np.uint64(1)
        keys = _mix(keys + step * _GOLDEN)
    return keys


def branch(keys: Keys, purpose: str) -> Keys:
    """Keys of another purpose with the same parts, for several draws about one thing."""
    return _mix(keys ^ np.uint64(_root(0, purpose)))


def uniform(keys: Keys) -> Floats:
    """Uniform on (0, 1), both ends excluded."""
    return (keys >> np.uint64(12)).astype(np.float64) * 2.0**-52 + 2.0**-53


def normal(keys: Keys) -> Floats:
    """Standard normal (Box-Muller, over two hashes of the key)."""
    radius = np.sqrt(-2.0 * np.log(uniform(keys)))
    return radius * np.cos(2.0 * np.pi * uniform(_mix(keys ^ _SECOND)))


def gumbel(keys: Keys) -> Floats:
    """Standard Gumbel: the largest of ``log weight + gumbel`` is a draw proportional to the
    weights.
    """
    return -np.log(-np.log(uniform(keys)))


def poisson(keys: Keys, mean: npt.ArrayLike, maximum: int) -> Ints:
    """Poisson with the given means, no more than ``maximum``."""
    means = np.asarray(mean, dtype=np.float64)
    draw = uniform(keys)
    term = np.exp(-means)
    below = term.copy()
    count = np.zeros(np.broadcast(draw, means).shape, dtype=np.int64)
    for k in range(1, maximum + 1):
        count += draw > below
        term = term * means / k
        below = below + term
    return count


def choice(keys: Keys, weights: npt.ArrayLike) -> Ints:
    """Index drawn proportional to one list of weights (need not sum to 1)."""
    cumulative = np.cumsum(np.asarray(weights, dtype=np.float64))
    found: Ints = np.searchsorted(cumulative / cumulative[-1], uniform(keys), side="right").astype(
        np.int64
    )
    return np.minimum(found, len(cumulative) - 1)
