"""Steps of one implementation of embedding tables, in a process of ``hemix bench tables``.

``python -m hemix.lab.benchmarks.table_step IMPLEMENTATION OPTIMIZER WORKLOAD FILE`` prints times
and peak memory, and saves the vectors of the first batch after the warm-up to FILE.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from hemix.measure import PeakMemory, keep_freed_memory
from hemix.nn.embedding import EmbeddingTables, LookUp
from hemix.training.table_optimizers import build_table_optimizer

__all__ = ["Implementation", "TableWorkload", "build_tables", "measure_steps"]

_RATE, _EPSILON = 0.01, 1e-8
_BATCHES = 3

Implementation = Literal["fbgemm", "tables", "sparse_bags", "dense_bags"]
"""tables: hemix.nn.embedding with its own row optimisers; fbgemm: the same with FBGEMM's update;
bags: an nn.EmbeddingBag per field, with sparse or dense gradients
"""


@dataclass(frozen=True, kw_only=True)
class TableWorkload:
    """The size of the tables and batches."""

    fields: int
    rows: int
    """Rows of a field's table"""
    width: int
    impressions: int
    """Impressions of a batch"""
    ids_per_field: int
    steps: int
    """Measured steps"""
    threads: int


class _Implementation(Protocol):
    def look_up(self, ids: Tensor, offsets: Tensor) -> list[Tensor]:
        """Look up the vectors of all fields.

        Args:
            ids: int64 [fields, ids], rows of the fields' tables.
            offsets: int64 [impressions + 1], the same for every field.

        Returns:
            The mean vectors [impressions, width] of every field.
        """

    def update(self) -> None:
        """Apply the optimiser to the gradients."""


class _HemixTables:
    """The tables of hemix.nn.embedding, which hold all fields in one weight."""

    def __init__(
        self, implementation: Implementation, optimizer: str, load: TableWorkload, weight: Tensor
    ) -> None:
        self._names = [f"field_{i}" for i in range(load.fields)]
        self._tables = EmbeddingTables(dict.fromkeys(self._names, load.rows), load.width).train()
        with torch.no_grad():
            self._tables.weight.view(load.fields, load.rows, load.width).copy_(weight)
        backend = "fbgemm" if implementation == "fbgemm" else "torch"
        self._optimizer = build_table_optimizer(optimizer, self._tables, backend)

    def look_up(self, ids: Tensor, offsets: Tensor) -> list[Tensor]:
        return self._tables.look_up(
            [
                LookUp(tables=(name,), ids=field_ids, offsets=offsets)
                for name, field_ids in zip(self._names, ids, strict=True)
            ]
        )

    def update(self) -> None:
        self._optimizer.step(_RATE)


class _EmbeddingBags:
    """An nn.EmbeddingBag per field, with torch's SparseAdam or row-wise Adagrad."""

    def __init__(
        self, implementation: Implementation, optimizer: str, load: TableWorkload, weight: Tensor
    ) -> None:
        self._bags = nn.ModuleList(
            nn.EmbeddingBag.from_pretrained(
                weight.clone(),
                freeze=False,
                mode="mean",
                sparse=implementation == "sparse_bags",
                include_last_offset=True,
            )
            for _ in range(load.fields)
        )
        self._squares = [torch.zeros(load.rows) for _ in range(load.fields)]
        self._adam: torch.optim.SparseAdam | None = None
        if optimizer == "adam":
            # SparseAdam adds epsilon before the bias correction, our Adam after it
            self._adam = torch.optim.SparseAdam(
                list(self._bags.parameters()), lr=_RATE, eps=_EPSILON * 0.001**0.5
            )

    def look_up(self, ids: Tensor, offsets: Tensor) -> list[Tensor]:
        return [bag(field_ids, offsets) for bag, field_ids in zip(self._bags, ids, strict=True)]

    @torch.no_grad()
    def update(self) -> None:
        if self._adam is not None:
            self._adam.step()  # type: ignore[no-untyped-call]
            self._adam.zero_grad(set_to_none=True)
            return
        for parameter, squares in zip(self._bags.parameters(), self._squares, strict=True):
            _rowwise_adagrad(parameter, squares)


def _rowwise_adagrad(parameter: nn.Parameter, squares: Tensor) -> None:
    """Update a weight [rows, width] and its sums of squared gradients [rows]."""
    gradient = parameter.grad
    assert gradient is not None
    if gradient.is_sparse:
        sparse = gradient.coalesce()
        rows, values = sparse.indices()[0], sparse.values()
        squares.index_add_(0, rows, values.square().mean(1))
        scale = squares.index_select(0, rows).sqrt_().add_(_EPSILON)
        parameter.index_add_(0, rows, values / scale.unsqueeze(1), alpha=-_RATE)
    else:
        squares.add_(gradient.square().mean(1))
        scale = squares.sqrt().add_(_EPSILON).unsqueeze(1)
        parameter.addcdiv_(gradient, scale, value=-_RATE)
    parameter.grad = None


def build_tables(
    implementation: Implementation, optimizer: str, load: TableWorkload, weight: Tensor
) -> _Implementation:
    """Build an implementation.

    Args:
        implementation: Its name.
        optimizer: rowwise_adagrad or adam.
        load: The size of the tables.
        weight: float32 [rows, width], the first weights of every field.
    """
    if implementation in ("sparse_bags", "dense_bags"):
        return _EmbeddingBags(implementation, optimizer, load, weight)
    return _HemixTables(implementation, optimizer, load, weight)


def measure_steps(
    implementation: Implementation, optimizer: str, load: TableWorkload, vectors: Path
) -> dict[str, Any]:
    """Warm up, save the vectors of the first batch, and measure the steps.

    Args:
        implementation: The implementation's name.
        optimizer: rowwise_adagrad or adam.
        load: The size of tables and batches.
        vectors: The .npy file to write, float32 [fields, impressions, width].

    Returns:
        ``seconds`` and ``cpu_seconds`` of every step, and ``peak_bytes``.
    """
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(load.rows, load.width, generator=generator)
    shape = (load.fields, load.impressions * load.ids_per_field)
    offsets = torch.arange(load.impressions + 1) * load.ids_per_field
    batches = [torch.randint(0, load.rows, shape, generator=generator) for _ in range(_BATCHES)]
    gradients = list(
        torch.randn(load.fields, load.impressions, load.width, generator=generator).unbind(0)
    )
    tables = build_tables(implementation, optimizer, load, weight)

    def step(ids: Tensor) -> tuple[float, float]:
        start, cpu_start = time.perf_counter(), time.process_time()
        torch.autograd.backward(tables.look_up(ids, offsets), gradients)
        tables.update()
        return time.perf_counter() - start, time.process_time() - cpu_start

    with PeakMemory(every_seconds=0.01) as memory:
        for ids in batches:
            step(ids)
        with torch.no_grad():
            np.save(vectors, torch.stack(tables.look_up(batches[0], offsets)).numpy())
        times = [step(batches[i % _BATCHES]) for i in range(load.steps)]
    seconds, cpu_seconds = zip(*times, strict=True)
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_bytes": memory.bytes}


def _main(implementation: Implementation, optimizer: str, content: str, vectors: str) -> None:
    load = TableWorkload(**json.loads(content))
    keep_freed_memory()
    torch.set_num_threads(load.threads)
    print(json.dumps(measure_steps(implementation, optimizer, load, Path(vectors))))


if __name__ == "__main__":
    _main(*sys.argv[1:])  # type: ignore[arg-type]
