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
from torch import Tensor

from hemix.data.batch import Columns, Jagged, RequestBatch
from hemix.data.history import HistoryStore
from hemix.data.layout import (
    MANIFEST_FORMAT,
    SPEC_FORMAT,
    SPLITS,
    Block,
    file_hash,
    load_array,
    ranges,
)
from hemix.data.spec import MISSING, UNKNOWN, InputSpec, LevelSpec
from hemix.errors import DataError, UsageError
from hemix.features.history_counts import HISTORY_COUNTS, history_counts, number_of_actions
from hemix.schema import Schema

__all__ = ["Dataset", "Plan", "Replacement", "Split"]

Array = npt.NDArray[Any]

_AHEAD = 1
"""Batches that wait to be taken, beside one in every loader thread's hands"""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One pass over a split: the order of its requests and where each batch begins."""

    order: Array
    """int64 [Q]"""
    begin: Array
    """int64 [batches + 1], positions in ``order``"""

    def __len__(self) -> int:
        return len(self.begin) - 1


@dataclass(frozen=True, kw_only=True)
class Replacement:
    """Random replacement of known ids by the unknown row, so that this row is trained."""

    rate: float
    seed: tuple[int, ...]


class _Shards:
    """One column of all shards of a split, addressed by its position in the whole split."""

    def __init__(self, arrays: list[Array]) -> None:
        self._arrays = arrays
        self._first = np.concatenate([[0], np.cumsum([len(a) for a in arrays])]).astype(np.int64)

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getitem__(self, rows: Array) -> Array:
        if len(self._arrays) == 1:
            return self._arrays[0].take(rows, axis=0)
        shard = np.searchsorted(self._first, rows, side="right") - 1
        out = np.empty((len(rows), *self._arrays[0].shape[1:]), dtype=self._arrays[0].dtype)
        for s in np.unique(shard):
            here = shard == s
            out[here] = self._arrays[s][rows[here] - self._first[s]]
        return out

    def read(self) -> Array:
        """The whole column in memory."""
        return np.concatenate(self._arrays)


class _BlockShards:
    """One level's features of all shards."""

    def __init__(self, blocks: list[Block]) -> None:
        self._blocks = blocks
        self._first = np.concatenate([[0], np.cumsum([len(b.ids) for b in blocks])]).astype(
            np.int64
        )

    def take(self, rows: Array) -> Block:
        if len(self._blocks) == 1:
            return self._blocks[0].take(rows)
        shard = np.searchsorted(self._first, rows, side="right") - 1
        order = np.argsort(shard, kind="stable")
        cuts = np.flatnonzero(np.diff(shard[order])) + 1
        pieces = [
            self._blocks[shard[p[0]]].take(rows[p] - self._first[shard[p[0]]])
            for p in np.split(order, cuts)
            if len(p)
        ]
        if not pieces:
            return self._blocks[0].take(rows)
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return Block.concatenate(pieces).take(back)


