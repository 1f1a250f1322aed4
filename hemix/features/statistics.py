"""Dated statistics: smoothed target encoding, out of time.

A key is encoded by the label's rate and count among its rows (target or mean encoding). Both are
those at the end of each earlier day, so no row sees its own label or a later one. A statistic gives
two numbers for a key and a request's day d, both from what was known before d:

- prior = positives / rows of all keys, at least half a row away from 0 and from 1
- rate = logit((positives + smoothing * prior) / (rows + smoothing)) - logit(prior), in log odds
- count = log1p(rows)

A key without rows has rate 0 and count 0, and so has every key on the first day. A row counts from
the day on which its label was final: its time plus the label's maturity. It counts as a positive
from the day on which it was known to be one (``available_at``). So a table holds what a running
system would have counted. Tables are memory-mapped arrays; a server looks its numbers up by the
same functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from hemix.data.layout import file_hash, load_array
from hemix.data.search import first_at_least
from hemix.errors import DataError
from hemix.features.base import FeatureType, SchemaSection
from hemix.features.history_counts import HISTORY_COUNTS
from hemix.splitmix import mix_bits
from hemix.validation import InvalidKey

__all__ = [
    "DatedTable",
    "Statistic",
    "Statistics",
    "combined_keys",
    "prior_rate",
    "rates_and_counts",
    "statistic_files",
]

Array = npt.NDArray[Any]

_ARRAYS = {
    "keys": (np.uint64, 1),
    "days": (np.int32, 1),
    "counts": (np.int64, 2),
    "prior": (np.int64, 2),
}
"""Of every table's file: type and dimensions"""
_NAME_PATTERN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Statistic(SchemaSection):
    """The smoothed rate of a label among the rows that share a key, and how many these are.

    Both are as known at the end of the day before the request's.
    """

    label: str
    by: Annotated[tuple[str, ...], Field(min_length=1)]
    """The key: ``user``, ``item`` (their ids), or ``level.feature`` of features with one id."""
    smoothing: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 20
    """So many rows of the label's overall rate are added to every key."""

    @property
    def level(self) -> Literal["context", "cross"]:
        """The level of its numbers: ``context`` where its key holds nothing of the item."""
        of_request = all(part.partition(".")[0] in ("user", "context") for part in self.by)
        return "context" if of_request else "cross"

    @staticmethod
    def number_names(name: str) -> tuple[str, str]:
        """Return the number columns of the statistic ``name``."""
        return f"{name}.rate", f"{name}.count"

    def check(
        self, name: str, labels: Collection[str], find: Callable[[str], FeatureType | None]
    ) -> None:
        """Check a statistic against the labels and features of its schema.

        Args:
            name: Its name.
            labels: Names of the labels.
            find: Gives a feature by ``level.name``, or None.

        Raises:
            ValueError: Names the key, what was expected and what stands there.
        """
        where = f"statistics.{name}"
        if not _NAME_PATTERN.fullmatch(name) or name == HISTORY_COUNTS:
            raise InvalidKey(where, "expected a name of letters, digits and _ (not history)")
        if self.label not in labels:
            expected = ", ".join(labels)
            raise InvalidKey(f"{where}.label", f"expected one of {expected}, got {self.label!r}")
        if len(set(self.by)) < len(self.by):
            raise InvalidKey(f"{where}.by", f"a part is named twice: {', '.join(self.by)}")
        for part in self.by:
            if part in ("user", "item"):
                continue
            feature = find(part)
            if feature is None:
                raise InvalidKey(
                    f"{where}.by", f"expected user, item or a feature as level.name, got {part!r}"
                )
            if not feature.tensor_columns().ids:
                raise InvalidKey(
                    f"{where}.by",
                    f"{part} must be a one-valued categorical, a bucketed numeric, "
                    "a distance or a clock part",
                )
        if find(f"{self.level}.{name}") is not None:
            raise InvalidKey(where, f"a {self.level} feature has this name; choose another name")


def statistic_files(statistics: Mapping[str, Statistic]) -> tuple[str, ...]:
    """Return the names of all files of these statistics."""
    return tuple(f"{name}.{array}.npy" for name in statistics for array in _ARRAYS)


def combined_keys(keys: Sequence[Array]) -> Array:
    """Combine several keys, each uint64 [rows] or [1] for all, into one in their order."""
    combined = np.zeros(1, dtype=np.uint64)
    for key in keys:
        combined = mix_bits(combined ^ key)
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
        """Return rows and positives, int64 [n, 2], before a day.

        Args:
            keys: uint64 [n].
            day: int [n], or [1] for all: local days.
        """
        if not len(self.keys):
            return np.zeros((len(keys), 2), dtype=np.int64)
        end = np.searchsorted(self.keys, keys, "right")
        newest = np.maximum(end - 1, 0)
        there = self.keys[newest] == keys
        if (self.days[newest] >= day).any():  # never of a live request, whose day comes after all
            first = np.searchsorted(self.keys, keys)
            end = first_at_least(self.days, first, end, day)
            newest, there = end - 1, end > first
        known: Array = self.counts.take(newest, axis=0) * there[:, None]
        return known

    def all_before(self, day: Array) -> Array:
        """int64 [n, 2]: rows and positives of all keys before each day."""
        return np.concatenate([np.zeros((1, 3), np.int64), self.prior])[
            np.searchsorted(self.prior[:, 0], day), 1:
        ]


