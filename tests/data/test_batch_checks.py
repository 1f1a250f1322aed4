"""RequestBatch.validate: a good batch passes, every damage is refused by the name of its field."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hemix.data.batch import RequestBatch
from hemix.data.dataset import Dataset
from hemix.data.sampler import RequestSampler
from hemix.errors import DataError
from tests.batches import make_batch, make_spec

SPEC = make_spec()
BATCH = make_batch(SPEC)
R, Q, N, E = BATCH.users_count, BATCH.requests_count, BATCH.candidates_count, len(BATCH.event_item)
ITEMS = BATCH.items.rows


def set_at(tensor: Tensor, at: Any, value: float) -> Tensor:
    changed = tensor.clone()
    changed[at] = value
    return changed


def with_columns(level: str, **parts: Any) -> RequestBatch:
    return dataclasses.replace(
        BATCH, **{level: dataclasses.replace(getattr(BATCH, level), **parts)}
    )


def with_value(name: str, at: Any, value: float) -> RequestBatch:
    return dataclasses.replace(BATCH, **{name: set_at(getattr(BATCH, name), at, value)})


def with_jagged(**parts: Any) -> RequestBatch:
    return with_columns("items", jagged=(dataclasses.replace(BATCH.items.jagged[0], **parts),))


JAGGED = BATCH.items.jagged[0]


def test_good_batches_pass(rich_data: Path) -> None:
    BATCH.validate(SPEC)
    dataclasses.replace(BATCH, labels=None, weights=None).validate(SPEC)
    make_batch(SPEC, users=1, history=0, realtime=0).validate(SPEC)
    data = Dataset(rich_data)
    for name in ("train", "valid", "test"):
        split = data.split(name)
        for batch in split.batches(RequestSampler(split, batch_size=40)):
            batch.validate(data.spec)


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        (
            lambda: with_value("user_index", 0, R),
            f"user_index: points outside its {R} users: {R} at position 0",
        ),
        (
            lambda: with_value("user_index", 1, -1),
            f"user_index: points outside its {R} users: -1 at position 1",
        ),
        (
            lambda: with_value("request_index", N - 1, Q),
            f"request_index: points outside its {Q} requests: {Q} at position {N - 1}",
        ),
        (
            lambda: with_value("item_index", 2, ITEMS),
            f"item_index: points outside its {ITEMS} items: {ITEMS} at position 2",
        ),
        (
            lambda: with_value("event_item", 3, ITEMS),
            f"event_item: points outside its {ITEMS} items: {ITEMS} at position 3",
        ),
        (lambda: with_value("bias", 0, 11), "bias: points outside its 11 rows: 11 at position 0"),
        (
            lambda: with_value("event_ids", (4, 1), 26),
            "event_ids[:, 1]: points outside its 26 rows of table hour: 26 at position 4",
        ),
        (
            lambda: with_columns("users", ids=set_at(BATCH.users.ids, (2, 1), 10)),
            "users.ids[age]: points outside its 10 rows of table age: 10 at position 2",
        ),
        (
            lambda: with_columns("context", ids=set_at(BATCH.context.ids, (0, 2), -1)),
            "context.ids[city]: points outside its 8 rows of table city: -1 at position 0",
        ),
        (
            lambda: with_jagged(values=set_at(JAGGED.values, 1, 15)),
            "items.jagged[tags]: points outside its 15 rows of table tags: 15 at position 1",
        ),
    ],
)
def test_an_index_outside(batch: Callable[[], RequestBatch], says: str) -> None:
    refused(batch(), says)


def refused(batch: RequestBatch, says: str) -> None:
    with pytest.raises(DataError) as error:
        batch.validate(SPEC)
    assert str(error.value).startswith(f"RequestBatch.{says}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("bad", ["before", "crossed", "swapped", "beyond"])
def test_ranges_outside_the_users_history(bad: str) -> None:
    lengths = BATCH.event_offsets.diff()
    q = int((lengths[BATCH.user_index] > 1).nonzero()[0])
    first, last = (int(BATCH.event_offsets[BATCH.user_index[q] + i]) for i in (0, 1))
    ranges = {
        "before": [first - 1, first, last],
        "crossed": [first + 1, first, last],
        "swapped": [first, last, last - 1],
        "beyond": [first, first, last + 1],
    }[bad]
    batch = dataclasses.replace(BATCH, history_ranges=BATCH.history_ranges.clone())
    batch.history_ranges[q] = torch.tensor(ranges)
    refused(
        batch,
        f"history_ranges[{q}]: expected {first} <= begin <= real time <= end <= {last}, the user's "
        f"history; got {ranges}",
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("level", ["users", "context", "items", "cross"])
def test_numbers_that_are_not_finite(level: str, value: float) -> None:
    numbers = set_at(getattr(BATCH, level).numbers, (1, 0), value)
    refused(
        with_columns(level, numbers=numbers),
        f"{level}.numbers: expected finite numbers, got {value} at [1, 0]",
    )


@pytest.mark.parametrize("name", ["labels", "weights"])
def test_labels_that_are_not_finite(name: str) -> None:
    refused(
        with_value(name, (2, 1), float("nan")),
        f"{name}: expected finite numbers, got nan at [2, 1]",
    )


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("event_offsets", BATCH.event_offsets[:-1], f"expected shape ({R + 1},), got ({R},)"),
        ("event_time_ms", BATCH.event_time_ms[1:], f"expected shape ({E},), got ({E - 1},)"),
        ("event_ids", BATCH.event_ids[:, :1], f"expected shape ({E}, 2), got ({E}, 1)"),
        ("request_time_ms", BATCH.request_time_ms[:, None], f"expected shape ({Q},), got ({Q}, 1)"),
        ("history_ranges", BATCH.history_ranges[:, :2], f"expected shape ({Q}, 3), got ({Q}, 2)"),
        ("item_index", BATCH.item_index[1:], f"expected shape ({N},), got ({N - 1},)"),
        ("bias", BATCH.bias[:, None], f"expected shape ({N},), got ({N}, 1)"),
        ("labels", BATCH.labels[:, :1], f"expected shape ({N}, 2), got ({N}, 1)"),
        ("weights", BATCH.weights[1:], f"expected shape ({N}, 2), got ({N - 1}, 2)"),
        ("user_index", BATCH.user_index[:, None], f"expected shape ({Q},), got ({Q}, 1)"),
        ("request_index", BATCH.request_index[:, None], f"expected shape ({N},), got ({N}, 1)"),
        ("event_item", BATCH.event_item[:, None], f"expected shape ({E},), got ({E}, 1)"),
        (
            "impression_index",
            torch.zeros(N + 1, dtype=torch.int64),
            f"expected shape ({N},), got ({N + 1},)",
        ),
    ],
)
def test_wrong_shapes(name: str, value: Tensor, says: str) -> None:
    refused(dataclasses.replace(BATCH, **{name: value}), f"{name}: {says}")


def test_wrong_shapes_of_columns() -> None:
    refused(
        with_columns("users", ids=BATCH.users.ids[:, :2]),
        f"users.ids: expected shape ({R}, 3), got ({R}, 2)",
    )
    refused(
        with_columns("cross", numbers=BATCH.cross.numbers[1:]),
        f"cross.numbers: expected shape ({N}, 1), got ({N - 1}, 1)",
    )
    refused(with_columns("items", jagged=()), "items.jagged: expected 1, got 0")
    refused(
        with_jagged(offsets=JAGGED.offsets[:-1]),
        f"items.jagged[tags].offsets: expected shape ({ITEMS + 1},), got ({ITEMS},)",
    )


def test_requests_of_candidates_ascend() -> None:
    refused(
        dataclasses.replace(BATCH, request_index=BATCH.request_index.flip(0)),
        "request_index: expected ascending",
    )


@pytest.mark.parametrize("bad", ["descending", "from one", "short"])
def test_offsets_ascend_from_zero_to_the_end(bad: str) -> None:
    offsets = BATCH.event_offsets.clone()
    at, value = {"descending": (2, int(offsets[3]) + 1), "from one": (0, 1), "short": (-1, E - 1)}[
        bad
    ]
    offsets[at] = value
    refused(
        dataclasses.replace(BATCH, event_offsets=offsets),
        f"event_offsets: expected ascending offsets from 0 to {E}",
    )
    offsets_of_lists = JAGGED.offsets.clone()
    offsets_of_lists[at] = {
        "descending": int(offsets_of_lists[3]) + 1,
        "from one": 1,
        "short": len(JAGGED.values) - 1,
    }[bad]
    refused(
        with_jagged(offsets=offsets_of_lists),
        f"items.jagged[tags].offsets: expected ascending offsets from 0 to {len(JAGGED.values)}",
    )
