"""Dataset: batches as a pure function of the requests that they hold, and damaged partitions."""

from __future__ import annotations

import dataclasses
import itertools
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
from hemix.data.layout import SPEC_FORMAT, partition_folder
from hemix.data.replacement import Replacement
from hemix.data.sampler import RequestSampler, SequentialSampler
from hemix.data.split import Split
from hemix.errors import DataError, UsageError
from tests.data.small import at, prepared, shown
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


def joined(batches: list[RequestBatch], name: str) -> list[Any]:
    return torch.cat([getattr(batch, name) for batch in batches]).tolist()  # type: ignore[no-any-return]


# -- the same batches, however they are made -------------------------------------------------------


def test_how_many_threads_make_batches_changes_nothing(train: Split) -> None:
    sampler = RequestSampler(train, batch_size=20, slots=2, seed=1)
    swap = Replacement(rate=0.3, seed=(1, 0))
    plain, *ahead = (
        list(train.batches(sampler, epoch=1, slots=(0, 1), replacement=swap, workers=n))
        for n in (0, 1, 2, 5)
    )
    assert len(plain) == 2 * sampler.steps > 5
    for batches in ahead:
        assert all_same(batches, plain)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_an_epoch_goes_on_exactly_from_any_step(train: Split, workers: int) -> None:
    sampler = RequestSampler(train, batch_size=20, seed=1)
    swap = Replacement(rate=0.3, seed=(1, 0))
    whole = list(train.batches(sampler, replacement=swap))
    for first in (0, 1, 4, sampler.steps - 1, sampler.steps):
        steps = range(first, sampler.steps)
        rest = train.batches(sampler, steps=steps, replacement=swap, workers=workers)
        assert all_same(list(rest), whole[first:])


def test_a_loop_that_is_left_leaves_no_thread(train: Split) -> None:
    import threading

    for _ in train.batches(SequentialSampler(train, 10)):
        break
    assert not [
        t for t in threading.enumerate() if t.name.startswith("hemix-loader") and t.is_alive()
    ]


def request_of_log(split: Split) -> dict[int, list[int]]:
    """By the first row of each request in the log its number in the split."""
    log_row = split.log_row[np.arange(split.impressions)]
    request = split.requests_of(np.arange(split.impressions))
    first = np.flatnonzero(np.diff(request, prepend=-1))
    return dict(zip(log_row[first].tolist(), request[first].tolist(), strict=True))


def test_partitions_change_no_request(rich_data: Path, rich_partitions: Path) -> None:
    """What a request sees and holds is the same in 8 partitions and in 5."""
    eight, five = Dataset(rich_data), Dataset(rich_partitions)
    assert (len(eight.partitions), len(five.partitions)) == (8, 5)
    for name in ("train", "valid", "test"):
        ours, theirs = eight.split(name), five.split(name)
        numbers, other_numbers = request_of_log(ours), request_of_log(theirs)
        assert numbers.keys() == other_numbers.keys() and numbers != other_numbers
        for row, number in numbers.items():
            batch = ours.batch(np.array([number]))
            other = theirs.batch(np.array([other_numbers[row]]))
            for (leaf, tensor), (_, expected) in zip(leaves(batch), leaves(other), strict=True):
                assert leaf == ".impression_index" or torch.equal(tensor, expected), leaf
        rows = list(numbers)[:40]
        requests = [np.array([of[row] for row in rows]) for of in (numbers, other_numbers)]
        batch, other = ours.batch(requests[0]), theirs.batch(requests[1])
        assert batch.candidates_count == other.candidates_count
        for field in ("event_time_ms", "request_time_ms", "bias"):
            tensors = [getattr(b, field).sort().values for b in (batch, other)]
            assert torch.equal(*tensors), field


def test_the_requests_of_a_batch_come_by_partition_else_in_their_order(
    rich_partitions: Path,
) -> None:
    split = Dataset(rich_partitions).split("train")
    first = split.request_numbers.first
    requests = np.array([first[3] + 1, first[1], first[3], first[1] + 2])
    batch = split.batch(requests)
    expected = split.time_ms[requests[[1, 3, 0, 2]]]
    assert batch.request_time_ms.tolist() == expected.tolist()


