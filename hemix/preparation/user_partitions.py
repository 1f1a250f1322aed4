"""Partitions of a dataset: each holds all rows of its users.

The partition of a user is ``pmod(xxhash64(id), P)`` in Spark's terms, where the id is the canonical
text and xxhash64 has Spark's seed. So Spark can partition tables without Python.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.data.keys import hash_texts
from hemix.errors import UsageError

__all__ = ["check_partitions", "default_partitions", "partition_of"]

MAX_PARTITIONS = 1_000_000
_SEED = 42
_FEW, _FEW_ROWS = 8, 4_000_000
_ROWS, _MANY = 500_000, 64


def partition_of(texts: pa.Array, partitions: int) -> npt.NDArray[np.int64]:
    """Return the partition of every user.

    Args:
        texts: string [n], canonical texts of the users' ids.
        partitions: Number of partitions.

    Returns:
        int64 [n], from 0 to ``partitions - 1``.
    """
    numbers: npt.NDArray[Any] = hash_texts(texts, _SEED).view(np.int64) % np.int64(partitions)
    return numbers


def default_partitions(rows: int) -> int:
    """Return the number of partitions for a log: a power of two, from 8 to 64.

    Args:
        rows: Impressions and events.
    """
    if rows <= _FEW_ROWS:
        return _FEW
    return min(1 << (-(-rows // _ROWS) - 1).bit_length(), _MANY)


def check_partitions(partitions: int) -> None:
    """Raise UsageError for a number of partitions that is out of range."""
    if not 1 <= partitions <= MAX_PARTITIONS:
        raise UsageError(
            f"--partitions {partitions}: expected 1 to {MAX_PARTITIONS:,}", field="--partitions"
        )
