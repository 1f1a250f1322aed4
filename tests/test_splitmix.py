"""SplitMix64 against its published sequence."""

from __future__ import annotations

import numpy as np

from hemix.splitmix import INCREMENT, finalise, mix_bits


def test_hashes_are_splitmix64() -> None:
    """The first two numbers of its published sequence of seed 0: keys of statistics on disk are
    made of them.
    """
    seeds = np.array([0, 0x9E3779B97F4A7C15], np.uint64)
    assert mix_bits(seeds).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]
    assert seeds[0] == 0, "what is given stays"


def test_finalising_works_in_place() -> None:
    bits = np.array([0, INCREMENT], np.uint64) + INCREMENT
    assert finalise(bits) is bits
    assert bits.tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]
