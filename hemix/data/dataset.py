"""Shards -> RequestBatch.

A dataset folder is opened by memory-mapping; a batch is a pure function of the requests that it
holds. An epoch is a *plan*: an order of all requests and the places where one batch ends, both
functions of (seed, epoch). So the position in the data is one number, any process can make any
batch, and a resumed run sees exactly the batches that remained.

Truth is not opened here.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hemix.data.batch import RequestBatch
from hemix.data.columns import Columns
from hemix.data.history import HistoryStore
from hemix.data.jagged import int64_tensor
from hemix.data.jagged_array import offsets_of, range_positions
from hemix.data.layout import MANIFEST_FORMAT, SPEC_FORMAT, SPLITS, Block, file_hash, load_array
from hemix.data.replacement import Replacement
from hemix.data.sharded_columns import ShardedArray, ShardedBlock
from hemix.data.spec import InputSpec, LevelSpec
from hemix.errors import DataError, UsageError
from hemix.features.history_counts import HISTORY_COUNTS, history_counts, number_of_actions
from hemix.schema import Schema

__all__ = ["Dataset", "Plan", "Split"]

Int64Array = npt.NDArray[np.int64]

_AHEAD = 1
"""Batches that wait to be taken, beside one in every loader thread's hands"""


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
        promised = dataset.manifest["splits"][name]
        if (len(counts), int(counts.sum())) != (promised["requests"], promised["rows"]):
            raise DataError(
                f"{dataset.folder / name}: expected {promised['requests']} requests and "
                f"{promised['rows']} impressions "
                f"by manifest.json, found {len(counts)} and {int(counts.sum())}: a shard is "
                "missing or damaged"
            )
        if len(counts) != len(self.user) or int(counts.sum()) != len(self.item_row):
            raise DataError(
                f"{dataset.folder / name}: damaged: {len(self.user)} requests and "
                f"{len(self.item_row)} candidates do "
                f"not fit first_candidate.npy"
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
        """Batches of about ``batch_size`` impressions, whole requests each: a request is in
        the batch that its first impression falls into.

        ``order``: ``stored`` (shard by shard, in each by user, then time), ``time``, ``shuffled``
        by (seed, epoch), or ``users``: the users shuffled by (seed, epoch), all requests of one
        together and in time.
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
    ) -> Iterator[RequestBatch]:
        """The plan's batches from number ``first`` on, in order.

        So many threads make the next ones meanwhile; with 0 each is made when it is asked for.
        """

        def make(i: int) -> RequestBatch:
            swap = (
                None
                if replacement is None
                else Replacement(rate=replacement.rate, seed=(*replacement.seed, i))
            )
            return self.batch(plan.order[plan.begin[i] : plan.begin[i + 1]], replacement=swap)

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
        self, requests: Int64Array, *, replacement: Replacement | None = None
    ) -> RequestBatch:
        """Make the batch of some requests, in their order.

        Args:
            requests: int64 [Q], positions in the split.
            replacement: Replace known ids at random.
        """
        data, store = self._data, self._data.history
        first = self.first_candidate[requests]
        counts = self.first_candidate[requests + 1] - first
        rows = range_positions(first, counts)
        time_ms = self.time_ms[requests]
        user_row = self.user_row[requests].astype(np.int64)
        ranges = store.ranges(self.user[requests].astype(np.int64), time_ms)
        histories = _Histories.of(user_row, ranges)
        events = range_positions(histories.begin, np.diff(histories.offsets))

        item_row = self.item_row[rows]
        distinct, index = _distinct(
            np.concatenate([item_row, store.item_row.take(events)]), data.items.rows
        )
        labels = self.labels[rows]
        event_ids = store.ids.take(events, axis=0)

        blocks = {
            "user": data.users.select(histories.user_row),
            "context": self._context.select(requests),
            "item": data.items.select(distinct),
            "cross": self._cross.select(rows),
        }
        if data.schema.history.counts:
            actions = number_of_actions(len(data.spec.context.numbers_of(HISTORY_COUNTS)))
            blocks["context"] = blocks["context"].with_numbers(
                history_counts(histories.ranges, event_ids[:, 0], actions)
            )
        if replacement is not None and replacement.rate > 0:
            blocks, event_ids = replacement.apply(blocks, event_ids, data.spec)
        return RequestBatch(
            users=Columns.from_block(blocks["user"]),
            event_offsets=int64_tensor(histories.offsets),
            event_item=int64_tensor(index[len(rows) :]),
            event_time_ms=int64_tensor(store.time_ms.take(events)),
            event_ids=int64_tensor(event_ids),
            user_index=int64_tensor(histories.user_index),
            request_time_ms=int64_tensor(time_ms),
            context=Columns.from_block(blocks["context"]),
            history_ranges=int64_tensor(histories.ranges),
            request_index=int64_tensor(np.repeat(np.arange(len(requests)), counts)),
            item_index=int64_tensor(index[: len(rows)]),
            cross=Columns.from_block(blocks["cross"]),
            bias=int64_tensor(self.bias[rows]),
            items=Columns.from_block(blocks["item"]),
            labels=torch.from_numpy((labels == 1).astype(np.float32)),
            weights=torch.from_numpy((labels >= 0) * self.weight[rows][:, None]),
            impression_index=int64_tensor(rows),
        )


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


class Dataset:
    """A dataset folder made by ``hemix prepare``.

    Raises DataError naming what is missing or damaged.
    """

    def __init__(self, folder: str | Path, *, history_events_max: int | None = None) -> None:
        """``history_events_max``: show every request at most its newest so many events (to study
        the length of histories).
        """
        self.folder = Path(folder)
        manifest = self.folder / "manifest.json"
        if not manifest.is_file():
            raise DataError(
                f"{self.folder}: not a dataset folder (no manifest.json): make one with hemix "
                "prepare",
                code="missing_dataset",
                field=str(self.folder),
            )
        try:
            self.manifest = MANIFEST_FORMAT.read(manifest)
            self.spec = InputSpec.from_json(SPEC_FORMAT.read(self.folder / "spec.json"))
        except (KeyError, TypeError) as error:
            raise DataError(
                f"{self.folder}: damaged manifest.json or spec.json: {error}"
            ) from error
        self.schema = Schema.load(self.folder / "schema.yaml")
        if self.schema.fingerprint() != self.manifest["fingerprint"]:
            raise DataError(
                f"{self.folder}: schema.yaml was changed after the dataset was prepared: prepare "
                "it again"
            )
        self.users = Block.load(
            self.folder / "users", "features", len(self.spec.user.jagged_tables)
        )
        self.items = Block.load(
            self.folder / "items", "features", len(self.spec.item.jagged_tables)
        )
        self.history = HistoryStore(
            self.folder / "history",
            self.schema.history,
            self.schema.clock.timezone,
            history_events_max,
        )

    def verify(self, *, but: str | None = None) -> None:
        """Compare every array with its hash in the manifest, but those of the split ``but``.

        Raises DataError naming the first file that is missing or damaged.
        """
        for name, entry in self.manifest["files"].items():
            if but is not None and but in name.split("/"):
                continue
            path = self.folder / name
            if not path.is_file():
                raise DataError(
                    f"{path}: missing from the dataset folder", code="missing_file", field=str(path)
                )
            if file_hash(path) != entry["xxh64"]:
                raise DataError(
                    f"{path}: damaged: its hash is not the one in manifest.json",
                    code="damaged_file",
                    field=str(path),
                )

    @property
    def item_rows(self) -> int:
        """How many item versions there are, the unknown item included."""
        return len(self.items.ids)

    def split(self, name: str) -> Split:
        """One of train, valid, test."""
        if name not in SPLITS:
            raise UsageError(
                f"--split {name}: expected one of {', '.join(SPLITS)}", field="--split"
            )
        return Split(self, name)
