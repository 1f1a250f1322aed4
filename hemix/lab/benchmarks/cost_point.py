"""One point of ``hemix bench costs``: training steps in one or several processes.

``python -m hemix.lab.benchmarks.cost_point JSON`` finds the other processes by the environment
variables of torch.distributed, and prints the figures.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hemix.data.batch import RequestBatch
from hemix.data.columns import Columns
from hemix.data.spec import InputSpec, LevelSpec
from hemix.distributed import DistributedContext
from hemix.lab.benchmarks.workload import SPEC, Workload, make_batch
from hemix.lab.flops import flop_counter
from hemix.measure import PeakMemory, keep_freed_memory
from hemix.models import SizedConfig, build_model, count_parameters
from hemix.settings import build_settings
from hemix.training.optimizers import Optimizers

__all__ = ["Point", "measure_point"]

_ID_BYTES, _FLOAT_BYTES = 8, 4
_WARM_UP_STEPS = 2
_STEPS = 1000
"""Of the run that a timed step would belong to"""


@dataclass(frozen=True, kw_only=True)
class Point:
    """The shape of a training step."""

    name: str
    load: Workload
    item_rows: int = 100_000
    """Rows of the item table"""
    size: str = "tiny"
    processes: int = 1
    held_out: bool = False
    """Predicted, but not fitted"""


def measure_point(
    point: Point, distributed: DistributedContext | None, repeats: int = 5
) -> dict[str, Any]:
    """Run training steps of one point.

    Args:
        point: The shape.
        distributed: The processes that share the step; None: this process alone.
        repeats: Timed steps, after two to warm up.

    Returns:
        Counts and costs; of several processes, the largest of each.
    """
    keep_freed_memory()
    torch.set_num_threads(1)
    spec = dataclasses.replace(SPEC, tables={**SPEC.tables, "item_id": point.item_rows})
    settings = build_settings(size=point.size).resolved(_STEPS * point.load.impressions)
    config = settings.model
    assert isinstance(config, SizedConfig)
    batch = make_batch(point.load)
    with PeakMemory(every_seconds=0.01) as memory:
        model = build_model(spec, config, seed=0, distributed=distributed).train()
        optimizers = Optimizers(model, settings.train, total_steps=_STEPS, distributed=distributed)
        if distributed is not None:
            loss_weight = model.loss_weight(batch)
            microbatch, _ = batch.microbatch(distributed.rank, distributed.world_size)
            batch = dataclasses.replace(microbatch, loss_weight=loss_weight)

        def step(number: int) -> None:
            model.training_loss(batch).backward()  # type: ignore[no-untyped-call]
            optimizers.step(number)

        step(0)
        with flop_counter() as counter:
            step(1)
        numbers = range(_WARM_UP_STEPS, _WARM_UP_STEPS + repeats)
        seconds = [_seconds(partial(step, number)) for number in numbers]
    dense, _ = count_parameters(spec, config)
    figures = {
        **_counts(batch, spec, config.token_width),
        "table_rows": model.tables.weight.shape[0],
        "moved_bytes": _moved_bytes(batch, spec, config.embedding_size, dense, point.processes),
        "flops": counter.get_total_flops(),
        "seconds": statistics.median(seconds),
        "peak_bytes": memory.bytes,
    }
    if distributed is not None:
        figures = _largest_of_processes(figures, distributed)
    return {
        "name": point.name,
        "size": point.size,
        "processes": point.processes,
        "others": point.processes - 1,
        "held_out": point.held_out,
        "users": point.load.users,
        "history_length": point.load.history_length,
        "dense_parameters": dense,
        **figures,
    }


def _seconds(run: Callable[[], None]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _counts(batch: RequestBatch, spec: InputSpec, token_width: int) -> dict[str, float]:
    """Count impressions, embedding vectors, and the elements of event vectors."""
    events = batch.event_item.shape[0]
    vectors = sum(columns.ids.numel() for _, columns in _levels(batch, spec))
    return {
        "impressions": batch.candidates_count,
        "event_vectors": events * token_width,
        "vectors": vectors + events,
    }


def _levels(batch: RequestBatch, spec: InputSpec) -> list[tuple[LevelSpec, Columns]]:
    return [
        (spec.user, batch.users),
        (spec.context, batch.context),
        (spec.cross, batch.cross),
        (spec.item, batch.items),
    ]


def _moved_bytes(
    batch: RequestBatch, spec: InputSpec, width: int, dense: int, processes: int
) -> int:
    """Bytes that one of ``processes`` sends to the others in a step.

    Distinct vectors of other processes' rows are sent there and their gradients back. Dense
    gradients are sent twice, as in a ring all-reduce.
    """
    ids: dict[str, list[Tensor]] = {table: [] for table in spec.tables}
    for level, columns in _levels(batch, spec):
        for table, column in zip(level.tables, columns.ids.unbind(1), strict=True):
            ids[table].append(column)
    for table, column in zip(spec.event.tables, batch.event_ids.unbind(1), strict=True):
        ids[table].append(column)
    vectors = sum(torch.unique(torch.cat(columns)).numel() for columns in ids.values() if columns)
    vector_bytes = vectors * 2 * (_FLOAT_BYTES * width + _ID_BYTES)
    return int((processes - 1) / processes * (vector_bytes + 2 * _FLOAT_BYTES * dense))


def _largest_of_processes(
    figures: dict[str, float], distributed: DistributedContext
) -> dict[str, float]:
    values = torch.tensor([list(figures.values())], dtype=torch.float64)
    largest = torch.stack(distributed.all_gather(values)).amax((0, 1)).tolist()
    distributed.barrier()
    return {
        name: value if name == "seconds" else int(value)
        for name, value in zip(figures, largest, strict=True)
    }


def _main(content: dict[str, Any]) -> None:
    point = Point(**{**content, "load": Workload(**content["load"])})
    distributed = DistributedContext.from_environment("cpu")
    print(json.dumps(measure_point(point, distributed)), flush=True)
    if distributed is not None:
        os._exit(0)  # threads of the process group may abort an interpreter that shuts down


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
