"""The processes of one run over torch.distributed: gloo between CPUs, NCCL between GPUs.

Nothing is pickled. Every method is collective unless it says otherwise: all processes call it in
the same order. Where another process has ended, the call raises
:class:`~hemix.errors.ProcessLost`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from hemix.errors import HemixError, ProcessLost, UsageError

__all__ = ["DistributedContext", "on_all_ranks", "on_rank_zero", "tree_reduce"]

Value = TypeVar("Value")

_TIMEOUT = timedelta(minutes=5)
"""Longest wait for the other processes: more than the slowest step"""
_READABLE_CHARACTERS = 40
"""Longest value that a message shows; a hash is longer"""


class DistributedContext:
    """This process's rank among the processes of a run, and their collective operations."""

    def __init__(
        self,
        rank: int,
        world_size: int,
        device: torch.device,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        """Describe processes that are connected already.

        Args:
            rank: Rank of this process.
            world_size: Number of processes.
            device: Where this process trains.
            group: The connections to use; None: those of the default group.
        """
        self.rank, self.world_size, self.device = rank, world_size, device
        self._group = group

    @classmethod
    def from_environment(
        cls, device: str, environment: Mapping[str, str] = os.environ
    ) -> DistributedContext | None:
        """Connect to the processes that torchrun's variables describe.

        Args:
            device: The value of ``train.device``.
            environment: Has RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT.

        Returns:
            The context; None where this is the only process.

        Raises:
            UsageError: If RANK or WORLD_SIZE is no number.
            ProcessLost: If the others do not connect in time.
        """
        try:
            rank = int(environment.get("RANK", "0"))
            world_size = int(environment.get("WORLD_SIZE", "1"))
        except ValueError as error:
            raise UsageError(
                f"RANK and WORLD_SIZE: expected numbers, as torchrun sets them: {error}"
            ) from error
        if world_size <= 1:
            return None
        local_device = torch.device(device)
        if device == "cuda":
            local_device = torch.device("cuda", int(environment.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(local_device)
        with _lost_processes():
            dist.init_process_group(
                "nccl" if local_device.type == "cuda" else "gloo",
                rank=rank,
                world_size=world_size,
                timeout=_TIMEOUT,
            )
        return cls(rank, world_size, local_device)

    def background_group(self) -> DistributedContext:
        """Connect the same processes a second time, for a background thread.

        Its tensors lie in the CPU's memory.
        """
        with _lost_processes():
            group = dist.new_group(backend="gloo", timeout=_TIMEOUT)
        return DistributedContext(self.rank, self.world_size, torch.device("cpu"), group)

    @property
    def is_rank_zero(self) -> bool:
        """Whether this process writes the files and calls the callback. Not collective."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for all processes, so that none closes its connections while others need them."""
        with _lost_processes():
            dist.barrier(self._group)

    def close(self) -> None:
        """Close the connections. Not collective."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes, added in a binary tree over the ranks.

        Each process adds up one piece of the tensor, so that the sum does not depend on how the
        processes are connected.
        """
        flat = tensor.flatten()
        bounds = [rank * len(flat) // self.world_size for rank in range(self.world_size + 1)]
        counts = [end - begin for begin, end in itertools.pairwise(bounds)]
        received, _ = self.all_to_all(flat, counts)
        by_rank = received.view(self.world_size, counts[self.rank])
        own_piece = tree_reduce(by_rank.__getitem__, torch.add, 0, self.world_size)
        return torch.cat(self.all_gather(own_piece)).view_as(tensor)

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process."""
        count = torch.tensor(int(flag), device=self.device)
        with _lost_processes():
            dist.all_reduce(count, group=self._group)
        return bool(count > 0)

    def all_gather(self, rows: Tensor) -> list[Tensor]:
        """Return the rows of every process, by rank.

        Args:
            rows: [n, ...]; n may differ between processes.
        """
        counts = [
            torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(self.world_size)
        ]
        with _lost_processes():
            own_count = torch.tensor([rows.shape[0]], device=rows.device)
            dist.all_gather(counts, own_count, group=self._group)
            longest = max(int(count) for count in counts)
            padded = rows.new_zeros(longest, *rows.shape[1:])
            padded[: rows.shape[0]] = rows
            received = [torch.empty_like(padded) for _ in range(self.world_size)]
            dist.all_gather(received, padded, group=self._group)
        return [
            padded_rows[: int(count)] for padded_rows, count in zip(received, counts, strict=True)
        ]

    def all_to_all(self, rows: Tensor, send_counts: Sequence[int]) -> tuple[Tensor, list[int]]:
        """Exchange rows: each process sends some to every process.

        Args:
            rows: [n, ...], those for rank 0 first, then those for rank 1, and so on.
            send_counts: Number of rows for each rank.

        Returns:
            The received rows [m, ...], by rank, and the number from each rank.
        """
        sent = torch.tensor(list(send_counts), dtype=torch.int64, device=rows.device)
        received = torch.empty_like(sent)
        with _lost_processes():
            dist.all_to_all_single(received, sent, group=self._group)
            recv_counts = [int(count) for count in received]
            received_rows = rows.new_empty(sum(recv_counts), *rows.shape[1:])
            dist.all_to_all_single(
                received_rows,
                rows.contiguous(),
                recv_counts,
                list(send_counts),
                group=self._group,
            )
        return received_rows, recv_counts

    def all_gather_bytes(self, content: bytes) -> list[bytes]:
        """Return the bytes of every process, by rank; each has at least one byte."""
        own = torch.frombuffer(bytearray(content), dtype=torch.uint8).to(self.device)
        return [received.cpu().numpy().tobytes() for received in self.all_gather(own)]

    def assert_equal_across_ranks(self, facts: Mapping[str, Mapping[str, Any]]) -> None:
        """Check that all processes have the same values.

        Args:
            facts: JSON values by name and by kind, such as
                ``{"settings": {"train.seed": 0}}``.

        Raises:
            UsageError: In every process, naming the first value that differs and the ranks.
        """
        own = json.dumps(facts, sort_keys=True).encode()
        if len(set(self.all_gather_bytes(hashlib.sha256(own).digest()))) == 1:
            return
        by_rank = [json.loads(text) for text in self.all_gather_bytes(own)]
        for kind in facts:
            expected = by_rank[0][kind]
            ranks = [rank for rank, content in enumerate(by_rank) if content[kind] != expected]
            if ranks:
                actual = by_rank[ranks[0]][kind]
                names = [*expected, *actual]
                name = next(name for name in names if expected.get(name) != actual.get(name))
                difference = _difference(actual.get(name), expected.get(name))
                raise UsageError(
                    f"process {', '.join(map(str, ranks))} of {self.world_size} has other {kind} "
                    f"than process 0: {name} {difference}",
                    hint="start all with the same",
                )

    def on_all_ranks(self, work: Callable[[], None], description: str) -> None:
        """Do ``work`` in every process before any continues.

        Args:
            work: What to do.
            description: The work in words that follow "could not".

        Raises:
            Exception: The error of ``work`` in the process where it failed.
            HemixError: The same error in the other processes.
        """
        failure: Exception | None = None
        try:
            work()
        except Exception as error:  # raised below, after the other processes know
            failure = error
        if not self.any(failure is not None):
            return
        text = b"-" if failure is None else (str(failure) or type(failure).__name__).encode()
        texts = self.all_gather_bytes(text)
        if failure is not None:
            raise failure
        rank = next(rank for rank, received in enumerate(texts) if received != b"-")
        raise HemixError(
            f"process {rank} of {self.world_size} could not {description}: {texts[rank].decode()}"
        )


def tree_reduce(
    value: Callable[[int], Value], add: Callable[[Value, Value], Value], first: int, last: int
) -> Value:
    """Add up values in a balanced binary tree, those with lower numbers on the left.

    The halves of a range are added up alike wherever they are, so a process may add up one half and
    another process the other.

    Args:
        value: Returns a value by its number; called in ascending order.
        add: Adds two values.
        first: Number of the first value.
        last: One past the last.
    """
    if last - first == 1:
        return value(first)
    middle = (first + last) // 2
    left = tree_reduce(value, add, first, middle)
    return add(left, tree_reduce(value, add, middle, last))


def on_all_ranks(
    distributed: DistributedContext | None, work: Callable[[], None], description: str
) -> None:
    """Do ``work`` in every process before any continues.

    Args:
        distributed: The processes; None: this one alone.
        work: What to do.
        description: The work in words, for the error of the other processes.
    """
    if distributed is None:
        work()
    else:
        distributed.on_all_ranks(work, description)


def on_rank_zero(
    distributed: DistributedContext | None, work: Callable[[], None], description: str
) -> None:
    """Do ``work`` in the process of rank 0 before any continues.

    Args:
        distributed: The processes; None: this one alone.
        work: What to do.
        description: The work in words, for the error of the other processes.
    """
    is_rank_zero = distributed is None or distributed.is_rank_zero
    on_all_ranks(distributed, work if is_rank_zero else lambda: None, description)


def _difference(actual: Any, expected: Any) -> str:
    """Describe how two JSON values differ; long ones are not shown."""
    texts = json.dumps(actual), json.dumps(expected)
    is_readable = max(map(len, texts)) <= _READABLE_CHARACTERS
    return f"is {texts[0]}, not {texts[1]}" if is_readable else "differs"


@contextmanager
def _lost_processes() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise ProcessLost(
            "another process of this run has ended or does not answer: "
            f"{str(error).splitlines()[0]}"
        ) from error
