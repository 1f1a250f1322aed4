"""Dataset: plans, and batches as a pure function of the requests that they hold."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hemix.data.batch import RequestBatch
from hemix.data.columns import Columns
from hemix.data.dataset import Dataset
from hemix.data.jagged import Jagged
from hemix.data.layout import load_array
from hemix.data.replacement import Replacement
from hemix.data.split import Plan, Split
from hemix.errors import DataError, UsageError
from tests.data.small import PLAIN, at, prepared, shown
from tests.refusals import raises


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of everything in a batch."""
    if isinstance(value, RequestBatch | Columns | Jagged):
        for field in dataclasses.fields(value):
            yield from leaves(getattr(value, field.name), f"{name}.{field.name}")
    elif isinstance(value, tuple):
        for i, part in enumerate(value):
            yield from leaves(part, f"{name}.{i}")
    elif value is not None:
        yield name, value


def same(a: RequestBatch, b: RequestBatch) -> bool:
    pairs = zip(leaves(a), leaves(b), strict=True)
    return all(m == n and torch.equal(x, y) for (m, x), (n, y) in pairs)


def all_same(a: list[RequestBatch], b: list[RequestBatch]) -> bool:
    return len(a) == len(b) and all(map(same, a, b))


@pytest.fixture(scope="module")
def train(rich_data: Path) -> Split:
    return Dataset(rich_data).split("train")


