"""Dated statistics of small logs, by hand; of rich logs, against a slow count; and that nothing of
a day is seen on that day.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hemix.data.dataset import Dataset
from hemix.data.keys import keys_of
from hemix.data.layout import SPLITS
from hemix.data.partition import Partition, PartitionSplit
from hemix.features.statistics import Statistics, combined_keys
from hemix.preparation import prepare
from hemix.schema import Schema
from tests.data.small import at, prepared, shown
from tests.preparation.same_bytes import file_hashes

SCHEMA = """
name: small
clock: {timezone: %s}
labels: {click: {}}
statistics:
  u: {label: click, by: [user], smoothing: 2}
  ui: {label: click, by: [user, item], smoothing: 2}
split: {valid: 2026-01-06, test: 2026-01-07}
"""

ROWS = [
    ("a", "i", at(0, 1), 1),
    ("a", "j", at(0, 2), 0),
    ("b", "i", at(0, 3), 0),
    ("b", "j", at(0, 4), None),
    ("a", "i", at(1, 1), 0),
    ("c", "i", at(1, 2), 0),
    ("b", "j", at(2, 1), 1),
    ("c", "i", at(2, 2), 1),
]


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def numbers(positives: int, rows: int, prior: float, smoothing: float = 2) -> list[float]:
    return [
        logit((positives + smoothing * prior) / (rows + smoothing)) - logit(prior),
        math.log1p(rows),
    ]


def test_three_days_by_hand(tmp_path: Path) -> None:
    """The first day shows 3 known rows, 1 click; both days together 5 rows, 1 click."""
    made = prepared(tmp_path, SCHEMA % "UTC", impressions=shown(ROWS))
    assert (made("train/context.numbers") == 0).all() and (made("train/cross.numbers") == 0).all()
    # day 1: a, who has 1 click of 2 rows, sees i again (1 of 1); c is new
    assert made("valid/context.numbers") == pytest.approx(
        np.array([numbers(1, 2, 1 / 3), [0, 0]]), abs=1e-6
    )
    assert made("valid/cross.numbers") == pytest.approx(
        np.array([numbers(1, 1, 1 / 3), [0, 0]]), abs=1e-6
    )
    # day 2: b, whose second row is unknown, has 0 of 1, and sees j, of which nothing is known; c
    # has 0 of 1 from yesterday, on i
    assert made("test/context.numbers") == pytest.approx(
        np.array([numbers(0, 1, 1 / 5)] * 2), abs=1e-6
    )
    assert made("test/cross.numbers") == pytest.approx(
        np.array([[0, 0], numbers(0, 1, 1 / 5)]), abs=1e-6
    )
    assert Dataset(made.folder).spec.context.number_names == ("u.rate", "u.count")
    assert Dataset(made.folder).spec.cross.number_names == ("ui.rate", "ui.count")


def test_a_table_holds_running_sums_up_to_the_end_of_each_day(tmp_path: Path) -> None:
    made = prepared(tmp_path, SCHEMA % "UTC", impressions=shown(ROWS))
    first = at(0) // 86_400_000
    table = Statistics.load(
        made.folder / "statistics", Schema.load(made.folder / "schema.yaml").statistics
    ).tables["u"]
    assert table.prior.tolist() == [[first, 3, 1], [first + 1, 5, 1], [first + 2, 7, 3]]
    a, b, c = (combined_keys([keys_of(pa.array([name]))])[0] for name in "abc")
    numbers = {
        (int(key), int(day) - first): counts.tolist()
        for key, day, counts in zip(table.keys, table.days, table.counts, strict=True)
    }
    assert numbers == {
        (int(a), 0): [2, 1],
        (int(a), 1): [3, 1],
        (int(b), 0): [1, 0],
        (int(b), 2): [2, 1],
        (int(c), 1): [1, 0],
        (int(c), 2): [2, 1],
    }


def test_a_day_is_the_schemas_local_day(tmp_path: Path) -> None:
    """In Shanghai 17:00 UTC is the next day's first hour: the third row sees the two before, the
    second does not see the first.
    """
    rows = [
        ("a", "i", at(0, 1), 1),
        ("a", "i", at(0, 15), 0),
        ("a", "i", at(0, 17), 0),
        ("a", "i", at(2), 0),
    ]
    made = prepared(tmp_path, SCHEMA % "Asia/Shanghai", impressions=shown(rows))
    assert (made("train/context.numbers") == 0).all()
    assert made("valid/context.numbers") == pytest.approx(
        np.array([numbers(1, 2, 1 / 2)]), abs=1e-6
    )


def test_a_row_counts_when_it_is_final_and_as_a_positive_when_that_is_known(tmp_path: Path) -> None:
    """Orders are final after a day.

    The first row, of day 0, is an order that became known on day 2; the last two days' rows are not
    final when the log ends, at noon of day 3: they never count.
    """
    schema = """
    name: small
    labels: {click: {}, order: {given: click, available_at: known_ms, maturity: 1d}}
    statistics: {o: {label: order, by: [user], smoothing: 2}}
    split: {valid: 2026-01-07, test: 2026-01-08}
    """
    rows = [
        ("a", "i", at(0, 1), 1, 1, at(2, 5)),
        ("a", "i", at(0, 2), 0, 0, None),
        ("a", "i", at(1, 23), 1, 1, at(1, 23)),
        ("a", "i", at(2, 12), 1, 1, at(3, 23)),
        ("a", "i", at(3, 12), 0, 0, None),
    ]
    made = prepared(tmp_path, schema, impressions=shown(rows, "order", "known_ms"))
    first = at(0) // 86_400_000
    assert (made("statistics/o.days") - first).tolist() == [1, 2, 3]
    # day 1: two rows are final; day 2: the first is known to be an order, and the third, an order,
    # is final; the fourth is no order yet
    assert made("statistics/o.counts").tolist() == [[2, 0], [3, 2], [4, 2]]
    assert made("test/context.numbers") == pytest.approx(np.array([numbers(2, 3, 2 / 3)]), abs=1e-6)


def test_rows_outside_the_splits_count(tmp_path: Path) -> None:
    schema = SCHEMA.replace("{valid", "{start: 2026-01-05, valid") % "UTC"
    rows = [("a", "i", at(-1), 1), ("a", "i", at(0), 0), ("a", "i", at(1), 0), ("a", "i", at(2), 0)]
    made = prepared(tmp_path, schema, impressions=shown(rows))
    assert made("train/context.numbers") == pytest.approx(np.array([numbers(1, 1, 0.5)]), abs=1e-6)


def parts(data: Dataset) -> list[tuple[Partition, PartitionSplit]]:
    """Every split of every partition."""
    partitions = [data.partition(number) for number in data.partitions]
    return [(part, part.split(name)) for part in partitions for name in SPLITS]


def request_of(split: PartitionSplit) -> np.ndarray:
    return np.repeat(np.arange(len(split.user)), np.diff(split.first_candidate))


def keys(data: Dataset, partition: Partition, split: PartitionSplit) -> dict[str, list[Any]]:
    """What every impression's row says of each part of a key, as ids."""
    spec, request, item_row = data.spec, request_of(split), split.item_row
    users, items = partition.users.ids[split.user_row[request]], data.items.ids[item_row]
    user = [(partition.number, number) for number in split.user[request].tolist()]
    context, cross = split.context.ids[request], split.cross.ids
    item = np.load(data.folder / "items" / "number.npy")[item_row]
    return {
        "of_user": user,
        "of_place": list(
            zip(
                users[:, spec.user.names.index("age")],
                context[:, spec.context.names.index("city")],
                strict=True,
            )
        ),
        "of_hour": list(context[:, spec.context.names.index("hour")]),
        "of_item": list(item),
        "of_kind": list(items[:, spec.item.names.index("category")]),
        "of_quality": list(zip(user, items[:, spec.item.names.index("quality")], strict=True)),
        "of_match": list(cross[:, spec.cross.names.index("match")]),
        "of_far": list(
            map(tuple, cross[:, [spec.cross.names.index(n) for n in ("far", "reason")]])
        ),
    }


