"""Every request once an epoch, in the order that was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hemix.data.dataset import Dataset
from hemix.data.sampler import (
    Order,
    RequestSampler,
    Sampler,
    SequentialSampler,
    TimeSampler,
    UserSampler,
    make_sampler,
)
from hemix.data.split import Split

ORDERS: tuple[Order, ...] = ("requests", "users", "time")


@pytest.fixture(scope="module", params=[1, 5, 64])
def split(
    request: pytest.FixtureRequest, planted_logs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Split:
    from hemix.preparation import prepare

    out = tmp_path_factory.mktemp("partitions") / "data"
    prepare(planted_logs, out, partitions=request.param)
    return Dataset(out).split("train")


def epoch_of(sampler: Sampler, slots: int, epoch: int = 0) -> Iterator[tuple[int, list[int]]]:
    for step in range(sampler.steps):
        for slot in range(slots):
            yield slot, sampler.requests(epoch, step, slot).tolist()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("batch_size", "slots"), [(128, 1), (3, 1), (100_000, 1), (128, 4)])
def test_every_request_once_an_epoch_and_in_the_slot_of_its_partition(
    split: Split, order: Order, batch_size: int, slots: int
) -> None:
    sampler = make_sampler(order, split, batch_size=batch_size, slots=slots, seed=1)
    drawn = list(epoch_of(sampler, slots, epoch=2))
    assert sorted(r for _, requests in drawn for r in requests) == list(range(split.requests))
    for slot, requests in drawn:
        places = split.request_numbers.pieces(np.array(requests, dtype=np.int64)).partitions
        assert not requests or {place % slots for place in places} == {slot}


@pytest.mark.parametrize("order", ORDERS)
def test_steps_have_about_the_batch_size(split: Split, order: Order) -> None:
    sampler = make_sampler(order, split, batch_size=64)
    assert sampler.steps == -(-split.impressions // 64)
    sizes = [
        np.isin(split.requests_of(np.arange(split.impressions)), requests).sum()
        for _, requests in epoch_of(sampler, 1)
    ]
    most = split.impressions and max(
        np.bincount(split.requests_of(np.arange(split.impressions))).tolist()
    )
    mean = split.impressions / sampler.steps
    partitions = min(len(split.data.partitions), 16)
    assert max(sizes) <= mean + most * partitions and min(sizes) >= mean - most * partitions


def test_an_order_is_a_function_of_seed_and_epoch(split: Split) -> None:
    def first(seed: int, epoch: int) -> tuple[int, ...]:
        sampler = RequestSampler(split, batch_size=128, seed=seed)
        return tuple(sampler.requests(epoch, 0, 0).tolist())

    assert first(1, 2) == first(1, 2)
    assert len({first(s, e) for s in range(3) for e in range(3)}) == 9


def test_steps_can_be_asked_for_in_any_order(split: Split) -> None:
    forward, backward = (RequestSampler(split, batch_size=32, slots=2) for _ in range(2))
    keys = [(e, s, m) for e in range(2) for s in range(forward.steps) for m in range(2)]
    ahead = {key: forward.requests(*key).tolist() for key in keys}
    assert {key: backward.requests(*key).tolist() for key in reversed(keys)} == ahead


def test_a_step_draws_from_every_partition_of_a_group_alike(split: Split) -> None:
    """Of at most 8 partitions; the requests of a partition are spread evenly over the steps."""
    if len(split.data.partitions) > 8:
        pytest.skip("several groups")
    sampler = RequestSampler(split, batch_size=64)
    requests_of = np.diff(split.request_numbers.first)
    for step in range(sampler.steps):
        pieces = split.request_numbers.pieces(sampler.requests(0, step, 0))
        for place, rows in zip(pieces.partitions, pieces.each, strict=True):
            assert len(rows) == pytest.approx(requests_of[place] / sampler.steps, abs=6)


def test_many_partitions_are_drawn_from_in_groups_of_eight(split: Split) -> None:
    if len(split.data.partitions) < 64:
        pytest.skip("one group")
    sampler = RequestSampler(split, batch_size=64)
    places = [
        set(split.request_numbers.pieces(np.array(requests)).partitions)
        for _, requests in epoch_of(sampler, 1)
    ]
    assert max(map(len, places)) <= 16, "a step lies in two groups at most"
    assert len(set.union(*places)) == (np.diff(split.request_numbers.first) > 0).sum()
    again = RequestSampler(split, batch_size=64)
    assert places[0] != set(split.request_numbers.pieces(again.requests(1, 0, 0)).partitions), (
        "the next epoch has other groups"
    )


def test_users_come_together_and_in_time(split: Split) -> None:
    sampler = UserSampler(split, batch_size=128, seed=1)
    by_place: dict[int, list[int]] = {}
    for _, requests in epoch_of(sampler, 1, epoch=3):
        pieces = split.request_numbers.pieces(np.array(requests, dtype=np.int64))
        for place, rows in zip(pieces.partitions, pieces.each, strict=True):
            by_place.setdefault(place, []).extend(rows.tolist())
    for place, rows in by_place.items():
        arrays = split.partition(place)
        steps = np.flatnonzero(np.diff(arrays.user[rows], prepend=-1))
        assert len(steps) <= len(np.unique(arrays.user)) + sampler.steps
    assert sum(map(len, by_place.values())) == split.requests


def test_time_is_that_of_all_partitions_of_a_slot(split: Split) -> None:
    sampler = TimeSampler(split, batch_size=64)
    times = [split.time_ms[np.array(requests)] for _, requests in epoch_of(sampler, 1) if requests]
    assert (np.diff(np.concatenate(times)) >= 0).all()
    assert (sampler.requests(0, 3, 0) == sampler.requests(5, 3, 0)).all()


@pytest.mark.parametrize("batch_size", [1, 7, 64, 100_000])
def test_sequential_batches_are_the_stored_order(split: Split, batch_size: int) -> None:
    sampler = SequentialSampler(split, batch_size)
    drawn = [requests for _, requests in epoch_of(sampler, 1)]
    assert [r for requests in drawn for r in requests] == list(range(split.requests))
    first = np.searchsorted(
        split.requests_of(np.arange(split.impressions)), np.arange(split.requests)
    )
    for step, requests in enumerate(drawn):
        assert (first[requests] // batch_size == step).all()
    assert not len(sampler.requests(0, sampler.steps, 0)), "behind the end there is nothing"
