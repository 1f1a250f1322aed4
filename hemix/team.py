"""The processes of one run: who is there, and what they tell each other. gloo between CPUs, NCCL
between GPUs; nothing is pickled.

Every method but the properties is collective: all processes call it, in the same order. A process
that is gone ends the others' call with a :class:`~hemix.errors.ProcessLost`. Knows nothing of
models or data.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from hemix.errors import HemixError, ProcessLost, UsageError

__all__ = ["Team"]

_TIMEOUT = timedelta(minutes=5)
"""How long a process waits for the others: longer than the slowest step, shorter than a night"""
_READABLE = 40
"""Letters of a value that a message shows; a hash is longer"""


class Team:
    """The processes of a run, this one among them."""

    def __init__(
        self, rank: int, size: int, device: torch.device, group: dist.ProcessGroup | None = None
    ) -> None:
        """``group``: who talks to each other over which connections; by default all, over the first
        ones.
        """
        self.rank, self.size, self.device = rank, size, device
        self._group = group

    @classmethod
    def joined(cls, device: str, environment: Mapping[str, str] = os.environ) -> Team | None:
        """The team that torchrun's variables tell of (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT),
        joined; None where this process is alone. Raises UsageError for variables that make no
        sense, ProcessLost where the others do not come.
        """
        try:
            rank, size = int(environment.get("RANK", "0")), int(environment.get("WORLD_SIZE", "1"))
        except ValueError as error:
            raise UsageError(
                f"RANK and WORLD_SIZE: expected numbers, as torchrun sets them: {error}"
            ) from error
        if size <= 1:
            return None
        here = torch.device(device)
        if device == "cuda":
            here = torch.device("cuda", int(environment.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(here)
        with _lost_processes():
            dist.init_process_group(
                "nccl" if here.type == "cuda" else "gloo",
                rank=rank,
                world_size=size,
                timeout=_TIMEOUT,
            )
        return cls(rank, size, here)

    def beside(self) -> Team:
        """The same processes with connections of their own, for a thread beside the first; tensors
        in the host's memory.
        """
        with _lost_processes():
            group = dist.new_group(backend="gloo", timeout=_TIMEOUT)
        return Team(self.rank, self.size, torch.device("cpu"), group)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all processes are here: before a work ends, so that none closes its connections
        while others still listen.
        """
        with _lost_processes():
            dist.barrier(self._group)

    def leave(self) -> None:
        """Not collective: say good-bye."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        with _lost_processes():
            dist.all_reduce(tensor, group=self._group)
        return tensor

    def any(self, here: bool) -> bool:
        """Whether it holds in any process."""
        return bool(self.sum(torch.tensor(int(here), device=self.device)) > 0)

    def gathered(self, rows: Tensor) -> list[Tensor]:
        """Every process's rows [n of its own, ...], by rank."""
        counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(self.size)]
        with _lost_processes():
            dist.all_gather(
                counts, torch.tensor([rows.shape[0]], device=rows.device), group=self._group
            )
            most = max(int(count) for count in counts)
            padded = rows.new_zeros(most, *rows.shape[1:])
            padded[: rows.shape[0]] = rows
            found = [torch.empty_like(padded) for _ in range(self.size)]
            dist.all_gather(found, padded, group=self._group)
        return [all_rows[: int(count)] for all_rows, count in zip(found, counts, strict=True)]

    def exchanged(self, rows: Tensor, counts: Sequence[int]) -> tuple[Tensor, list[int]]:
        """(rows [m, ...] from every process, by rank; how many from each), where the first
        ``counts[0]`` of ``rows`` [n, ...] go to process 0, the next to process 1, and so on.
        """
        told = torch.tensor(list(counts), dtype=torch.int64, device=rows.device)
        heard = torch.empty_like(told)
        with _lost_processes():
            dist.all_to_all_single(heard, told, group=self._group)
            incoming = [int(count) for count in heard]
            found = rows.new_empty(sum(incoming), *rows.shape[1:])
            dist.all_to_all_single(
                found, rows.contiguous(), incoming, list(counts), group=self._group
            )
        return found, incoming

    def gathered_bytes(self, own: bytes) -> list[bytes]:
        """Every process's bytes, at least one each, by rank."""
        found = self.gathered(torch.frombuffer(bytearray(own), dtype=torch.uint8).to(self.device))
        return [theirs.cpu().numpy().tobytes() for theirs in found]

    def same(self, facts: Mapping[str, Mapping[str, Any]]) -> None:
        """Raises UsageError naming the first of ``facts`` that differs between processes, and in
        which; JSON values by name, by what they are facts of, such as ``{"settings": {"train.seed":
        0}}``.
        """
        own = json.dumps(facts, sort_keys=True).encode()
        if len(set(self.gathered_bytes(hashlib.sha256(own).digest()))) == 1:
            return
        told = [json.loads(text) for text in self.gathered_bytes(own)]
        for kind in facts:
            first = told[0][kind]
            others = [rank for rank, theirs in enumerate(told) if theirs[kind] != first]
            if others:
                theirs = told[others[0]][kind]
                name = next(
                    name for name in [*first, *theirs] if first.get(name) != theirs.get(name)
                )
                ranks = ", ".join(map(str, others))
                raise UsageError(
                    f"process {ranks} of {self.size} has other {kind} than process 0: {name} "
                    f"{_difference(theirs.get(name), first.get(name))}; start all with the same"
                )

    def together(self, work: Callable[[], None], what: str) -> None:
        """Do ``work`` in every process; where it fails in one, that one raises its error and the
        others a HemixError saying it too.
        """
        failure: Exception | None = None
        try:
            work()
        except Exception as error:  # told to the others first, then raised
            failure = error
        if not self.any(failure is not None):
            return
        told = self.gathered_bytes(
            b"-" if failure is None else (str(failure) or type(failure).__name__).encode()
        )
        if failure is not None:
            raise failure
        rank = next(rank for rank, text in enumerate(told) if text != b"-")
        raise HemixError(f"process {rank} of {self.size} could not {what}: {told[rank].decode()}")


def _difference(theirs: Any, ours: Any) -> str:
    """Two JSON values, where a person can read them."""
    both = json.dumps(theirs), json.dumps(ours)
    return f"is {both[0]}, not {both[1]}" if max(map(len, both)) <= _READABLE else "differs"


@contextmanager
def _lost_processes() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise ProcessLost(
            "another process of this run has ended or does not answer: "
            f"{str(error).splitlines()[0]}"
        ) from error