def test_every_kind_of_key_against_a_slow_count(rich_data: Path) -> None:
    data = Dataset(rich_data)
    splits = parts(data)
    days = np.concatenate([s.time_ms[request_of(s)] // 86_400_000 for _, s in splits])
    labels = np.concatenate([s.labels for _, s in splits])
    context = np.concatenate([s.context.numbers[request_of(s)] for _, s in splits])
    cross = np.concatenate([s.cross.numbers for _, s in splits])
    of_key = [keys(data, *part) for part in splits]
    seen = 0
    for name, statistic in data.schema.statistics.items():
        task = data.schema.tasks.index(statistic.label)
        own = [key for part in of_key for key in part[name]]
        level = data.schema.statistic_level(name)
        stored = (context if level == "context" else cross)[
            :, getattr(data.spec, level).numbers_of(name)
        ]
        for row in range(0, len(days), 7):
            before = [i for i in range(len(days)) if days[i] < days[row] and labels[i, task] >= 0]
            same = [i for i in before if own[i] == own[row]]
            if not same:
                assert stored[row].tolist() == [0, 0]
                continue
            prior = np.clip(
                (labels[before, task] == 1).mean(), 0.5 / len(before), 1 - 0.5 / len(before)
            )
            expected = numbers(
                int((labels[same, task] == 1).sum()), len(same), float(prior), statistic.smoothing
            )
            assert stored[row] == pytest.approx(np.array(expected), abs=1e-5)
            seen += 1
    assert seen > 200


def test_partition_size_changes_no_byte(rich_logs: Path, tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    prepare(rich_logs, small, memory_rows=5)
    prepare(rich_logs, large)
    assert len(list((large / "statistics").iterdir())) == 32
    assert file_hashes(small) == file_hashes(large)


@pytest.mark.parametrize("day", [0, 1, 2, 3])
def test_a_label_changes_no_number_of_its_own_day_or_before(
    rich_logs: Path, rich_data: Path, tmp_path: Path, day: int
) -> None:
    """Every known click of one day is turned round."""
    logs = tmp_path / "logs"
    logs.mkdir()
    for path in rich_logs.iterdir():
        if path.is_file():
            (logs / path.name).write_bytes(path.read_bytes())
    table = pq.read_table(logs / "impressions.parquet")
    day_of = (table.column("time_ms").to_numpy() - at(0)) // 86_400_000
    click = [
        None if c is None else 1 - c if d == day else c
        for c, d in zip(table.column("click").to_pylist(), day_of, strict=True)
    ]
    order = [
        None if o is None else min(o, c or 0)
        for o, c in zip(table.column("order").to_pylist(), click, strict=True)
    ]
    names = table.column_names
    table = table.set_column(names.index("click"), "click", pa.array(click)).set_column(
        names.index("order"), "order", pa.array(order)
    )
    pq.write_table(table, logs / "impressions.parquet")
    data = (rich_data, tmp_path / "data")
    prepare(logs, data[1])
    later = 0
    for (_, a), (_, b) in zip(*(parts(Dataset(folder)) for folder in data), strict=True):
        of_request = (a.time_ms - at(0)) // 86_400_000
        for x, y, days in (
            (a.context, b.context, of_request),
            (a.cross, b.cross, of_request[request_of(a)]),
        ):
            differs = (x.numbers != y.numbers).any(axis=1)
            assert not differs[days <= day].any()
            later += int(differs[days > day].sum())
    assert (later > 0) == (day < 3)