def test_some_partitions_alone(rich_partitions: Path) -> None:
    whole, some = Dataset(rich_partitions), Dataset(rich_partitions, partitions=[4, 1])
    assert some.partitions == (1, 4)
    ours, theirs = some.split("train"), whole.split("train")
    first = theirs.request_numbers.first
    requests = np.concatenate([np.arange(first[1], first[2]), np.arange(first[4], first[5])])
    assert ours.requests == len(requests)
    batch, expected = ours.batch(np.arange(ours.requests)), theirs.batch(requests)
    for (leaf, tensor), (_, of_whole) in zip(leaves(batch), leaves(expected), strict=True):
        assert leaf == ".impression_index" or torch.equal(tensor, of_whole), leaf
    users = ours.users_of(np.arange(ours.requests))
    assert some.user_ids(users).equals(whole.user_ids(theirs.users_of(requests)))
    with raises(UsageError, field="partitions"):
        Dataset(rich_partitions, partitions=[5])


def test_a_slot_needs_its_own_partitions_alone(rich_partitions: Path) -> None:
    """A process with two of three slots opens their partitions and draws what all would."""
    whole = Dataset(rich_partitions).split("train")
    some = Dataset(rich_partitions, partitions=[0, 3, 1, 4]).split("train")
    samplers = [RequestSampler(split, batch_size=20, slots=3, seed=2) for split in (some, whole)]
    assert samplers[0].steps == samplers[1].steps
    for slot in (0, 1):
        batches = [
            list(split.batches(sampler, slots=[slot]))
            for split, sampler in zip((some, whole), samplers, strict=True)
        ]
        for ours, theirs in zip(*batches, strict=True):
            assert ours.labels is not None and theirs.labels is not None
            assert torch.equal(ours.labels, theirs.labels)
            assert torch.equal(ours.event_time_ms, theirs.event_time_ms)


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
    spec, by_column = split.data.spec, {}
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
    every = np.arange(train.requests)
    plain, swapped = (
        train.batch(every, replacement=r) for r in (None, Replacement(rate=1.0, seed=(0,)))
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
    sampler = SequentialSampler(train, 50)
    assert all_same(
        list(train.batches(sampler, replacement=Replacement(rate=0.0, seed=(0,)))),
        list(train.batches(sampler)),
    )


def test_a_rate_between_is_met_and_differs_from_batch_to_batch(train: Split) -> None:
    every = np.arange(train.requests)
    plain = id_columns(train, train.batch(every))["cross.reason"][1]
    swap = Replacement(rate=0.25, seed=(7,))
    numbers = itertools.product(range(2), repeat=3)  # of epoch, step and slot
    swapped = [
        id_columns(train, train.batch(every, replacement=swap.of_batch(*of)))["cross.reason"][1]
        for of in numbers
    ]
    known = plain > 1
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(swapped, 2))
    for ids in swapped:
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
    batch.validate(versions.data.spec)
    cities = batch.users.ids[:, versions.data.spec.user.names.index("city")]
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
def copy(rich_partitions: Path, tmp_path: Path) -> Path:
    shutil.copytree(rich_partitions, tmp_path / "data")
    return tmp_path / "data"


