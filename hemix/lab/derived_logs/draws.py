"""Random numbers that depend on a seed and a key alone, not on the order of the rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hemix.splitmix import mix_bits

__all__ = ["rank", "uniform"]

_FRACTION_BITS = 53


def _bits(keys: npt.ArrayLike, seed: int) -> npt.NDArray[np.uint64]:
    return mix_bits(np.asarray(keys, dtype=np.uint64) ^ mix_bits(np.array([seed], dtype=np.uint64)))


def uniform(keys: npt.ArrayLike, seed: int) -> npt.NDArray[np.float64]:
    """Draw one number in (0, 1) for every key.

    Args:
        keys: uint64 of any shape.
        seed: Of the draw.

    Returns:
        float64 in the shape of ``keys``.
    """
    fraction = (_bits(keys, seed) >> np.uint64(64 - _FRACTION_BITS)).astype(np.float64)
    return (fraction + 0.5) / 2.0**_FRACTION_BITS


def rank(keys: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.int64]:
    """Return the positions of distinct keys in a drawn order.

    Args:
        keys: uint64 [n].
        seed: Of the draw.

    Returns:
        int64 [n], a permutation of 0 to n - 1.
    """
    return np.argsort(_bits(keys, seed), kind="stable")