# -- plans -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Train requests of 3, 1, 2, 5 and 1 impressions, the stored order; the oldest is the second
    user's.
    """
    sizes = {("a", 5): 3, ("a", 6): 1, ("a", 7): 2, ("b", 1): 5, ("b", 9): 1}
    rows: list[tuple[Any, ...]] = [
        (user, f"i{n}", at(0, hour), 0, f"{user}{hour}")
        for (user, hour), size in sizes.items()
        for n in range(size)
    ]
    rows += [("a", "i", at(1), 0, "v"), ("a", "i", at(2), 0, "t")]
    made = prepared(
        tmp_path_factory.mktemp("uneven"),
        PLAIN + "roles: {request_id: r}",
        impressions=shown(rows, "r"),
    )
    return Dataset(made.folder).split("train")


def test_sizes_by_hand(uneven: Split) -> None:
    """The requests begin at impressions 0, 3, 4, 6, 11; by threes that is in batches 0, 1, 1,
    2, 3.
    """
    plan = uneven.plan(3)
    assert plan.order.tolist() == [0, 1, 2, 3, 4]
    assert plan.begin.tolist() == [0, 1, 3, 4, 5]
    assert len(plan) == 4
    assert [b.candidates_count for b in uneven.batches(plan)] == [3, 3, 5, 1]
    assert uneven.plan(100).begin.tolist() == [0, 5]
    assert uneven.plan(1).begin.tolist() == [0, 1, 2, 3, 4, 5]
    by_time = uneven.plan(5, order="time")
    assert by_time.order.tolist() == [3, 0, 1, 2, 4]  # they begin at 0, 5, 8, 9, 11
    assert by_time.begin.tolist() == [0, 1, 4, 5]


@pytest.mark.parametrize("order", ["stored", "time", "shuffled"])
@pytest.mark.parametrize("size", [1, 7, 40, 10_000])
def test_every_request_once_and_no_batch_empty(train: Split, order: str, size: int) -> None:
    plan = train.plan(size, order=order, seed=3, epoch=1)
    assert sorted(plan.order.tolist()) == list(range(train.requests))
    assert plan.begin[0] == 0 and plan.begin[-1] == train.requests
    assert (np.diff(plan.begin) > 0).all()
    rows = torch.cat(
        [
            batch.impression_index
            for batch in train.batches(plan)
            if batch.impression_index is not None
        ]
    )
    assert sorted(rows.tolist()) == list(range(train.impressions))


def test_a_shuffle_is_a_function_of_seed_and_epoch(train: Split) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        plan = train.plan(40, order="shuffled", seed=seed, epoch=epoch)
        return plan.order.tolist()  # type: ignore[no-any-return]

    assert order(1, 2) == order(1, 2)
    assert len({tuple(order(s, e)) for s in range(3) for e in range(3)}) == 9


# -- the same batches, however they are made -------------------------------------------------------


def test_how_many_threads_make_batches_changes_nothing(train: Split) -> None:
    plan = train.plan(20, order="shuffled", seed=1)
    swap = Replacement(rate=0.3, seed=(1, 0))
    plain, *ahead = (list(train.batches(plan, replacement=swap, workers=n)) for n in (0, 1, 2, 5))
    assert len(plain) > 5
    for batches in ahead:
        assert all_same(batches, plain)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_first_goes_on_exactly(train: Split, workers: int) -> None:
    plan = train.plan(20, order="shuffled", seed=1)
    swap = Replacement(rate=0.3, seed=(1, 0))
    whole = list(train.batches(plan, replacement=swap))
    for first in (0, 1, 4, len(plan) - 1, len(plan)):
        assert all_same(
            list(train.batches(plan, first=first, replacement=swap, workers=workers)), whole[first:]
        )


def test_a_loop_that_is_left_leaves_no_thread(train: Split) -> None:
    import threading

    for _ in train.batches(train.plan(10)):
        break
    assert not [
        t for t in threading.enumerate() if t.name.startswith("hemix-loader") and t.is_alive()
    ]


def test_many_shards_are_one(rich_data: Path, rich_shards: Path) -> None:
    one, many = Dataset(rich_data), Dataset(rich_shards)
    for name in ("train", "valid", "test"):
        assert len(list((rich_data / name).iterdir())) == 1
        assert len(list((rich_shards / name).iterdir())) > 3
        a, b = one.split(name), many.split(name)
        for size, order in ((33, "shuffled"), (7, "time"), (1000, "stored")):
            plans = [split.plan(size, order=order, seed=2) for split in (a, b)]
            assert all_same(list(a.batches(plans[0])), list(b.batches(plans[1])))
        truth = [
            np.concatenate([np.load(f) for f in sorted((d / "truth" / name).glob("*.npy"))])
            for d in (rich_data, rich_shards)
        ]
        assert (truth[0] == truth[1]).all()


def test_a_batch_is_made_of_its_requests_alone(train: Split) -> None:
    """A request's candidates, labels and visible events do not depend on its company."""
    whole = train.batch(np.arange(train.requests))
    for q in (0, 5, train.requests - 1):
        alone = train.batch(np.array([q]))
        here = whole.request_index == q
        begin, middle, end = whole.history_ranges[q].tolist()
        b, m, e = alone.history_ranges[0].tolist()
        assert (middle - begin, end - middle) == (m - b, e - m)
        assert torch.equal(whole.event_time_ms[begin:end], alone.event_time_ms[b:e])
        assert torch.equal(
            whole.items.ids[whole.event_item[begin:end]], alone.items.ids[alone.event_item[b:e]]
        )
        assert torch.equal(
            whole.items.numbers[whole.item_index[here]], alone.items.numbers[alone.item_index]
        )
        for name in ("labels", "weights", "impression_index", "bias"):
            assert torch.equal(getattr(whole, name)[here], getattr(alone, name))


# -- replacement -----------------------------------------------------------------------------------


def id_columns(split: Split, batch: RequestBatch) -> dict[str, tuple[str, Tensor]]:
    """level.feature -> (table, ids) of every id column, jagged column and event field."""
    spec, by_column = split._data.spec, {}
    for level, columns in (
        ("user", batch.users),
        ("context", batch.context),
        ("item", batch.items),
        ("cross", batch.cross),
    ):
        of = getattr(spec, level)
        for i, name in enumerate(of.names):
            by_column[f"{level}.{name}"] = of.tables[i], columns.ids[:, i]
        for i, name in enumerate(of.jagged_names):
            by_column[f"{level}.{name}"] = of.jagged_tables[i], columns.jagged[i].values
    for i, name in enumerate(spec.event.names):
        by_column[f"event.{name}"] = spec.event.tables[i], batch.event_ids[:, i]
    return by_column


