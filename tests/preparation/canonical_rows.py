"""Hashes of a dataset's rows that depend on no partition and no number of a user.

Rows of a split are sorted by their row in the log, users by their raw id. The arrays are read with
NumPy alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

__all__ = ["canonical_hashes", "table_digests"]

Array = npt.NDArray[Any]
_SPLITS = ("train", "valid", "test")


def canonical_hashes(data: Path) -> dict[str, str]:
    """Return a hash of every column of a dataset, and of every shared array."""
    folders = sorted((data / "partitions").iterdir())
    users = [_users(folder) for folder in folders]
    columns = _sorted(_concatenated([u for u, _ in users]), "id")
    columns = {f"users.{name}": values for name, values in columns.items()}
    histories = _concatenated(
        [_history(folder, ids) for folder, (_, ids) in zip(folders, users, strict=True)]
    )
    columns |= {f"history.{name}": v for name, v in _sorted(histories, "id").items()}
    for split in _SPLITS:
        rows = [_split(folder, split, ids) for folder, (_, ids) in zip(folders, users, strict=True)]
        columns |= {f"{split}.{n}": v for n, v in _sorted(_concatenated(rows), "log_row").items()}
    return _hashes_of(columns, data)


def table_digests(hashes: Mapping[str, str]) -> dict[str, str]:
    """Return one digest for each table or folder of :func:`canonical_hashes`."""
    tables: dict[str, dict[str, str]] = {}
    for name, value in hashes.items():
        tables.setdefault(re.split("[./]", name)[0], {})[name] = value
    return {
        table: _hash([f"{n}={v}" for n, v in sorted(own.items())]) for table, own in tables.items()
    }


def _hashes_of(columns: Mapping[str, Any], data: Path) -> dict[str, str]:
    """Hash columns of rows and the shared files of a dataset folder."""
    hashes = {name: _hash(values) for name, values in columns.items()}
    for folder in ("items", "statistics", "encoders"):
        for path in sorted((data / folder).glob("*.npy")):
            if not path.name.startswith("users."):
                hashes[f"{folder}/{path.name}"] = _hash(np.load(path))
    return hashes | {"ids": _hash(_ids(data / "ids" / "items.parquet"))}


# -- the tables of a partition: columns of lists of bytes or arrays --------------------------------


def _users(folder: Path) -> tuple[dict[str, Any], Array]:
    ids = _ids(folder / "ids.parquet")
    return _user_columns(folder / "users", ids), ids


def _user_columns(folder: Path, ids: Array) -> dict[str, Any]:
    """One row for each user, with the bytes of all versions."""
    first = np.load(folder / "first_row.npy")
    files = [p for p in sorted(folder.glob("*.npy")) if "bag" not in p.name]
    columns: dict[str, Any] = {"id": ids, "versions": np.diff(first)}
    for path in files:
        values = np.load(path)
        if path.stem == "train_impressions":
            columns[path.stem] = values
        elif path.stem != "first_row":
            columns[path.stem] = _lists(values, first)
    for i in range(len(list(folder.glob("*.bag*.values.npy")))):
        lists = _bag(folder, "features", i)
        columns[f"bag{i}"] = [b"|".join(lists[a:b]) for a, b in pairwise(first)]
    return columns


def _history(folder: Path, ids: Array) -> dict[str, Any]:
    return _history_columns(folder / "history", ids)


def _history_columns(folder: Path, ids: Array) -> dict[str, Any]:
    """One row for each user, with the bytes of all events."""
    offsets = np.load(folder / "offsets.npy")
    columns: dict[str, Any] = {"id": ids, "events": np.diff(offsets)}
    for name in ("time_ms", "item_row", "ids"):
        columns[name] = _lists(np.load(folder / f"{name}.npy"), offsets)
    return columns


def _split(folder: Path, split: str, ids: Array) -> dict[str, Any]:
    users = folder / "users"
    first = np.load(users / "first_row.npy")
    truth = folder / "truth" / f"{split}.npy"
    return _split_columns(folder / split, truth, ids, first)


def _split_columns(folder: Path, truth: Path, ids: Array, first_row: Array) -> dict[str, Any]:
    """One row for each impression, with what it has of its request."""
    column = {p.stem: np.load(p) for p in sorted(folder.glob("*.npy"))}
    first = column["first_candidate"]
    request = np.repeat(np.arange(len(first) - 1), np.diff(first))
    user = column["user"]
    columns: dict[str, Any] = {
        "user": ids[user][request],
        "version": (column["user_row"] - first_row[user])[request],
        "time_ms": column["time_ms"][request],
        "request": column["log_row"][first[:-1]][request],  # the first row of the request
        "candidate": np.arange(len(request)) - first[:-1][request],
    }
    for name in ("item_row", "bias", "labels", "weight", "log_row"):
        columns[name] = column[name]
    for name in ("ids", "numbers"):
        columns[f"context.{name}"] = column[f"context.{name}"][request]
        columns[f"cross.{name}"] = column[f"cross.{name}"]
    for level in ("context", "cross"):
        for i in range(len(list(folder.glob(f"{level}.bag*.values.npy")))):
            lists = _bag(folder, level, i)
            columns[f"{level}.bag{i}"] = (
                [lists[r] for r in request.tolist()] if level == "context" else lists
            )
    if truth.exists():
        columns["truth"] = np.load(truth)
    return columns


# -- columns ---------------------------------------------------------------------------------------


def _ids(path: Path) -> Array:
    return np.array(pq.read_table(path).column("id").to_pylist(), dtype=object)


def _bag(folder: Path, level: str, number: int) -> list[bytes]:
    values = np.load(folder / f"{level}.bag{number}.values.npy")
    return _lists(values, np.load(folder / f"{level}.bag{number}.offsets.npy"))


def _lists(values: Array, offsets: Array) -> list[bytes]:
    return [values[a:b].tobytes() for a, b in pairwise(offsets.tolist())]


def _concatenated(tables: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        name: (
            np.concatenate([table[name] for table in tables])
            if isinstance(tables[0][name], np.ndarray)
            else [value for table in tables for value in table[name]]
        )
        for name in tables[0]
    }


def _sorted(columns: dict[str, Any], by: str) -> dict[str, Any]:
    order = np.argsort(columns[by], kind="stable")
    return {
        name: values[order] if isinstance(values, np.ndarray) else [values[i] for i in order]
        for name, values in columns.items()
    }


def _hash(values: Any) -> str:
    digest = hashlib.blake2b(digest_size=8)
    if isinstance(values, np.ndarray) and values.dtype != object:
        digest.update(f"{values.dtype}{values.shape}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    else:
        for value in values:
            digest.update(value if isinstance(value, bytes) else str(value).encode())
            digest.update(b"\0")
    return digest.hexdigest()
