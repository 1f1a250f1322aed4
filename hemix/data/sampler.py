"""Which requests each step of an epoch holds.

A step has M slots (``train.gradient_accumulation``). Slot m owns the partitions m, m + M, ..., so a
process reads the partitions of its own slots alone. All slots have the same number of steps, and
every request comes once an epoch. What a slot holds in a step is a function of (epoch, step, slot):
nothing else has to be saved to continue a run.

A sampler of another kind, such as one whose batches hold whole users for a ranking loss, or one
that deals partitions to slots by their cost, implements :class:`Sampler`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from hemix.data.jagged_array import offsets_of, range_positions
from hemix.data.partition import PartitionSplit
from hemix.data.split import Split

__all__ = [
    "Order",
    "RequestSampler",
    "Sampler",
    "SequentialSampler",
    "TimeSampler",
    "UserSampler",
    "make_sampler",
]

Int64Array = npt.NDArray[np.int64]
Order = Literal["requests", "users", "time"]

_GROUP = 8
"""Partitions whose requests are mixed in a step, at most"""
_OF_GROUPS = 1
"""Last word of the seed of the order of groups; orders of requests have none, which means 0"""


class Sampler(Protocol):
    """The requests of every batch."""

    @property
    def steps(self) -> int:
        """Steps of an epoch, the same for every slot and epoch."""
        ...

    def requests(self, epoch: int, step: int, slot: int) -> Int64Array:
        """Return the requests of one slot in one step; may be none.

        Args:
            epoch: Number of the pass over the data.
            step: Number of the step in the epoch.
            slot: Number of the slot.

        Returns:
            int64 [q], positions in the split.
        """
        ...


class SequentialSampler:
    """All requests in the order in which they are stored, in one slot."""

    def __init__(self, split: Split, batch_size: int) -> None:
        """Divide the requests into batches.

        Args:
            split: The split.
            batch_size: Impressions of a batch, about: a request belongs to the batch in which its
                first impression falls.
        """
        self._split, self._batch_size = split, batch_size

    @property
    def steps(self) -> int:
        """Batches, at least one."""
        return max(1, -(-self._split.impressions // self._batch_size))

    def requests(self, epoch: int, step: int, slot: int) -> Int64Array:  # noqa: ARG002
        """Return the requests of a batch; every epoch is the same."""
        first, last = (self._begin(at * self._batch_size) for at in (step, step + 1))
        return np.arange(first, last)

    def _begin(self, impression: int) -> int:
        """How many requests begin before an impression."""
        split, first = self._split, self._split.impression_numbers.first
        if impression >= split.impressions:
            return split.requests
        place = int(np.searchsorted(first, impression, side="right")) - 1
        firsts = split.partition(place).first_candidate[:-1]
        before = int(np.searchsorted(firsts, impression - first[place]))
        return int(split.request_numbers.first[place]) + before


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Partitions whose requests are mixed."""

    places: tuple[int, ...]
    first: int
    """Impressions of the slot before the group's"""
    impressions: int


@dataclass(frozen=True, kw_only=True)
class _Steps:
    """The requests of some partitions in their order, and the step of each."""

    requests: Int64Array
    """int64 [q]"""
    step: Int64Array
    """int64 [q], ascending"""

    def of(self, step: int) -> Int64Array:
        """Return the requests of a step."""
        first, last = np.searchsorted(self.step, [step, step + 1])
        return self.requests[first:last]


