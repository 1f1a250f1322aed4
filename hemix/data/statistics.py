"""Dated statistics: how many rows shared a key, and how many of them were positive, as known at the end of each earlier day.

A statistic of the schema gives two numbers for a key and a request's day d, both from what was known before d began:

    prior  = positives / rows of all keys, at least half a row away from 0 and from 1
    rate   = logit((positives + smoothing * prior) / (rows + smoothing)) - logit(prior)
    count  = log1p(rows)

A key without rows has rate 0 and count 0, and so has every key on the first day. A row counts from the day on which its label was
final (its time plus the label's maturity); as a positive from the day on which it was known to be one (`available_at`), so that a
table says what a running system would have counted.

The tables are read-only arrays, memory-mapped; prepare writes them, and a server looks up the newest row by the same function.
Knows keys and days, not where they come from. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.data.cells import mixed
from hemix.data.history import first_at_least
from hemix.data.layout import file_hash, load_array
from hemix.errors import DataError
from hemix.schema import Schema

__all__ = ["DatedTable", "Statistics", "combined_keys", "statistic_files"]

Array = npt.NDArray[Any]

_PARTS = {"keys": (np.uint64, 1), "days": (np.int32, 1), "counts": (np.int64, 2), "prior": (np.int64, 2)}
"""Of every table's file: type and dimensions."""


def statistic_files(schema: Schema) -> tuple[str, ...]:
    """The names of all files of a schema's statistics."""
    return tuple(f"{name}.{part}.npy" for name in schema.statistics for part in _PARTS)


def combined_keys(parts: Sequence[Array]) -> Array:
    """uint64 [rows]: one key of several, each uint64 [rows], in their order."""
    combined = np.zeros(len(parts[0]), dtype=np.uint64)
    for part in parts:
        combined = mixed(combined ^ part)
    return combined


@dataclass(frozen=True, kw_only=True)
class DatedTable:
    """One statistic, day by day."""

    keys: Array
    """uint64 [rows], ascending; rows of one key by day"""
    days: Array
    """int32 [rows]: local days, counted from 1970-01-01"""
    counts: Array
    """int64 [rows, 2]: rows of the log and positives among them, up to the end of the day"""
    prior: Array
    """int64 [days, 3]: day, and the same two of all keys"""
    smoothing: float

    def known_before(self, keys: Array, day: Array) -> Array:
        """int64 [n, 2]: rows and positives of every key uint64 [n] before local day ``day`` int [n]."""
        return _newest_before(
            self.days, self.counts, np.searchsorted(self.keys, keys), np.searchsorted(self.keys, keys, "right"), day
        )

    def prior_before(self, day: Array) -> Array:
        """float64 [n]: the label's rate before each day; NaN where no row was known."""
        first, last = np.zeros(len(day), dtype=np.int64), np.full(len(day), len(self.prior))
        rows, positives = _newest_before(self.prior[:, 0], self.prior[:, 1:], first, last, day).T
        least = 0.5 / np.maximum(rows, 1)
        return np.where(rows > 0, np.clip(positives / np.maximum(rows, 1), least, 1 - least), np.nan)

    def look_up(self, keys: Array, day: Array) -> Array:
        """float32 [n, 2]: rate and count (see the module) of every key for a request on local day ``day`` int [n]."""
        rows, positives = self.known_before(keys, day).T
        prior = np.nan_to_num(self.prior_before(day), nan=0.5)
        rate = (positives + self.smoothing * prior) / (rows + self.smoothing)
        return np.stack([np.where(rows > 0, _logit(rate) - _logit(prior), 0.0), np.log1p(rows)], axis=1).astype(np.float32)


def _newest_before(days: Array, counts: Array, first: Array, last: Array, day: Array) -> Array:
    """int64 [n, 2]: of the rows first[i] : last[i], by day, the newest with a smaller day; zeros where there is none."""
    end = first_at_least(days, np.asarray(first), np.asarray(last), np.asarray(day))
    found = np.zeros((len(end), 2), dtype=np.int64)
    there = end > first
    found[there] = counts[end[there] - 1]
    return found


def _logit(probability: Array) -> Array:
    logit: Array = np.log(probability) - np.log1p(-probability)
    return logit


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """All statistics of a schema."""

    schema: Schema
    tables: Mapping[str, DatedTable]

    @classmethod
    def load(cls, folder: Path, schema: Schema, *, hashes: Mapping[str, str] | None = None) -> Statistics:
        """Memory-map ``folder``. Raises DataError naming the file that is missing or damaged; ``hashes`` (file -> xxh64) are compared
        where they are given."""
        tables = {}
        for name, statistic in schema.statistics.items():
            arrays = {part: _loaded(folder / f"{name}.{part}.npy", part) for part in _PARTS}
            for part in ("days", "counts"):
                if len(arrays[part]) != len(arrays["keys"]):
                    raise DataError(f"{folder / f'{name}.{part}.npy'}: damaged: expected {len(arrays['keys'])} rows, as {name}.keys.npy "
                                    f"has, found {len(arrays[part])}")  # fmt: skip
            tables[name] = DatedTable(**arrays, smoothing=statistic.smoothing)
        for file in statistic_files(schema) if hashes is not None else ():
            if hashes is not None and hashes.get(file) != file_hash(folder / file):
                raise DataError(f"{folder / file}: damaged: its hash is not the one that was noted when it was written")
        return cls(schema=schema, tables=tables)

    def numbers(self, level: str, parts: Mapping[str, Array], day: Array) -> Array:
        """float32 [n, 2 * statistics of the level]: rate and count of each, in the order of the level's number names.

        ``parts``: of every part named in ``by`` its keys, uint64 [n]; for ``user`` and ``item`` those of the raw ids
        (:func:`hemix.data.keys.keys_of`), for features those of :meth:`hemix.data.encode.Encoders.keys`. ``day`` int [n]: the
        request's local day (:func:`hemix.data.clock.local_day`).
        """
        names = self.schema.statistics_of(level)
        found = np.zeros((len(day), 2 * len(names)), dtype=np.float32)
        for i, name in enumerate(names):
            key = combined_keys([parts[part] for part in self.schema.statistics[name].by])
            found[:, 2 * i : 2 * i + 2] = self.tables[name].look_up(key, day)
        return found


def _loaded(path: Path, part: str) -> Array:
    array = load_array(path)
    dtype, dimensions = _PARTS[part]
    if array.dtype != dtype or array.ndim != dimensions:
        raise DataError(
            f"{path}: damaged: expected {np.dtype(dtype)} in {dimensions} dimensions, found {array.dtype} in {array.ndim}"
        )
    return array