VOCABULARIES = {
    *(
        "user.user_id",
        "user.likes",
        "context.city",
        "item.item_id",
        "item.category",
        "item.tags",
        "cross.reason",
    ),
    *("event.action", "event.tab"),
}


def test_rate_1_replaces_every_known_id_of_a_vocabulary_and_nothing_else(train: Split) -> None:
    plan = train.plan(10_000)
    (plain,), (swapped,) = (
        list(train.batches(plan, replacement=r)) for r in (None, Replacement(rate=1.0, seed=(0,)))
    )
    before, after = id_columns(train, plain), id_columns(train, swapped)
    assert set(before) > VOCABULARIES
    with_missing = 0
    for name, (_, ids) in before.items():
        new = after[name][1]
        if name in VOCABULARIES:
            assert (ids > 1).any()
            assert torch.equal(new, torch.where(ids == 1, 1, 0)), (
                f"{name}: known to unknown, missing stays missing"
            )
            with_missing += int((ids == 1).any())
        else:
            assert torch.equal(new, ids), name
    assert with_missing >= 4
    others = {
        n: t
        for n, t in leaves(swapped)
        if not (n.endswith((".ids", "event_ids")) or (".jagged." in n and n.endswith("values")))
    }
    assert len(others) > 15
    for name, tensor in leaves(plain):
        assert name not in others or torch.equal(tensor, others[name]), name


def test_rate_0_replaces_nothing(train: Split) -> None:
    plan = train.plan(50)
    assert all_same(
        list(train.batches(plan, replacement=Replacement(rate=0.0, seed=(0,)))),
        list(train.batches(plan)),
    )


def test_a_rate_between_is_met_and_differs_from_batch_to_batch(train: Split) -> None:
    plan = Plan(
        order=np.tile(np.arange(train.requests), 2),
        begin=np.array([0, train.requests, 2 * train.requests]),
    )
    plain = id_columns(train, train.batch(np.arange(train.requests)))["cross.reason"][1]
    a, b = (
        id_columns(train, x)["cross.reason"][1]
        for x in train.batches(plan, replacement=Replacement(rate=0.25, seed=(7,)))
    )
    known = plain > 1
    assert not torch.equal(a, b)
    for ids in (a, b):
        fraction = (ids[known] == 0).double().mean().item()
        assert abs(fraction - 0.25) < 4 * (0.25 * 0.75 / int(known.sum())) ** 0.5


# -- users and histories ---------------------------------------------------------------------------

VERSIONS = """
name: versions
tables: {events: events.parquet, users: users.parquet}
valid_from: since
features: {user: {city: {type: categorical, vocabulary: {min_count: 1}}}}
history: {global_length: 2, realtime_length: 1}
labels: {click: {}}
split: {valid: 2026-01-06, test: 2026-01-07}
"""


@pytest.fixture
def versions(tmp_path: Path) -> Split:
    """User u moves at 12:00 of the train day.

    Requests at 10:00, 14:00 and 15:00; one event at every full hour from 1:00.
    """
    rows = [("u", "i", at(0, h), 0) for h in (10, 14, 15)] + [("w", "i", at(0, 3), 0)]
    rows += [("u", "i", at(1), 0), ("u", "i", at(2), 0)]
    events = {
        "user_id": ["u"] * 20,
        "item_id": ["i"] * 20,
        "time_ms": [at(0, h) for h in range(1, 21)],
        "action": ["view"] * 20,
    }
    users = {
        "user_id": ["u", "u", "w"],
        "since": [0, at(0, 12), 0],
        "city": ["rome", "oslo", "rome"],
    }
    return Dataset(
        prepared(tmp_path, VERSIONS, impressions=shown(rows), events=events, users=users).folder
    ).split("train")


def test_a_user_with_two_feature_versions_has_two_rows(versions: Split) -> None:
    batch = versions.batch(np.arange(4))
    batch.validate(versions._data.spec)
    cities = batch.users.ids[:, versions._data.spec.user.names.index("city")]
    assert batch.users_count == 3
    assert batch.user_index.tolist() == [0, 1, 1, 2]
    assert cities[0] == cities[2] != cities[1]


