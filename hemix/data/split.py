"""The requests of one split of a dataset, and their batches.

A batch is a pure function of its requests. A :class:`~hemix.data.sampler.Sampler` says which
requests each step holds, as a function of (seed, epoch, step, slot). So any process can make any
batch, and a resumed run continues with the batches that remained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from hemix.data.batch import RequestBatch
from hemix.data.columns import Columns
from hemix.data.history import find_history_ranges
from hemix.data.jagged import int64_tensor
from hemix.data.loader import read_ahead
from hemix.data.masking import Masks
from hemix.data.partition import PartitionSplit
from hemix.data.partitioned import PartitionedArray, PartitionedRows, Pieces
from hemix.data.replacement import Replacement
from hemix.data.requested import RequestedRows
from hemix.data.user_rows import UserRows
from hemix.features.match_index import MatchKeys
from hemix.features.seen_events import SeenEvents

if TYPE_CHECKING:
    from hemix.data.dataset import Dataset
    from hemix.data.sampler import Sampler

__all__ = ["HistoryPart", "Split"]

Array = npt.NDArray[Any]
Int64Array = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float32]
Positions = npt.NDArray[np.integer[Any]]
HistoryPart = Literal["global", "realtime"]


class Split:
    """The impressions of one split, and how to make batches of them.

    Requests and impressions are numbered over the open partitions, one partition after the other,
    and within a partition by user, then time.
    """

    def __init__(self, dataset: Dataset, name: str) -> None:
        """Describe the split; its files are read at their first use.

        Args:
            dataset: The dataset.
            name: ``train``, ``valid`` or ``test``.
        """
        self.data = dataset
        self.name = name
        self.request_numbers = PartitionedRows(dataset.partition_counts("requests", name))
        self.impression_numbers = PartitionedRows(dataset.partition_counts("rows", name))

    @property
    def requests(self) -> int:
        """Q, the requests of the split."""
        return len(self.request_numbers)

    @property
    def impressions(self) -> int:
        """The impressions of the split."""
        return len(self.impression_numbers)

    def partition(self, place: int) -> PartitionSplit:
        """Return the arrays of a partition.

        Args:
            place: Its place in ``Dataset.partitions``.

        Raises:
            DataError: The partition is missing or damaged.
        """
        return self.data.partition(self.data.partitions[place]).split(self.name)

    def _requests_array(self, column: str) -> PartitionedArray[Any]:
        return PartitionedArray(self.request_numbers, lambda p: getattr(self.partition(p), column))

    def _impressions_array(self, column: str) -> PartitionedArray[Any]:
        return PartitionedArray(
            self.impression_numbers, lambda p: getattr(self.partition(p), column)
        )

    @property
    def time_ms(self) -> PartitionedArray[np.int64]:
        """int64 [Q], UTC."""
        return self._requests_array("time_ms")

    @property
    def item_row(self) -> PartitionedArray[np.int32]:
        """int32 [impressions]: the item version of each impression."""
        return self._impressions_array("item_row")

    @property
    def labels(self) -> PartitionedArray[np.int8]:
        """int8 [impressions, T]: 0, 1, or -1 where unknown."""
        return self._impressions_array("labels")

    @property
    def bias(self) -> PartitionedArray[np.int32]:
        """int32 [impressions]: row of the bias table; zeros without a bias column."""
        return self._impressions_array("bias")

    @property
    def weight(self) -> PartitionedArray[np.float32]:
        """float32 [impressions]."""
        return self._impressions_array("weight")

    @property
    def log_row(self) -> PartitionedArray[np.int64]:
        """int64 [impressions]: row in the impression log."""
        return self._impressions_array("log_row")

    def users_of(self, requests: Positions) -> Int64Array:
        """Return the user number of each request.

        Args:
            requests: int [q] in the order of their partitions.

        Returns:
            int64 [q].
        """
        pieces = self.request_numbers.pieces(requests)
        assert pieces.order is None, "partition by partition"
        users = pieces.take([self.partition(place).user for place in pieces.partitions])
        return self.data.users.numbers(pieces.at(users))

    def requests_of(self, impressions: Positions) -> Int64Array:
        """Return the request that each impression belongs to.

        Args:
            impressions: int [n] in the order of their partitions.

        Returns:
            int64 [n].
        """
        pieces = self.impression_numbers.pieces(impressions)
        assert pieces.order is None, "partition by partition"
        requests = [
            np.searchsorted(self.partition(place).first_candidate, rows, side="right") - 1
            for place, rows in zip(pieces.partitions, pieces.each, strict=True)
        ]
        return self.request_numbers.numbers(pieces.at(np.concatenate(requests)))

    def row_keys(self, impressions: Positions) -> pa.Array:
        """Return the key of each impression (``roles.row_key``), as numbers or texts.

        Args:
            impressions: int [n] in the order of their partitions.
        """
        pieces = self.impression_numbers.pieces(impressions)
        assert pieces.order is None, "partition by partition"
        keys = [
            self.data.partition(self.data.partitions[place]).row_keys(self.name, rows)
            for place, rows in zip(pieces.partitions, pieces.each, strict=True)
        ]
        return pa.concat_arrays(keys)

    # -- batches -----------------------------------------------------------------------------------

    def batches(
        self,
        sampler: Sampler,
        *,
        epoch: int = 0,
        steps: Sequence[int] | None = None,
        slots: Sequence[int] = (0,),
        replacement: Replacement | None = None,
        workers: int = 1,
        hidden: HistoryPart | None = None,
    ) -> Iterator[RequestBatch]:
        """Yield the batches of an epoch: step by step, of each step the given slots.

        Args:
            sampler: The requests of each batch.
            epoch: Number of the pass over the data.
            steps: Numbers of the steps; None: all.
            slots: Numbers of the slots.
            replacement: Random replacement of what is known. Its seed gets the numbers of epoch,
                step and slot.
            workers: Threads that make batches ahead; 0: none, a batch is made when it is needed.
            hidden: See :meth:`batch`.
        """

        def make(key: tuple[int, int]) -> RequestBatch:
            requests = sampler.requests(epoch, *key)
            swap = None if replacement is None else replacement.of_batch(epoch, *key)
            return self.batch(requests, replacement=swap, hidden=hidden)

        steps = range(sampler.steps) if steps is None else steps
        return read_ahead(make, ((step, slot) for step in steps for slot in slots), workers)

    def batch(
        self,
        requests: Positions,
        *,
        replacement: Replacement | None = None,
        hidden: HistoryPart | None = None,
    ) -> RequestBatch:
        """Make the batch of some requests: partition by partition, else in their order.

        Args:
            requests: int [Q], positions in the split.
            replacement: Replace known ids, users and items at random.
            hidden: A part of the histories that no request sees, and that nothing counts.
        """
        data, requested = self.data, self._requested(requests)
        rows, split = requested.rows, requested.split
        time_ms, request_index = requested.time_ms, requested.request_index
        histories = [partition.history for partition in requested.opened]
        masks = requested.masks(replacement)
        user_rows = self._user_rows(requested, hidden, masks)
        events = user_rows.events
        candidate_rows = rows.take([s.item_row for s in split])
        event_rows = events.take([h.item_row for h in histories])
        item_rows, item_index = _distinct(
            np.concatenate([candidate_rows, event_rows]), data.items.rows
        )
        event_ids: npt.NDArray[np.int32] = events.take([h.ids for h in histories])
        seen = SeenEvents(
            event_ids=event_ids,
            time_ms=events.take([h.time_ms for h in histories]),
            history_ranges=user_rows.history_ranges,
            request_time_ms=time_ms,
        )
        items = data.items.select(item_rows)
        item_keys = data.match_keys(item_rows, items)
        numbers = self._history_numbers(seen, item_keys, item_index, request_index, masks)
        blocks = requested.blocks(user_rows, items, numbers)
        if masks is not None:
            blocks = data.unknown_rows.mask(blocks, masks, user_rows.is_masked, request_index)
            item_index[: len(request_index)][masks.item] = len(item_rows)
        if replacement is not None and replacement.rate > 0:
            blocks, event_ids = replacement.apply(blocks, event_ids, data.spec)
        users, context, item_columns, cross = map(Columns.from_block, blocks.values())
        labels, weights = _labels(rows, split)
        candidate_item, event_item = np.split(item_index, [len(request_index)])
        return RequestBatch(
            users=users,
            event_offsets=int64_tensor(user_rows.event_offsets),
            event_item=int64_tensor(event_item),
            event_time_ms=int64_tensor(seen.time_ms),
            event_ids=int64_tensor(event_ids),
            user_index=int64_tensor(user_rows.user_index),
            request_time_ms=int64_tensor(time_ms),
            context=context,
            history_ranges=int64_tensor(user_rows.history_ranges),
            request_index=int64_tensor(request_index),
            item_index=int64_tensor(candidate_item),
            cross=cross,
            bias=int64_tensor(rows.take([s.bias for s in split])),
            items=item_columns,
            impression_index=int64_tensor(self.impression_numbers.numbers(rows)),
            labels=labels,
            weights=weights,
        )

    def _requested(self, requests: Positions) -> RequestedRows:
        """Find requests, int [Q], and their impressions."""
        at = self.request_numbers.pieces(requests)
        opened = self.data.opened(at)
        split = [partition.split(self.name) for partition in opened]
        first = at.take([s.first_candidate for s in split])
        candidates = at.take([s.first_candidate[1:] for s in split]) - first
        return RequestedRows(
            at=at,
            opened=opened,
            split=split,
            time_ms=at.take([s.time_ms for s in split]),
            rows=at.ranges(first, candidates),
            request_index=np.repeat(np.arange(len(candidates), dtype=np.int64), candidates),
        )

    def _user_rows(
        self, requested: RequestedRows, hidden: HistoryPart | None, masks: Masks | None
    ) -> UserRows:
        """Find the user rows of requests.

        Args:
            requested: The requests.
            hidden: See :meth:`batch`.
            masks: What is masked; None: nothing.
        """
        data, at, opened, split = self.data, requested.at, requested.opened, requested.split
        user, offsets = at.at(at.take([s.user for s in split])), [p.history.offsets for p in opened]
        ranges = find_history_ranges(
            at.values([p.history.time_ms for p in opened]),
            user.take(offsets),
            user.take([o[1:] for o in offsets]),
            requested.time_ms,
            data.schema.history,
            data.schema.clock.timezone,
            delay_ms=data.schema.history.delay_ms,
        )
        if data.history_events_max is not None:
            ranges = np.maximum(ranges, ranges[:, 2:] - data.history_events_max)
        ranges = _without_part(ranges, hidden)
        if masks is not None:
            ranges = np.where(masks.history[:, None], ranges[:, 2:], ranges)
        versions = at.at(at.take([s.user_row for s in split]))
        is_masked = None if masks is None else masks.user_features
        return UserRows.of(versions, data.user_rows, ranges, is_masked)

    def _history_numbers(
        self,
        seen: SeenEvents,
        item_keys: MatchKeys,
        item_index: Int64Array,
        request_index: Int64Array,
        masks: Masks | None,
    ) -> tuple[Numbers, Numbers]:
        """Compute the context numbers [Q, any] and cross numbers [N, any] of the histories.

        Args:
            seen: The events.
            item_keys: Keys of the item versions of the batch [I].
            item_index: int64 [N + E], the item of every candidate, then of every event.
            request_index: int64 [N], the request of every candidate.
            masks: What is masked: an unknown candidate matches nothing; None: nothing.
        """
        numbers = self.data.history_numbers
        candidate_items, event_items = np.split(item_index, [len(request_index)])
        matches = None
        if numbers.matches is not None:
            groups = numbers.matches.groups(seen.action_ids)
            matches = numbers.matches.index(item_keys, event_items, groups, wanted=candidate_items)
        candidate_keys = item_keys.select(candidate_items)
        if masks is not None:
            candidate_keys = candidate_keys.without(masks.item)
        cross = numbers.cross(seen, matches, candidate_keys, request_index)
        return numbers.context(seen, matches), cross


def _without_part(history_ranges: Int64Array, hidden: HistoryPart | None) -> Int64Array:
    """Return ``history_ranges``, int64 [Q, 3], with an empty part."""
    columns = {None: [0, 1, 2], "global": [1, 1, 2], "realtime": [0, 1, 1]}[hidden]
    return history_ranges[:, columns]


def _labels(rows: Pieces, split: Sequence[PartitionSplit]) -> tuple[Tensor, Tensor]:
    """Labels and weights of impressions, both float32 [N, T]; an unknown label has weight 0."""
    labels = rows.take([s.labels for s in split])
    weight = rows.take([s.weight for s in split])
    is_positive = torch.from_numpy((labels == 1).astype(np.float32))
    return is_positive, torch.from_numpy((labels >= 0) * weight[:, None])


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
