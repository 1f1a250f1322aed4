"""The users of a run folder: the users of all partitions in one table, for a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.data.dataset import Dataset
from hemix.data.entities import entity_files
from hemix.data.keys import keys_of
from hemix.data.layout import Appender, load_array, save_array

__all__ = ["write_users"]

Array = npt.NDArray[Any]


def write_users(dataset: Dataset, folder: Path) -> None:
    """Write the users' table and the map from their keys to their numbers.

    A user's number counts the users of all partitions, one partition after the other.

    Args:
        dataset: The dataset.
        folder: The run folder, with a folder ``encoders``.

    Raises:
        DataError: The dataset lacks a file.
        StorageError: A file cannot be written.
    """
    partitions = [dataset.partition(number) for number in dataset.partitions]
    (folder / "users").mkdir(exist_ok=True)
    for file in entity_files(dataset.schema, "user"):
        arrays = (load_array(partition.folder / "users" / file) for partition in partitions)
        are_offsets = file == "first_row.npy" or file.endswith(".offsets.npy")
        _write(folder / "users" / file, _joined(arrays) if are_offsets else arrays)
    keys = np.concatenate([keys_of(partition.user_ids) for partition in partitions])
    order = np.argsort(keys)
    save_array(folder / "encoders" / "users.keys.npy", keys[order])
    save_array(folder / "encoders" / "users.ids.npy", order.astype(np.int32))


def _joined(offsets: Iterator[Array]) -> Iterator[Array]:
    """Yield offsets that begin where those before end."""
    end = 0
    for number, array in enumerate(offsets):
        yield array[min(number, 1) :] + end
        end += int(array[-1])


def _write(path: Path, arrays: Iterator[Array]) -> None:
    first = next(arrays)
    with Appender(path, first.dtype, *first.shape[1:]) as out:
        out.append(first)
        for array in arrays:
            out.append(array)
