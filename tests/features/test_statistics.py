"""The look-up of dated tables, by hand: the newest day, the prior, unknown keys, refusals."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from hemix.data.keys import keys_of
from hemix.data.layout import file_hash, save_array
from hemix.errors import DataError
from hemix.features.statistics import (
    DatedTable,
    Statistics,
    combined_keys,
    prior_rate,
    rates_and_counts,
    statistic_files,
)
from hemix.schema import Schema
from tests.refusals import raises

SCHEMA = Schema.parse(
    """
    name: s
    features: {context: {tab: {type: categorical}}}
    labels: {click: {}}
    statistics:
      by_user: {label: click, by: [user], smoothing: 8}
      by_pair: {label: click, by: [item, context.tab]}
    split: {valid: 2026-01-06, test: 2026-01-07}
    """
)


def table(smoothing: float = 8.0) -> DatedTable:
    """Key 5 has rows on days 10 and 12, key 9 on day 10.

    Day 10: 2 of 4 are positive. Day 12: 4 of 8 in all.
    """
    return DatedTable(
        keys=np.array([5, 5, 9], np.uint64),
        days=np.array([10, 12, 10], np.int32),
        counts=np.array([[2, 2], [6, 4], [2, 0]]),
        prior=np.array([[10, 4, 2], [12, 8, 4]]),
        smoothing=smoothing,
    )


def looked_up(one: DatedTable, keys: list[int], days: list[int]) -> npt.NDArray[np.float32]:
    known, day = one.known_before(np.array(keys, np.uint64), np.array(days)), np.array(days)
    return rates_and_counts(known, prior_rate(one.all_before(day)), one.smoothing)


def test_the_newest_day_before_counts() -> None:
    keys, days = (
        np.array([5, 5, 5, 5, 9, 9, 7], np.uint64),
        np.array([10, 11, 12, 13, 10, 400, 400]),
    )
    assert table().known_before(keys, days).tolist() == [
        [0, 0],
        [2, 2],
        [2, 2],
        [6, 4],
        [0, 0],
        [2, 0],
        [0, 0],
    ]


def test_both_numbers_by_hand() -> None:
    """On day 11 the prior is 1/2: (2 + 8/2) / (2 + 8) = 0.6, whose logit is log(0.6 / 0.4)."""
    numbers = looked_up(table(), [5, 9, 7, 5], [11, 11, 11, 10])
    expected = [
        [math.log(0.6 / 0.4), math.log(3)],
        [math.log(0.4 / 0.6), math.log(3)],
        [0, 0],
        [0, 0],
    ]
    assert numbers == pytest.approx(np.array(expected), abs=1e-6)
    assert numbers.dtype == np.float32


def test_a_prior_of_nothing_or_everything_stays_half_a_row_away() -> None:
    never = DatedTable(
        keys=np.array([5], np.uint64),
        days=np.array([10], np.int32),
        counts=np.array([[4, 0]]),
        prior=np.array([[10, 4, 0], [11, 5, 5]]),
        smoothing=4.0,
    )
    assert prior_rate(never.all_before(np.array([10, 11, 12]))).tolist()[1:] == [0.125, 0.9]
    rate, _ = looked_up(never, [5], [11])[0]
    assert rate == pytest.approx(math.log(0.0625 / 0.9375) - math.log(0.125 / 0.875), abs=1e-6)


def test_keys_of_several_parts() -> None:
    a, b = keys_of(pa.array(["a", "b"]))[:, None]
    pairs = {int(combined_keys(parts)[0]) for parts in ([a, b], [b, a], [a], [b], [a, a])}
    assert len(pairs) == 5
    assert (combined_keys([a, b]) == combined_keys([a.copy(), b.copy()])).all()


def test_common_settings_may_be_given_once() -> None:
    items, tab = np.array([5, 9, 7], np.uint64), np.array([3], np.uint64)
    known = dataclasses.replace(
        table(),
        keys=np.sort(combined_keys([items[:2], tab])),
        days=np.array([10, 12], np.int32),
        counts=np.array([[2, 2], [6, 4]]),
    )
    statistics = Statistics(
        statistics=SCHEMA.statistics, tables={"by_user": known, "by_pair": known}
    )
    for day in (10, 11, 13):
        once = statistics.numbers("cross", {"item": items, "context.tab": tab}, np.array([day]))
        each = statistics.numbers(
            "cross", {"item": items, "context.tab": np.repeat(tab, 3)}, np.full(3, day)
        )
        assert (once == each).all() and once.shape == (3, 2)
    assert (once[:2] != 0).all() and (once[2] == 0).all()


def save(folder: Path, schema: Schema = SCHEMA) -> Path:
    folder.mkdir()
    for name in schema.statistics:
        for part in ("keys", "days", "counts", "prior"):
            save_array(folder / f"{name}.{part}.npy", getattr(table(), part))
    return folder


def test_a_server_needs_raw_keys_and_a_day(tmp_path: Path) -> None:
    statistics = Statistics.load(save(tmp_path / "s"), SCHEMA.statistics)
    parts = {"user": np.array([5], np.uint64)}
    assert SCHEMA.statistics_of("context") == ("by_user",)
    numbers = statistics.numbers("context", parts, np.array([11]))
    # the table is found by the combined key, which 5 is not
    assert numbers.tolist() == [[0.0, 0.0]]
    assert statistics.numbers(
        "cross", {"item": parts["user"], "context.tab": parts["user"]}, np.array([11])
    ).shape == (1, 2)
    assert statistics.numbers("user", {}, np.array([11])).shape == (1, 0)


def test_what_is_missing_or_damaged_is_refused_by_name(tmp_path: Path) -> None:
    folder = save(tmp_path / "s")
    hashes = {name: file_hash(folder / name) for name in statistic_files(SCHEMA.statistics)}
    assert len(hashes) == 8
    Statistics.load(folder, SCHEMA.statistics, hashes=hashes)
    prior, days, keys = (
        folder / name for name in ("by_pair.prior.npy", "by_user.days.npy", "by_user.keys.npy")
    )
    save_array(prior, np.array([[10, 4, 3]]))
    with raises(DataError, code="damaged_file", field=prior):
        Statistics.load(folder, SCHEMA.statistics, hashes=hashes)
    save_array(days, np.zeros(2, np.int32))
    with raises(DataError, 3, 2, keys.name, code="damaged_file", field=days):
        Statistics.load(folder, SCHEMA.statistics)
    save_array(days, np.zeros(3))
    with raises(DataError, "int32", "float64", 1, code="damaged_file", field=days):
        Statistics.load(folder, SCHEMA.statistics)
    keys.unlink()
    with raises(DataError, code="missing_file", field=keys):
        Statistics.load(folder, SCHEMA.statistics)
