"""The requests of one split of a dataset, and their batches.

A batch is a pure function of its requests. An epoch is a plan: an order of all requests, divided
into batches, as a function of (seed, epoch). So any process can make any batch, and a resumed run
continues with the batches that remained.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from hemix.data.batch import RequestBatch
from hemix.data.columns import Columns
from hemix.data.jagged import int64_tensor
from hemix.data.jagged_array import offsets_of, range_positions
from hemix.data.layout import Block, load_array
from hemix.data.replacement import Replacement
from hemix.data.sharded_columns import ShardedArray, ShardedBlock
from hemix.data.spec import LevelSpec
from hemix.errors import DataError
from hemix.features.seen_events import SeenEvents

if TYPE_CHECKING:
    from hemix.data.dataset import Dataset

__all__ = ["HistoryPart", "Plan", "Split"]

Int64Array = npt.NDArray[np.int64]
HistoryPart = Literal["global", "realtime"]

_AHEAD = 1
"""Finished batches that wait, in addition to the one of every loader thread"""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One pass over a split: the order of its requests and where each batch begins."""

    order: Int64Array
    """int64 [Q]"""
    begin: Int64Array
    """int64 [batches + 1], positions in ``order``"""

    def __len__(self) -> int:
        return len(self.begin) - 1


class Split:
    """The impressions of one split, and how to make batches of them."""

    def __init__(self, dataset: Dataset, name: str) -> None:
        """Memory-map the shards.

        Args:
            dataset: The dataset.
            name: ``train``, ``valid`` or ``test``.

        Raises:
            DataError: If a shard is missing or damaged.
        """
        self._data = dataset
        self.name = name
        folders = sorted(p for p in (dataset.folder / name).glob("*") if p.is_dir())
        if not folders:
            raise DataError(f"{dataset.folder / name}: no shards of the {name} split")

        def column(file: str) -> ShardedArray[Any]:
            return ShardedArray([load_array(folder / f"{file}.npy") for folder in folders])

        def block(level: str, spec: LevelSpec) -> ShardedBlock:
            return ShardedBlock(
                [Block.load(folder, level, len(spec.jagged_tables)) for folder in folders]
            )

        spec = dataset.spec
        self.user: ShardedArray[np.int32] = column("user")
        self.user_row: ShardedArray[np.int32] = column("user_row")
        self.time_ms: ShardedArray[np.int64] = column("time_ms")
        self.item_row: ShardedArray[np.int32] = column("item_row")
        self.bias: ShardedArray[np.int32] = column("bias")
        self.labels: ShardedArray[np.int8] = column("labels")
        self.weight: ShardedArray[np.float32] = column("weight")
        self.log_row: ShardedArray[np.int64] = column("log_row")
        self._context, self._cross = block("context", spec.context), block("cross", spec.cross)
        firsts = [load_array(folder / "first_candidate.npy") for folder in folders]
        counts = np.concatenate([np.diff(f) for f in firsts])
        expected = dataset.manifest["splits"][name]
        if (len(counts), int(counts.sum())) != (expected["requests"], expected["rows"]):
            raise DataError(
                f"{dataset.folder / name}: expected {expected['requests']} requests and "
                f"{expected['rows']} impressions "
                f"by manifest.json, found {len(counts)} and {int(counts.sum())}: a shard is "
                "missing or damaged",
                code="missing_file",
                field=str(dataset.folder / name),
            )
        if len(counts) != len(self.user) or int(counts.sum()) != len(self.item_row):
            raise DataError(
                f"{dataset.folder / name}: damaged: {len(self.user)} requests and "
                f"{len(self.item_row)} candidates do "
                f"not fit first_candidate.npy",
                code="damaged_file",
                field=str(dataset.folder / name),
            )
        self.first_candidate = offsets_of(counts)
        """int64 [Q + 1]"""

    @property
    def requests(self) -> int:
        """Q, the requests of the split."""
        return len(self.user)

    @property
    def impressions(self) -> int:
        """The impressions of the split."""
        return len(self.item_row)

    @cached_property
    def request_of(self) -> Int64Array:
        """int64 [impressions]: the request that each impression belongs to."""
        return np.repeat(np.arange(self.requests, dtype=np.int64), np.diff(self.first_candidate))

    def plan(
        self, batch_size: int, *, order: str = "stored", seed: int = 0, epoch: int = 0
    ) -> Plan:
        """Divide the requests into batches of about ``batch_size`` impressions.

        A request belongs to the batch in which its first impression falls.

        Args:
            batch_size: Impressions of a batch, about.
            order: ``stored`` (by shard, user and time), ``time``, ``shuffled``, or ``users``
                (shuffled users, each with all requests in time).
            seed: Of the shuffle, together with the epoch.
            epoch: Number of the pass over the data.
        """
        if order == "shuffled":
            requests = np.random.default_rng([seed, epoch]).permutation(self.requests)
        elif order == "users":
            user = self.user.read()
            rank = np.random.default_rng([seed, epoch]).permutation(int(user.max(initial=0)) + 1)
            requests = np.lexsort((self.time_ms.read(), rank[user]))
        elif order == "time":
            requests = np.argsort(self.time_ms.read(), kind="stable")
        else:
            requests = np.arange(self.requests)
        sizes = np.diff(self.first_candidate)[requests]
        batch = offsets_of(sizes)[:-1] // batch_size
        begin = np.concatenate([[0], np.flatnonzero(np.diff(batch)) + 1, [self.requests]]).astype(
            np.int64
        )
        return Plan(order=requests, begin=begin)

    def batches(
        self,
        plan: Plan,
        *,
        first: int = 0,
        replacement: Replacement | None = None,
        workers: int = 1,
        hidden: HistoryPart | None = None,
    ) -> Iterator[RequestBatch]:
        """Yield the batches of a plan, in order.

        Args:
            plan: Requests and batches.
            first: Number of the first batch to yield.
            replacement: Random replacement of ids, whose seed gets the number of each batch.
            workers: Threads that make batches ahead; 0: none, a batch is made when it is needed.
            hidden: See :meth:`batch`.
        """

        def make(i: int) -> RequestBatch:
            swap = (
                None
                if replacement is None
                else Replacement(rate=replacement.rate, seed=(*replacement.seed, i))
            )
            requests = plan.order[plan.begin[i] : plan.begin[i + 1]]
            return self.batch(requests, replacement=swap, hidden=hidden)

        if not workers:
            yield from map(make, range(first, len(plan)))
            return
        ahead = workers + _AHEAD
        with ThreadPoolExecutor(workers, thread_name_prefix="hemix-loader") as pool:
            waiting: list[Future[RequestBatch]] = [
                pool.submit(make, i) for i in range(first, min(first + ahead, len(plan)))
            ]
            try:
                for i in range(first, len(plan)):
                    batch = waiting.pop(0).result()
                    if i + ahead < len(plan):
                        waiting.append(pool.submit(make, i + ahead))
                    yield batch
            finally:
                for future in waiting:
                    future.cancel()

    def batch(
        self,
        requests: Int64Array,
        *,
        replacement: Replacement | None = None,
        hidden: HistoryPart | None = None,
    ) -> RequestBatch:
        """Make the batch of some requests, in their order.

        Args:
            requests: int64 [Q], positions in the split.
            replacement: Replace known ids at random.
            hidden: A part of the histories that no request sees, and that nothing counts.
        """
        data, store, time_ms = self._data, self._data.history, self.time_ms[requests]
        first, last = self.first_candidate[requests], self.first_candidate[requests + 1]
        rows = range_positions(first, last - first)
        ranges = _without_part(store.ranges(self.user[requests].astype(np.int64), time_ms), hidden)
        histories = _Histories.of(self.user_row[requests].astype(np.int64), ranges)
        events = range_positions(histories.begin, np.diff(histories.offsets))
        item_row = np.concatenate([self.item_row[rows], store.item_row.take(events)])
        distinct, index = _distinct(item_row, data.items.rows)
        event_ids, event_time_ms = store.ids.take(events, axis=0), store.time_ms.take(events)
        request_index = np.repeat(np.arange(len(requests), dtype=np.int64), last - first)
        seen = SeenEvents(
            event_ids=event_ids,
            time_ms=event_time_ms,
            history_ranges=histories.ranges,
            request_time_ms=time_ms,
        )
        context_numbers, cross_numbers = self._history_numbers(seen, distinct, index, request_index)
        blocks = {
            "user": data.users.select(histories.user_row),
            "context": self._context.select(requests).with_numbers(context_numbers),
            "item": data.items.select(distinct),
            "cross": self._cross.select(rows).with_numbers(cross_numbers),
        }
        if replacement is not None and replacement.rate > 0:
            blocks, event_ids = replacement.apply(blocks, event_ids, data.spec)
        columns = {level: Columns.from_block(block) for level, block in blocks.items()}
        labels = self.labels[rows]
        return RequestBatch(
            users=columns["user"],
            event_offsets=int64_tensor(histories.offsets),
            event_item=int64_tensor(index[len(rows) :]),
            event_time_ms=int64_tensor(event_time_ms),
            event_ids=int64_tensor(event_ids),
            user_index=int64_tensor(histories.user_index),
            request_time_ms=int64_tensor(time_ms),
            context=columns["context"],
            history_ranges=int64_tensor(histories.ranges),
            request_index=int64_tensor(request_index),
            item_index=int64_tensor(index[: len(rows)]),
            cross=columns["cross"],
            bias=int64_tensor(self.bias[rows]),
            items=columns["item"],
            labels=torch.from_numpy((labels == 1).astype(np.float32)),
            weights=torch.from_numpy((labels >= 0) * self.weight[rows][:, None]),
            impression_index=int64_tensor(rows),
        )

    def _history_numbers(
        self,
        seen: SeenEvents,
        item_rows: Int64Array,
        item_index: Int64Array,
        request_index: Int64Array,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Compute the context numbers [Q, any] and cross numbers [N, any] of the histories.

        Args:
            seen: The events.
            item_rows: int64 [I], the item versions of the batch.
            item_index: int64 [N + E], the item of every candidate, then of every event.
            request_index: int64 [N], the request of every candidate.
        """
        numbers = self._data.history_numbers
        candidate_items, event_items = np.split(item_index, [len(request_index)])
        item_keys = self._data.match_keys(item_rows)
        matches = None
        if numbers.matches is not None:
            groups = numbers.matches.groups(seen.action_ids)
            matches = numbers.matches.index(item_keys, event_items, groups, wanted=candidate_items)
        cross = numbers.cross(seen, matches, item_keys[candidate_items], request_index)
        return numbers.context(seen, matches), cross


def _without_part(history_ranges: Int64Array, hidden: HistoryPart | None) -> Int64Array:
    """Return ``history_ranges``, int64 [Q, 3], with an empty part."""
    columns = {None: [0, 1, 2], "global": [1, 1, 2], "realtime": [0, 1, 1]}[hidden]
    return history_ranges[:, columns]


@dataclass(frozen=True, kw_only=True)
class _Histories:
    """The user rows of a batch: one for each version of a user's features, with all events that any
    of its requests sees.
    """

    user_row: Int64Array
    """int64 [R]: the version"""
    user_index: Int64Array
    """int64 [Q] -> user rows"""
    begin: Int64Array
    """int64 [R]: the first event, a position in the history store"""
    offsets: Int64Array
    """int64 [R + 1]"""
    ranges: Int64Array
    """int64 [Q, 3]: what each request sees, positions among the batch's events"""

    @classmethod
    def of(cls, user_row: Int64Array, ranges: Int64Array) -> _Histories:
        """Find the user rows of requests.

        Args:
            user_row: int64 [Q], the version of each request's user.
            ranges: int64 [Q, 3], what each request sees, positions in the history store.
        """
        distinct, user_index = np.unique(user_row, return_inverse=True)
        begin = np.full(len(distinct), np.iinfo(np.int64).max)
        end = np.zeros(len(distinct), dtype=np.int64)
        np.minimum.at(begin, user_index, ranges[:, 0])
        np.maximum.at(end, user_index, ranges[:, 2])
        offsets = offsets_of(end - begin)
        shift = (offsets[:-1] - begin)[user_index]
        return cls(
            user_row=distinct,
            user_index=user_index,
            begin=begin,
            offsets=offsets,
            ranges=ranges + shift[:, None],
        )


def _distinct(values: npt.NDArray[np.int32], upper: int) -> tuple[Int64Array, Int64Array]:
    """Return the sorted distinct values, all below ``upper``, and each value's position there."""
    if upper > 8 * len(values) + 1024:
        rows, index = np.unique(values, return_inverse=True)
        return rows.astype(np.int64), index.astype(np.int64)
    present = np.zeros(upper, dtype=bool)
    present[values] = True
    distinct = np.flatnonzero(present)
    position = np.empty(upper, dtype=np.int64)
    position[distinct] = np.arange(len(distinct))
    return distinct, position.take(values)
