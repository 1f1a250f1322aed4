"""SplitMix64: the mixing function of 64-bit hashes and of keyed random draws (Steele, Lea and Flood
2014, "Fast splittable pseudorandom number generators").
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["INCREMENT", "finalise", "mix_bits"]

Bits = npt.NDArray[np.uint64]

INCREMENT = np.uint64(0x9E3779B97F4A7C15)
"""The step of the generator: 2^64 divided by the golden ratio, made odd"""

_FACTORS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))


def mix_bits(values: npt.ArrayLike) -> Bits:
    """Map uint64 to uint64, one to one, so that every bit depends on all bits."""
    return finalise(np.asarray(values, dtype=np.uint64) + INCREMENT)


def finalise(bits: Bits) -> Bits:
    """Mix bits without the generator's step, in place, and return them."""
    bits ^= bits >> _SHIFTS[0]
    bits *= _FACTORS[0]
    bits ^= bits >> _SHIFTS[1]
    bits *= _FACTORS[1]
    bits ^= bits >> _SHIFTS[2]
    return bits