class Split:
    """The impressions of one split, and how to make batches of them."""

    def __init__(self, dataset: Dataset, name: str) -> None:
        self._data = dataset
        self.name = name
        folders = sorted(p for p in (dataset.folder / name).glob("*") if p.is_dir())
        if not folders:
            raise DataError(f"{dataset.folder / name}: no shards of the {name} split")

        def column(file: str) -> _Shards:
            return _Shards([load_array(folder / f"{file}.npy") for folder in folders])

        def block(level: str, spec: LevelSpec) -> _BlockShards:
            return _BlockShards(
                [Block.load(folder, level, len(spec.jagged_tables)) for folder in folders]
            )

        spec = dataset.spec
        self.user, self.user_row, self.time_ms = (
            column("user"),
            column("user_row"),
            column("time_ms"),
        )
        self.item_row, self.bias = column("item_row"), column("bias")
        self.labels, self.weight, self.log_row = (
            column("labels"),
            column("weight"),
            column("log_row"),
        )
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
        self.first_candidate = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
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
    def request_of(self) -> Array:
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
            place = np.random.default_rng([seed, epoch]).permutation(int(user.max(initial=0)) + 1)
            requests = np.lexsort((self.time_ms.read(), place[user]))
        elif order == "time":
            requests = np.argsort(self.time_ms.read(), kind="stable")
        else:
            requests = np.arange(self.requests)
        sizes = np.diff(self.first_candidate)[requests]
        batch = (np.cumsum(sizes) - sizes) // batch_size
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

    def batch(self, requests: Array, *, replacement: Replacement | None = None) -> RequestBatch:
        """The batch of the given requests (positions in the split), in that order."""
        data, store = self._data, self._data.history
        first = self.first_candidate[requests]
        counts = self.first_candidate[requests + 1] - first
        rows = ranges(first, counts)
        time_ms = self.time_ms[requests]
        user, user_row = (
            self.user[requests].astype(np.int64),
            self.user_row[requests].astype(np.int64),
        )

        # one user row per (user, version of their features); it holds the events that any of its
        # requests sees
        _, one_of, user_index = np.unique(user_row, return_index=True, return_inverse=True)
        cuts = store.ranges(user, time_ms)
        begin = np.full(len(one_of), np.iinfo(np.int64).max)
        end = np.zeros(len(one_of), dtype=np.int64)
        np.minimum.at(begin, user_index, cuts[:, 0])
        np.maximum.at(end, user_index, cuts[:, 2])
        lengths = end - begin
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        history_ranges = cuts + (offsets[:-1] - begin)[user_index][:, None]
        events = ranges(begin, lengths)

        item_row = self.item_row[rows]
        distinct, index = _distinct(
            np.concatenate([item_row, store.item_row.take(events)]), data.item_rows
        )
        labels = self.labels[rows]
        event_ids = store.ids.take(events, axis=0)

        blocks = {
            "user": data.users.take(user_row[one_of]),
            "context": self._context.take(requests),
            "item": data.items.take(distinct),
            "cross": self._cross.take(rows),
        }
        if data.schema.history.counts:
            actions = number_of_actions(len(data.spec.context.numbers_of(HISTORY_COUNTS)))
            blocks["context"] = blocks["context"].with_numbers(
                history_counts(history_ranges, event_ids[:, 0], actions)
            )
        if replacement is not None and replacement.rate > 0:
            draw = np.random.default_rng(replacement.seed)
            blocks = {
                n: _replace(b, getattr(data.spec, n), data.spec, replacement.rate, draw)
                for n, b in blocks.items()
            }
            event_ids = _replace_ids(
                event_ids, data.spec.event.tables, data.spec, replacement.rate, draw
            )
        return RequestBatch(
            users=to_columns(blocks["user"]),
            event_offsets=_tensor(offsets),
            event_item=_tensor(index[len(rows) :]),
            event_time_ms=_tensor(store.time_ms.take(events)),
            event_ids=_tensor(event_ids),
            user_index=_tensor(user_index),
            request_time_ms=_tensor(time_ms),
            context=to_columns(blocks["context"]),
            history_ranges=_tensor(history_ranges),
            request_index=_tensor(np.repeat(np.arange(len(requests), dtype=np.int64), counts)),
            item_index=_tensor(index[: len(rows)]),
            cross=to_columns(blocks["cross"]),
            bias=_tensor(self.bias[rows]),
            items=to_columns(blocks["item"]),
            labels=torch.from_numpy((labels == 1).astype(np.float32)),
            weights=torch.from_numpy((labels >= 0) * self.weight[rows][:, None]),
            impression_index=_tensor(rows),
        )


def _distinct(values: Array, upper: int) -> tuple[Array, Array]:
    """The sorted distinct values and each value's position among them; ``upper`` bounds the
    values.
    """
    if upper > 8 * len(values) + 1024:
        distinct, index = np.unique(values, return_inverse=True)
        return distinct.astype(np.int64), index.astype(np.int64)
    present = np.zeros(upper, dtype=bool)
    present[values] = True
    distinct = np.flatnonzero(present)
    position = np.empty(upper, dtype=np.int64)
    position[distinct] = np.arange(len(distinct))
    return distinct, position.take(values)


def _replace(
    block: Block, level: LevelSpec, spec: InputSpec, rate: float, draw: np.random.Generator
) -> Block:
    jagged = tuple(
        (_replace_ids(values[:, None], (table,), spec, rate, draw)[:, 0], offsets)
        for (values, offsets), table in zip(block.jagged, level.jagged_tables, strict=True)
    )
    return Block(
        ids=_replace_ids(block.ids, level.tables, spec, rate, draw),
        numbers=block.numbers,
        jagged=jagged,
    )


def _replace_ids(
    ids: Array, tables: tuple[str, ...], spec: InputSpec, rate: float, draw: np.random.Generator
) -> Array:
    """``ids`` [rows, columns] with known ones replaced at random; only a vocabulary has an unknown
    row that data can reach.
    """
    hit = draw.random(ids.shape, dtype=np.float32) < rate
    hit &= np.array([table in spec.vocabularies for table in tables], dtype=bool)
    return np.where(hit & (ids > MISSING), UNKNOWN, ids)


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64))


def to_columns(block: Block) -> Columns:
    """A block's arrays as a RequestBatch's tensors."""
    return Columns(
        ids=_tensor(block.ids),
        numbers=torch.from_numpy(np.ascontiguousarray(block.numbers, dtype=np.float32)),
        jagged=tuple(
            Jagged(values=_tensor(values), offsets=_tensor(offsets))
            for values, offsets in block.jagged
        ),
    )


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
                "prepare"
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
                raise DataError(f"{path}: missing from the dataset folder")
            if file_hash(path) != entry["xxh64"]:
                raise DataError(f"{path}: damaged: its hash is not the one in manifest.json")

    @property
    def item_rows(self) -> int:
        """How many item versions there are, the unknown item included."""
        return len(self.items.ids)

    def split(self, name: str) -> Split:
        """One of train, valid, test."""
        if name not in SPLITS:
            raise UsageError(f"--split {name}: expected one of {', '.join(SPLITS)}")
        return Split(self, name)