class _SlotSampler:
    """What the samplers with slots have in common."""

    def __init__(self, split: Split, *, batch_size: int, slots: int, seed: int) -> None:
        """Count the steps.

        Args:
            split: The split.
            batch_size: Impressions of a step, about, over all slots.
            slots: M.
            seed: Of the run.
        """
        self._split, self._slots, self._seed = split, slots, seed
        totals = split.data.manifest["splits"][split.name]
        self._step_count: int = max(1, min(-(-totals["rows"] // batch_size), totals["requests"]))

    @property
    def steps(self) -> int:
        """Steps of an epoch: as many as batches fit, and none without a request if it can be."""
        return self._step_count

    def _places(self, slot: int) -> list[int]:
        """Return the places of a slot's partitions."""
        numbers = self._split.data.partitions
        return [place for place, number in enumerate(numbers) if number % self._slots == slot]

    def _impressions(self, places: Sequence[int]) -> int:
        return int(np.diff(self._split.impression_numbers.first)[list(places)].sum())


class _GroupSampler(_SlotSampler, ABC):
    """Steps that draw from groups of partitions.

    A slot's partitions are dealt into groups of at most eight, in an order by (seed, epoch, slot).
    The slot's steps go to the groups by their impressions. In each of its steps a group gives the
    next requests of every one of its partitions, as many as the partition's part of the group (a
    stratified draw). So no step needs an order of all requests.
    """

    def __init__(self, split: Split, *, batch_size: int, slots: int = 1, seed: int = 0) -> None:
        """See :class:`_SlotSampler`."""
        super().__init__(split, batch_size=batch_size, slots=slots, seed=seed)
        # a step touches two groups of every slot at most, but for groups smaller than a step
        self._steps_of = lru_cache(maxsize=3 * _GROUP * slots)(self._find_steps)
        self._groups = lru_cache(maxsize=2 * slots)(self._find_groups)

    def requests(self, epoch: int, step: int, slot: int) -> Int64Array:
        """Return the requests of one slot in one step, partition by partition."""
        groups = self._groups(epoch, slot)
        total = groups[-1].first + groups[-1].impressions
        pieces = [
            self._split.request_numbers.first[place]
            + self._steps_of(epoch, place, group, total).of(step)
            for group in groups
            if self._touches(group, step, total)
            for place in group.places
        ]
        return np.sort(np.concatenate(pieces)) if pieces else np.zeros(0, dtype=np.int64)

    def _touches(self, group: _Group, step: int, total: int) -> bool:
        """Whether some impression of a group may be in a step."""
        first, last = group.first, group.first + group.impressions - 1
        return (
            group.impressions > 0
            and first * self.steps // total <= step <= last * self.steps // total
        )

    def _find_groups(self, epoch: int, slot: int) -> list[_Group]:
        """Deal a slot's partitions into groups, at least one."""
        places = np.array(self._places(slot), dtype=np.int64)
        rng = np.random.default_rng([self._seed, epoch, slot, _OF_GROUPS])
        dealt = np.array_split(rng.permutation(places), max(1, -(-len(places) // _GROUP)))
        groups, first = list[_Group](), 0
        for of_group in dealt:
            impressions = self._impressions(of_group.tolist())
            groups.append(
                _Group(places=tuple(of_group.tolist()), first=first, impressions=impressions)
            )
            first += impressions
        return groups

    def _find_steps(self, epoch: int, place: int, group: _Group, total: int) -> _Steps:
        """Order a partition's requests and divide them into steps.

        Args:
            epoch: Number of the pass.
            place: The partition.
            group: Its group.
            total: Impressions of the slot.
        """
        split, number = self._split.partition(place), self._split.data.partitions[place]
        order = self._order(split, np.random.default_rng([self._seed, epoch, number]))
        before = offsets_of(np.diff(split.first_candidate)[order])
        # the impressions of the group that come before a request, as if all came evenly
        in_group = before[:-1] * group.impressions // max(int(before[-1]), 1)
        return _Steps(requests=order, step=(group.first + in_group) * self.steps // total)

    @abstractmethod
    def _order(self, split: PartitionSplit, rng: np.random.Generator) -> Int64Array:
        """Return the order of a partition's requests, int64 [q]."""


class RequestSampler(_GroupSampler):
    """Requests in a random order."""

    def _order(self, split: PartitionSplit, rng: np.random.Generator) -> Int64Array:
        return rng.permutation(len(split.user))


class UserSampler(_GroupSampler):
    """Users in a random order, each with all requests in time."""

    def _order(self, split: PartitionSplit, rng: np.random.Generator) -> Int64Array:
        begin = np.flatnonzero(np.diff(split.user, prepend=-1))
        requests = np.diff(begin, append=len(split.user))
        users = rng.permutation(len(begin))
        return range_positions(begin[users], requests[users])


class TimeSampler(_SlotSampler):
    """Requests in the order of their time, in every slot.

    It keeps 24 bytes a request of its slots in memory, and a step may read all their partitions.
    """

    def __init__(self, split: Split, *, batch_size: int, slots: int = 1, seed: int = 0) -> None:
        """See :class:`_SlotSampler`; nothing is random."""
        super().__init__(split, batch_size=batch_size, slots=slots, seed=seed)
        self._steps_of = lru_cache(maxsize=slots)(self._find_steps)

    def requests(self, epoch: int, step: int, slot: int) -> Int64Array:  # noqa: ARG002
        """Return the requests of one slot in one step."""
        return self._steps_of(slot).of(step)

    def _find_steps(self, slot: int) -> _Steps:
        places = self._places(slot)
        if not places:
            return _Steps(requests=np.zeros(0, np.int64), step=np.zeros(0, np.int64))
        splits = [self._split.partition(place) for place in places]
        firsts = self._split.request_numbers.first[places]
        requests = range_positions(firsts, np.array([len(split.user) for split in splits]))
        order = np.argsort(np.concatenate([split.time_ms for split in splits]), kind="stable")
        sizes = np.concatenate([np.diff(split.first_candidate) for split in splits])[order]
        before = offsets_of(sizes)
        step = before[:-1] * self.steps // max(int(before[-1]), 1)
        return _Steps(requests=requests[order], step=step)


def make_sampler(
    order: Order, split: Split, *, batch_size: int, slots: int = 1, seed: int = 0
) -> Sampler:
    """Make the sampler of an order.

    Args:
        order: The value of ``train.shuffle``.
        split: The split.
        batch_size: Impressions of a step, about, over all slots.
        slots: Slots of a step.
        seed: Of the run.
    """
    samplers: dict[Order, type[RequestSampler | UserSampler | TimeSampler]] = {
        "requests": RequestSampler,
        "users": UserSampler,
        "time": TimeSampler,
    }
    return samplers[order](split, batch_size=batch_size, slots=slots, seed=seed)
