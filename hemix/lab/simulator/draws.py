"""Keyed random draws: each value is a function of its key alone.

A key hashes a seed, a purpose and integer components, such as user, request and venue. Draws are
therefore independent of program order, of how users are split into chunks, and of an experiment's
arm.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.lab.simulator.arrays import Float64Array, Int64Array
from hemix.splitmix import INCREMENT, finalise

__all__ = [
    "Keys",
    "choice",
    "extend",
    "gumbel",
    "key",
    "normal",
    "poisson",
    "uniform",
    "with_purpose",
]

Keys = npt.NDArray[np.uint64]

_BOX_MULLER_ANGLE = np.uint64(0xD1B54A32D192ED03)
"""Turns a key into the one of its second uniform value."""


@lru_cache(maxsize=1024)
def _root(seed: int, purpose: str) -> int:
    return int.from_bytes(
        hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest(), "little"
    )


def key(seed: int, purpose: str, *components: Any) -> Keys:
    """Make keys for a purpose.

    Args:
        seed: Seed of the city.
        purpose: Name of the drawn quantity.
        *components: Integers or integer arrays, broadcast against each other.

    Returns:
        uint64 keys in the broadcast shape, with at least one dimension.
    """
    return extend(np.full(1, _root(seed, purpose), dtype=np.uint64), *components)


def extend(keys: Keys, *components: Any) -> Keys:
    """Append components: ``extend(key(s, p, a), b)`` equals ``key(s, p, a, b)``.

    Args:
        keys: Keys to extend.
        *components: Integers or integer arrays, broadcast against the keys.

    Returns:
        uint64 keys in the broadcast shape.
    """
    for component in components:
        integers = np.atleast_1d(np.asarray(component)).astype(np.int64)
        steps = integers.astype(np.uint64) + np.uint64(1)
        keys = finalise(keys + steps * INCREMENT)
    return keys


def with_purpose(keys: Keys, purpose: str) -> Keys:
    """Derive keys for another quantity of the same components.

    Args:
        keys: Keys of the components.
        purpose: Name of the other quantity.

    Returns:
        uint64 keys in the same shape.
    """
    return finalise(keys ^ np.uint64(_root(0, purpose)))


def uniform(keys: Keys) -> Float64Array:
    """Draw from the uniform distribution on (0, 1), both ends excluded."""
    return (keys >> np.uint64(12)).astype(np.float64) * 2.0**-52 + 2.0**-53


def normal(keys: Keys) -> Float64Array:
    """Draw from the standard normal distribution (Box-Muller)."""
    radius = np.sqrt(-2.0 * np.log(uniform(keys)))
    return radius * np.cos(2.0 * np.pi * uniform(finalise(keys ^ _BOX_MULLER_ANGLE)))


def gumbel(keys: Keys) -> Float64Array:
    """Draw from the standard Gumbel distribution.

    The index with the largest ``log(weight) + gumbel`` is a draw in proportion to the weights.
    """
    return -np.log(-np.log(uniform(keys)))


def poisson(keys: Keys, mean: npt.ArrayLike, maximum: int) -> Int64Array:
    """Draw from Poisson distributions, truncated at ``maximum``.

    Args:
        keys: One key per draw.
        mean: Means, broadcast against the keys.
        maximum: Largest count.

    Returns:
        Counts in the broadcast shape.
    """
    means = np.asarray(mean, dtype=np.float64)
    draw = uniform(keys)
    probability = np.exp(-means)
    cumulative = probability.copy()
    count = np.zeros(np.broadcast(draw, means).shape, dtype=np.int64)
    for k in range(1, maximum + 1):
        count += draw > cumulative
        probability = probability * means / k
        cumulative = cumulative + probability
    return count


def choice(keys: Keys, weights: npt.ArrayLike) -> Int64Array:
    """Draw indices in proportion to weights.

    Args:
        keys: One key per draw.
        weights: Non-negative weights [k]; they need not sum to 1.

    Returns:
        Indices into ``weights`` in the shape of the keys.
    """
    cumulative = np.cumsum(np.asarray(weights, dtype=np.float64))
    index: Int64Array = np.searchsorted(
        cumulative / cumulative[-1], uniform(keys), side="right"
    ).astype(np.int64)
    return np.minimum(index, len(cumulative) - 1)