def test_a_user_row_holds_the_union_of_what_its_requests_see(versions: Split) -> None:
    """At 10:00 events 7, 8 | 9; at 14:00 11, 12 | 13 and at 15:00 12, 13 | 14: the second row holds
    11 to 14.
    """
    batch = versions.batch(np.arange(4))
    hours = [(t - at(0)) // 3_600_000 for t in batch.event_time_ms.tolist()]
    assert hours == [7, 8, 9, 11, 12, 13, 14]
    assert batch.event_offsets.tolist() == [0, 3, 7, 7]
    assert batch.history_ranges.tolist() == [[0, 2, 3], [3, 5, 6], [4, 6, 7], [7, 7, 7]]
    turned = versions.batch(np.array([2, 0, 1]))
    assert turned.user_index.tolist() == [1, 0, 1]
    assert turned.history_ranges.tolist() == [[4, 6, 7], [0, 2, 3], [3, 5, 6]]


# -- damage ----------------------------------------------------------------------------------------


@pytest.fixture
def copy(rich_shards: Path, tmp_path: Path) -> Path:
    shutil.copytree(rich_shards, tmp_path / "data")
    return tmp_path / "data"


@pytest.mark.parametrize(
    "file",
    [
        "history/ids.npy",
        "items/features.bag0.values.npy",
        "train/00001/labels.npy",
        "encoders/000.keys.npy",
        "items/raw.npy",
    ],
)
def test_verify_finds_one_flipped_bit(copy: Path, file: str) -> None:
    Dataset(copy).verify()
    content = bytearray((copy / file).read_bytes())
    content[-1] ^= 1
    (copy / file).write_bytes(content)
    with raises(DataError, code="damaged_file", field=copy / file):
        Dataset(copy).verify()
    (copy / file).unlink()
    with raises(DataError, code="missing_file", field=copy / file):
        Dataset(copy).verify()


def test_verify_covers_every_array(copy: Path) -> None:
    named = set(json.loads((copy / "manifest.json").read_text())["files"])
    assert named == {path.relative_to(copy).as_posix() for path in copy.rglob("*.npy")}


@pytest.mark.parametrize("shard", ["00000", "00002"])
def test_a_missing_shard_is_refused(copy: Path, shard: str) -> None:
    shutil.rmtree(copy / "train" / shard)
    expected = json.loads((copy / "manifest.json").read_text())["splits"]["train"]
    numbers = (expected["requests"], expected["rows"])
    with raises(DataError, *numbers, code="missing_file", field=copy / "train"):
        Dataset(copy).split("train")


def test_a_cut_off_array_is_named(copy: Path) -> None:
    path = copy / "train" / "00001" / "user.npy"
    path.write_bytes(path.read_bytes()[:-4])
    with raises(DataError, code="damaged_file", field=path):
        Dataset(copy).split("train")
    np.save(path, np.load(copy / "train" / "00000" / "user.npy")[:1])
    with raises(DataError, "first_candidate.npy", code="damaged_file", field=copy / "train"):
        Dataset(copy).split("train")


def test_what_is_no_dataset(copy: Path, tmp_path: Path) -> None:
    with raises(DataError, code="missing_dataset", field=tmp_path):
        Dataset(tmp_path)
    with raises(UsageError, "dev", "train, valid, test", field="--split"):
        Dataset(copy).split("dev")
    (copy / "spec.json").write_text('{"format_version": 2}')
    with raises(DataError, "spec.json", code="damaged_file", field=copy):
        Dataset(copy)


def test_a_schema_changed_afterwards_is_refused(copy: Path) -> None:
    path = copy / "schema.yaml"
    path.write_text(path.read_text().replace("realtime_length: 3", "realtime_length: 2"))
    with raises(DataError, "schema.yaml", code="other_schema", field=copy):
        Dataset(copy)


def test_a_batch_needs_no_truth(copy: Path) -> None:
    shutil.rmtree(copy / "truth")
    split = Dataset(copy).split("test")
    assert (
        sum(batch.candidates_count for batch in split.batches(split.plan(50))) == split.impressions
    )
    assert len(load_array(copy / "test" / "00000" / "log_row.npy")) > 0