def prior_rate(known: Array) -> Array:
    """Return the rate of rows and positives, int64 [..., 2], as float64 [...].

    It is at least half a row away from 0 and from 1, and NaN where there is no row.
    """
    rows, positives = np.moveaxis(known, -1, 0)
    some = np.maximum(rows, 1)
    least = 0.5 / some
    return np.where(rows > 0, np.clip(positives / some, least, 1 - least), np.nan)


def rates_and_counts(known: Array, prior: Array, smoothing: Array | float) -> Array:
    """Return rate and count, as the module defines them.

    Args:
        known: int64 [..., 2], rows and positives.
        prior: float64 [...], may be NaN.
        smoothing: How many rows of the prior are added.

    Returns:
        float32 [..., 2].
    """
    rows, positives = np.moveaxis(known, -1, 0)
    prior = np.where(np.isnan(prior), 0.5, prior)
    rate = (positives + smoothing * prior) / (rows + smoothing)
    return np.stack(
        [np.where(rows > 0, _logit(rate) - _logit(prior), 0.0), np.log1p(rows)], axis=-1
    ).astype(np.float32)


def _logit(probability: Array) -> Array:
    logit: Array = np.log(probability) - np.log1p(-probability)
    return logit


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """The tables of all statistics of a schema."""

    statistics: Mapping[str, Statistic]
    tables: Mapping[str, DatedTable]

    @classmethod
    def load(
        cls,
        folder: Path,
        statistics: Mapping[str, Statistic],
        *,
        hashes: Mapping[str, str] | None = None,
    ) -> Statistics:
        """Memory-map the tables.

        Args:
            folder: Where the files lie.
            statistics: Those of the schema, by name.
            hashes: xxh64 by file; compared where they are given.

        Raises:
            DataError: Names the file that is missing or damaged.
        """
        tables = {}
        for name, statistic in statistics.items():
            paths = {array: folder / f"{name}.{array}.npy" for array in _ARRAYS}
            arrays = {array: _load(path, array) for array, path in paths.items()}
            expected = len(arrays["keys"])
            for array in ("days", "counts"):
                if len(arrays[array]) != expected:
                    raise DataError(
                        f"{paths[array]}: damaged: expected {expected} rows, as {name}.keys.npy "
                        f"has, found {len(arrays[array])}",
                        code="damaged_file",
                        field=str(paths[array]),
                    )
            tables[name] = DatedTable(**arrays, smoothing=statistic.smoothing)
        for file in statistic_files(statistics) if hashes is not None else ():
            if hashes is not None and hashes.get(file) != file_hash(folder / file):
                raise DataError(
                    f"{folder / file}: damaged: its hash is not the one that was noted when it was "
                    "written",
                    code="damaged_file",
                    field=str(folder / file),
                )
        return cls(statistics=statistics, tables=tables)

    def numbers(self, level: str, keys: Mapping[str, Array], day: Array) -> Array:
        """Look up the numbers of all statistics of a level.

        Args:
            level: ``context`` or ``cross``.
            keys: uint64 [n], or [1] for all, of every part that a statistic's ``by`` names. For
                ``user`` and ``item`` those of the raw ids (:func:`hemix.data.keys.keys_of`), for
                features those of :meth:`hemix.data.encode.Encoders.keys`.
            day: int [n], or [1] for all: the request's local day.

        Returns:
            float32 [n, 2 * statistics]: rate and count of each, in their order.
        """
        names = [name for name, statistic in self.statistics.items() if statistic.level == level]
        (rows,) = np.broadcast_shapes(day.shape, *(key.shape for key in keys.values()))
        if not names:
            return np.zeros((rows, 0), dtype=np.float32)
        sets = [self.statistics[name].by for name in names]
        combined = {by: combined_keys([keys[part] for part in by]) for by in sets}
        tables = [self.tables[name] for name in names]
        known = np.empty((rows, len(names), 2), dtype=np.int64)
        for i, (table, by) in enumerate(zip(tables, sets, strict=True)):
            known[:, i] = table.known_before(combined[by], day)
        prior = prior_rate(np.stack([table.all_before(day) for table in tables], axis=1))
        smoothing = np.array([table.smoothing for table in tables])
        return rates_and_counts(known, prior, smoothing).reshape(rows, -1)


def _load(path: Path, name: str) -> Array:
    array = load_array(path)
    dtype, dimensions = _ARRAYS[name]
    if array.dtype != dtype or array.ndim != dimensions:
        raise DataError(
            f"{path}: damaged: expected {np.dtype(dtype)} in {dimensions} dimensions, "
            f"found {array.dtype} in {array.ndim}",
            code="damaged_file",
            field=str(path),
        )
    return array
