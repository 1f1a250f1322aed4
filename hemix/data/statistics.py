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

__all__ = ["DatedTable", "Statistics", "combined_keys", "prior_rate", "rates_and_counts", "statistic_files"]

Array = npt.NDArray[Any]

_PARTS = {"keys": (np.uint64, 1), "days": (np.int32, 1), "counts": (np.int64, 2), "prior": (np.int64, 2)}
"""Of every table's file: type and dimensions."""


def statistic_files(schema: Schema) -> tuple[str, ...]:
    """The names of all files of a schema's statistics."""
    return tuple(f"{name}.{part}.npy" for name in schema.statistics for part in _PARTS)


def combined_keys(parts: Sequence[Array]) -> Array:
    """uint64 [rows]: one key of several, each uint64 [rows] or [1] for all, in their order."""
    combined = np.zeros(1, dtype=np.uint64)
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
        """int64 [n, 2]: rows and positives of every key uint64 [n] before local day ``day`` int [n], or [1] for all."""
        if not len(self.keys):
            return np.zeros((len(keys), 2), dtype=np.int64)
        end = np.searchsorted(self.keys, keys, "right")
        newest = np.maximum(end - 1, 0)
        there = self.keys[newest] == keys
        if (self.days[newest] >= day).any():  # never of a live request, whose day comes after all
            first = np.searchsorted(self.keys, keys)
            end = first_at_least(self.days, first, end, day)
            newest, there = end - 1, end > first
        found: Array = self.counts.take(newest, axis=0) * there[:, None]
        return found

    def all_before(self, day: Array) -> Array:
        """int64 [n, 2]: rows and positives of all keys before each day."""
        return np.concatenate([np.zeros((1, 3), np.int64), self.prior])[np.searchsorted(self.prior[:, 0], day), 1:]


def prior_rate(known: Array) -> Array:
    """float64 [...]: the rate of rows and positives int64 [..., 2], at least half a row away from 0 and from 1; NaN where there is no
    row."""
    rows, positives = np.moveaxis(known, -1, 0)
    some = np.maximum(rows, 1)
    least = 0.5 / some
    return np.where(rows > 0, np.clip(positives / some, least, 1 - least), np.nan)


def rates_and_counts(known: Array, prior: Array, smoothing: Array | float) -> Array:
    """float32 [..., 2]: rate and count (see the module) of rows and positives int64 [..., 2]; ``prior`` may be NaN."""
    rows, positives = np.moveaxis(known, -1, 0)
    prior = np.where(np.isnan(prior), 0.5, prior)
    rate = (positives + smoothing * prior) / (rows + smoothing)
    return np.stack([np.where(rows > 0, _logit(rate) - _logit(prior), 0.0), np.log1p(rows)], axis=-1).astype(np.float32)


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
        request's local day (:func:`hemix.data.clock.local_day`). What is the same for all may be [1].
        """
        names = self.schema.statistics_of(level)
        (rows,) = np.broadcast_shapes(day.shape, *(part.shape for part in parts.values()))
        if not names:
            return np.zeros((rows, 0), dtype=np.float32)
        sets = [self.schema.statistics[name].by for name in names]
        keys = {by: combined_keys([parts[part] for part in by]) for by in sets}
        tables = [self.tables[name] for name in names]
        known = np.empty((rows, len(names), 2), dtype=np.int64)
        for i, (table, by) in enumerate(zip(tables, sets, strict=True)):
            known[:, i] = table.known_before(keys[by], day)
        prior = prior_rate(np.stack([table.all_before(day) for table in tables], axis=1))
        return rates_and_counts(known, prior, np.array([table.smoothing for table in tables])).reshape(rows, -1)


def _loaded(path: Path, part: str) -> Array:
    array = load_array(path)
    dtype, dimensions = _PARTS[part]
    if array.dtype != dtype or array.ndim != dimensions:
        raise DataError(
            f"{path}: damaged: expected {np.dtype(dtype)} in {dimensions} dimensions, found {array.dtype} in {array.ndim}"
        )
    return array