@pytest.mark.parametrize(
    "file",
    [
        "partitions/00003/history/ids.npy",
        "items/features.bag0.values.npy",
        "partitions/00001/train/labels.npy",
        "partitions/00004/ids.parquet",
        "encoders/000.keys.npy",
        "items/raw.npy",
        "ids/items.parquet",
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


def test_verify_leaves_out_a_split_and_partitions_that_are_not_open(copy: Path) -> None:
    for file in ("partitions/00001/test/labels.npy", "partitions/00001/truth/test.npy"):
        (copy / file).write_bytes(b"")
    Dataset(copy).verify(but="test")
    Dataset(copy, partitions=[0, 2]).verify()
    with raises(DataError, code="damaged_file"):
        Dataset(copy).verify(but="train")


def test_verify_covers_every_file_of_a_partition_and_every_shared_array(copy: Path) -> None:
    named = set(json.loads((copy / "manifest.json").read_text())["files"])
    shared = {path.relative_to(copy).as_posix() for path in copy.rglob("*.npy")}
    assert {name for name in named if name.endswith(".npy")} == {
        name for name in shared if not name.startswith("partitions/")
    }
    for number in range(5):
        folder = partition_folder(copy, number)
        named = set(json.loads((folder / "manifest.json").read_text())["files"])
        files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
        assert named == files - {"manifest.json"}


@pytest.mark.parametrize("number", [0, 2])
def test_a_missing_partition_is_named(copy: Path, number: int) -> None:
    folder = partition_folder(copy, number)
    shutil.rmtree(folder)
    dataset = Dataset(copy)
    with raises(DataError, code="missing_partition", field=folder):
        dataset.verify()
    split = dataset.split("train")
    with raises(DataError, code="missing_partition", field=folder):
        split.batch(np.arange(split.requests))


def test_partitions_of_another_number_or_dataset_are_refused(copy: Path, rich_data: Path) -> None:
    one, three = partition_folder(copy, 1), partition_folder(copy, 3)
    one.rename(copy / "one")
    shutil.copytree(three, one)
    with raises(DataError, "partition 3 of 5", code="wrong_partition", field=one / "manifest.json"):
        Dataset(copy).partition(1)
    shutil.rmtree(one)
    shutil.copytree(partition_folder(rich_data, 1), one)
    with raises(DataError, "partition 1 of 8", code="wrong_partition", field=one / "manifest.json"):
        Dataset(copy).partition(1)
    shutil.rmtree(one)
    (copy / "one").rename(one)
    content = json.loads((one / "manifest.json").read_text())
    (one / "manifest.json").write_text(json.dumps({**content, "users": 0}))
    with raises(DataError, code="wrong_partition", field=one / "manifest.json"):
        Dataset(copy).partition(1)
    (one / "manifest.json").write_text(json.dumps({**content, "format_version": 2}))
    with raises(DataError, code="wrong_format_version", field=one / "manifest.json"):
        Dataset(copy).partition(1)


def test_a_cut_off_array_is_named(copy: Path) -> None:
    folder = partition_folder(copy, 1)
    path = folder / "train" / "user.npy"
    path.write_bytes(path.read_bytes()[:-4])
    with raises(DataError, code="damaged_file", field=path):
        Dataset(copy).partition(1).split("train")
    np.save(path, np.load(partition_folder(copy, 0) / "train" / "user.npy")[:1])
    with raises(DataError, code="damaged_file", field=folder / "train"):
        Dataset(copy).partition(1).split("train")
    path = folder / "history" / "time_ms.npy"
    np.save(path, np.load(path)[:-1])
    with raises(DataError, code="damaged_file", field=folder / "history"):
        _ = Dataset(copy).partition(1).history


def test_what_is_no_dataset(copy: Path, tmp_path: Path) -> None:
    with raises(DataError, code="missing_dataset", field=tmp_path):
        Dataset(tmp_path)
    with raises(UsageError, field="--split"):
        Dataset(copy).split("dev")
    (copy / "spec.json").write_text(f'{{"format_version": {SPEC_FORMAT.version}}}')
    with raises(DataError, "spec.json", code="damaged_file", field=copy):
        Dataset(copy)


def test_a_dataset_of_shards_is_refused_by_its_version(copy: Path) -> None:
    content = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**content, "format_version": 2}))
    with raises(DataError, "expected 3, found 2", code="wrong_format_version"):
        Dataset(copy)


def test_a_schema_changed_afterwards_is_refused(copy: Path) -> None:
    path = copy / "schema.yaml"
    path.write_text(path.read_text().replace("realtime_length: 3", "realtime_length: 2"))
    with raises(DataError, "schema.yaml", code="other_schema", field=copy):
        Dataset(copy)


def test_a_batch_needs_no_truth(copy: Path) -> None:
    for number in range(5):
        shutil.rmtree(partition_folder(copy, number) / "truth")
    split = Dataset(copy).split("test")
    batches = split.batches(SequentialSampler(split, 50))
    assert sum(batch.candidates_count for batch in batches) == split.impressions


def test_open_partitions_hold_no_file_descriptors(rich_partitions: Path) -> None:
    """Many partitions have more files than a process may have descriptors."""
    dataset = Dataset(rich_partitions)
    before = len(list(Path("/proc/self/fd").iterdir()))
    batch = dataset.split("train").batch(np.arange(40))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert batch.candidates_count > 0
