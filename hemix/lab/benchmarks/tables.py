"""`hemix bench tables`: look-up, backward pass and update of large embedding tables.

Every side gets the same first weights, ids and gradients, steps in a process of its own, and has to
give the same vectors in the end. ``dense`` is PyTorch by default, one nn.EmbeddingBag a field whose
gradient is as large as the table; ``bags`` is the best that PyTorch offers ready-made, the same
with sparse gradients; ``tables`` is :class:`~hemix.nn.embedding.Tables` with our own row
optimisers, ``fused`` the same with FBGEMM's update.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hemix.errors import HemixError
from hemix.measure import PeakMemory, keep_freed_memory, machine
from hemix.nn.embedding import LookUp, Tables
from hemix.training import fbgemm
from hemix.training.table_optimizers import build_table_optimizer

__all__ = ["TOLERANCE", "run"]

TOLERANCE = 1e-4
"""Largest difference of the vectors that still counts as rounding; they are about 1."""

_RATE, _EPSILON = 0.01, 1e-8
_BATCHES = 3
_CASES = (
    ("fbgemm against our tables", "rowwise_adagrad", "fused", "tables"),
    ("fbgemm against embedding bags", "rowwise_adagrad", "fused", "bags"),
    ("fbgemm against dense gradients", "rowwise_adagrad", "fused", "dense"),
    ("our tables against embedding bags", "rowwise_adagrad", "tables", "bags"),
    ("our tables against embedding bags, adam", "adam", "tables", "bags"),
)


@dataclass(frozen=True, kw_only=True)
class _Load:
    """What a side does."""

    side: str
    optimizer: str
    fields: int
    rows: int
    width: int
    impressions: int
    ids_per_field: int
    steps: int
    threads: int


def run(*, scale: float = 1.0, steps: int = 7, rounds: int = 2, threads: int = 0) -> dict[str, Any]:
    """26 fields of ``scale`` x 200,000 rows of 64, 2,048 impressions with 4 ids a field: the median
    step of ``rounds`` processes a side, taken in turns, ``steps`` each after as many as there are
    batches to warm up.

    ``*_cpu_seconds`` add up what all threads worked: on a shared machine they vary less than the
    seconds that passed. Without FBGEMM only our tables are compared. Raises HemixError when two
    sides' vectors differ by more than :data:`TOLERANCE`.
    """
    threads = threads or torch.get_num_threads()
    size = dict(
        fields=26,
        rows=max(int(200_000 * scale), 100),
        width=64,
        impressions=max(int(2048 * min(scale, 1)), 16),
    )
    cases = [case for case in _CASES if "fused" not in case or fbgemm.installed()]
    sides = dict.fromkeys((side, optimizer) for _, optimizer, *both in cases for side in both)
    found: dict[tuple[str, str], dict[str, Any]] = {
        key: {"seconds": [], "cpu_seconds": [], "peak_bytes": 0} for key in sides
    }
    with tempfile.TemporaryDirectory(prefix="hemix-bench-") as folder:
        for _ in range(rounds):
            for side, optimizer in sides:
                load = _Load(
                    side=side,
                    optimizer=optimizer,
                    ids_per_field=4,
                    steps=steps,
                    threads=threads,
                    **size,
                )
                path = Path(folder) / f"{side}-{optimizer}.npy"
                result, kept = _in_its_own_process(load, path), found[side, optimizer]
                kept["seconds"] += result["seconds"]
                kept["cpu_seconds"] += result["cpu_seconds"]
                kept["peak_bytes"] = max(kept["peak_bytes"], result["peak_bytes"])
                kept["path"] = path
        return {
            "cases": [_case(*case, found, size, threads) for case in cases],
            "machine": machine(),
        }


def _case(
    name: str,
    optimizer: str,
    ours: str,
    plain: str,
    found: dict[tuple[str, str], Any],
    size: dict[str, int],
    threads: int,
) -> dict[str, Any]:
    here, there = found[ours, optimizer], found[plain, optimizer]
    difference = float(np.abs(np.load(here["path"]) - np.load(there["path"])).max())
    if not difference <= TOLERANCE:
        raise HemixError(
            f"bench tables: {name}: vectors differ by {difference:.2e}, more than rounding "
            f"({TOLERANCE:.0e})"
        )
    ours_seconds, plain_seconds = (
        float(np.median(here["seconds"])),
        float(np.median(there["seconds"])),
    )
    return {
        "name": name,
        "optimizer": optimizer,
        "ours_seconds": round(ours_seconds, 5),
        "plain_seconds": round(plain_seconds, 5),
        "speedup": round(plain_seconds / ours_seconds, 2),
        "ours_cpu_seconds": round(float(np.median(here["cpu_seconds"])), 5),
        "plain_cpu_seconds": round(float(np.median(there["cpu_seconds"])), 5),
        "ours_peak_bytes": here["peak_bytes"],
        "plain_peak_bytes": there["peak_bytes"],
        "max_abs_difference": difference,
        "steps": len(here["seconds"]),
        **size,
        "ids_per_field": 4,
        "threads": threads,
    }


def _in_its_own_process(load: _Load, vectors: Path) -> dict[str, Any]:
    content = json.dumps(asdict(load))
    done = subprocess.run(
        [sys.executable, "-m", "hemix.lab.benchmarks.tables", content, str(vectors)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise HemixError(f"bench tables: {load.side} alone failed: {last}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


class _OurTables:
    """All fields in one weight."""

    def __init__(self, load: _Load, weight: Tensor) -> None:
        self.names = [f"field_{i}" for i in range(load.fields)]
        self.tables = Tables(dict.fromkeys(self.names, load.rows), load.width).train()
        with torch.no_grad():
            self.tables.weight.view(load.fields, load.rows, load.width).copy_(weight)
        self.optimizer = build_table_optimizer(
            load.optimizer, self.tables, "fbgemm" if load.side == "fused" else "torch"
        )

    def read(self, ids: Tensor, offsets: Tensor) -> list[Tensor]:
        return self.tables.look_up(
            [
                LookUp(tables=(n,), ids=i, offsets=offsets)
                for n, i in zip(self.names, ids, strict=True)
            ]
        )

    def update(self) -> None:
        self.optimizer.step(_RATE)


class _Bags:
    """An nn.EmbeddingBag a field, sparse or (side ``dense``) not; torch's SparseAdam, or row-wise
    Adagrad by hand on the gradients.
    """

    def __init__(self, load: _Load, weight: Tensor) -> None:
        self.bags = nn.ModuleList(
            nn.EmbeddingBag.from_pretrained(
                weight.clone(),
                freeze=False,
                mode="mean",
                sparse=load.side == "bags",
                include_last_offset=True,
            )
            for _ in range(load.fields)
        )
        self.sums = [torch.zeros(load.rows) for _ in range(load.fields)]
        self.adam: torch.optim.SparseAdam | None = None
        if load.optimizer == "adam":  # its epsilon stands before the bias correction
            self.adam = torch.optim.SparseAdam(
                list(self.bags.parameters()), lr=_RATE, eps=_EPSILON * 0.001**0.5
            )

    def read(self, ids: Tensor, offsets: Tensor) -> list[Tensor]:
        return [bag(i, offsets) for bag, i in zip(self.bags, ids, strict=True)]

    @torch.no_grad()
    def update(self) -> None:
        if self.adam is not None:
            self.adam.step()  # type: ignore[no-untyped-call]
            self.adam.zero_grad(set_to_none=True)
            return
        for parameter, total in zip(self.bags.parameters(), self.sums, strict=True):
            assert parameter.grad is not None
            if parameter.grad.is_sparse:
                sparse = parameter.grad.coalesce()
                rows, gradient = sparse.indices()[0], sparse.values()
                total.index_add_(0, rows, gradient.square().mean(1))
                scale = total.index_select(0, rows).sqrt_().add_(_EPSILON)
                parameter.index_add_(0, rows, gradient / scale.unsqueeze(1), alpha=-_RATE)
            else:
                total.add_(parameter.grad.square().mean(1))
                parameter.addcdiv_(
                    parameter.grad, total.sqrt().add_(_EPSILON).unsqueeze(1), value=-_RATE
                )
            parameter.grad = None


def _main(load: _Load, vectors: Path) -> None:
    """One side: step, print seconds and peak memory, save the vectors of the first batch after the
    warm-up.
    """
    keep_freed_memory()
    torch.set_num_threads(load.threads)
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(load.rows, load.width, generator=draw)
    shape = (load.fields, load.impressions * load.ids_per_field)
    offsets = torch.arange(load.impressions + 1) * load.ids_per_field
    batches = [torch.randint(0, load.rows, shape, generator=draw) for _ in range(_BATCHES)]
    gradients = torch.randn(load.fields, load.impressions, load.width, generator=draw).unbind(0)
    side = _Bags(load, weight) if load.side in ("bags", "dense") else _OurTables(load, weight)

    def step(ids: Tensor) -> tuple[float, float]:
        began, busy = time.perf_counter(), time.process_time()
        torch.autograd.backward(side.read(ids, offsets), list(gradients))
        side.update()
        return time.perf_counter() - began, time.process_time() - busy

    with PeakMemory(every_seconds=0.01) as memory:
        for ids in batches:
            step(ids)
        with torch.no_grad():
            np.save(vectors, torch.stack(side.read(batches[0], offsets)).numpy())
        seconds, cpu_seconds = zip(
            *(step(batches[i % _BATCHES]) for i in range(load.steps)), strict=True
        )
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_bytes": memory.bytes}))


if __name__ == "__main__":
    _main(_Load(**json.loads(sys.argv[1])), Path(sys.argv[2]))
