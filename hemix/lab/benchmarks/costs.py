"""`hemix bench costs`: what a training step costs, fitted to measured points and checked at points
that were left out of the fit.

A point is a shape of batch and table: impressions, users, history length, rows of the item table, a
named size, processes that share it. Each runs in processes of its own, of one thread, forward,
backward and both updates, for its time and its peak anonymous memory. The laws are sums of what is
counted in one process, with coefficients that are not negative:

    seconds a step  = fixed + FLOPs + vectors + impressions + bytes moved + other processes

    bytes a process = fixed + rows of tables + dense parameters + vectors of events + impressions +
    bytes moved + other processes

Vectors are those looked up, moved and updated: of users, requests, candidates and distinct items,
and one an event. Bytes moved are what a process sends to others in a step. docs/scale.md says what
follows from the laws.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hemix.data.batch import RequestBatch
from hemix.data.parts import part_of
from hemix.data.spec import InputSpec
from hemix.distributed import DistributedContext
from hemix.errors import HemixError
from hemix.lab.benchmarks.common import figures
from hemix.lab.benchmarks.workload import SPEC, Workload, make_batch
from hemix.lab.flops import flop_counter
from hemix.measure import PeakMemory, keep_freed_memory
from hemix.models import SizedConfig, build_model, count_parameters
from hemix.settings import build_settings
from hemix.training.launch import free_port
from hemix.training.optimizers import Optimizers

__all__ = ["LAWS", "POINTS", "Point", "fit", "run"]

Floats = NDArray[np.float64]

LAWS: dict[str, tuple[str, ...]] = {
    "seconds": ("fixed", "flops", "vectors", "impressions", "moved_bytes", "others"),
    "peak_bytes": (
        "fixed",
        "table_rows",
        "dense_parameters",
        "event_vectors",
        "impressions",
        "moved_bytes",
        "others",
    ),
}
"""What is predicted, and by which counts."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One shape of a step."""

    name: str
    load: Workload
    item_rows: int = 100_000
    size: str = "tiny"
    processes: int = 1
    held_out: bool = False
    """Predicted, not fitted"""


_BASE = Workload(users=64, impressions_per_user=4, history_length=500)

POINTS = (
    Point(name="base", load=_BASE),
    Point(name="impressions x 1/4", load=dataclasses.replace(_BASE, impressions_per_user=1)),
    Point(name="impressions x 4", load=dataclasses.replace(_BASE, impressions_per_user=16)),
    Point(name="users x 1/4", load=dataclasses.replace(_BASE, users=16)),
    Point(name="users x 4", load=dataclasses.replace(_BASE, users=256)),
    Point(name="history 100", load=dataclasses.replace(_BASE, history_length=100)),
    Point(name="history 4,000", load=dataclasses.replace(_BASE, history_length=4_000)),
    Point(name="1 M rows", load=_BASE, item_rows=1_000_000),
    Point(name="4 M rows", load=_BASE, item_rows=4_000_000),
    Point(name="size base", load=_BASE, size="base"),
    Point(
        name="size base, long",
        load=dataclasses.replace(_BASE, users=32, history_length=2_000),
        size="base",
    ),
    Point(name="2 processes", load=_BASE, processes=2),
    Point(name="2 processes, users x 4", load=dataclasses.replace(_BASE, users=256), processes=2),
    Point(name="2 processes, 4 M rows", load=_BASE, item_rows=4_000_000, processes=2),
    Point(name="2 processes, size base", load=_BASE, size="base", processes=2),
    Point(
        name="left out: twice of each",
        load=Workload(users=128, impressions_per_user=8, history_length=1_000),
        item_rows=2_000_000,
        held_out=True,
    ),
    Point(
        name="left out: size base",
        load=Workload(users=128, impressions_per_user=4, history_length=1_000),
        size="base",
        held_out=True,
    ),
    Point(
        name="left out: 2 processes",
        load=Workload(users=128, impressions_per_user=8, history_length=1_000),
        item_rows=2_000_000,
        processes=2,
        held_out=True,
    ),
)


def run(*, scale: float = 1.0) -> dict[str, Any]:
    """All points with ``scale`` times their users, the two laws, and what they say of every
    point.
    """
    points = [
        dataclasses.replace(
            p, load=dataclasses.replace(p.load, users=max(1, int(p.load.users * scale)))
        )
        for p in POINTS
    ]
    cases = [_measured(point) for point in points]
    fitted = [case for case in cases if not case["held_out"]]
    laws = {}
    for of, names in LAWS.items():
        coefficients = fit([_counts(case, names) for case in fitted], [case[of] for case in fitted])
        laws[of] = dict(zip(names, coefficients, strict=True))
        for case in cases:
            predicted = float(np.dot(_counts(case, names), coefficients))
            case[f"{of}_predicted"] = predicted
            case[f"{of}_error"] = predicted / case[of] - 1
    return figures(cases, laws=laws)


def fit(counts: Sequence[Sequence[float]], measured: Sequence[float]) -> list[float]:
    """Coefficients >= 0 of the least sum of squared relative errors of ``counts`` [K points, M] @
    coefficients against ``measured`` [K].

    M is small: every subset of the counts is solved, and the best whose coefficients are all
    positive wins.
    """
    y = np.asarray(measured, dtype=np.float64)
    relative = np.asarray(counts, dtype=np.float64) / y[:, None]
    scale = np.abs(relative).max(0)
    scale[scale == 0] = 1
    best, lowest = np.zeros(relative.shape[1]), float(len(y))
    for used in itertools.chain.from_iterable(
        itertools.combinations(range(len(scale)), n) for n in range(1, len(scale) + 1)
    ):
        columns = list(used)
        found, *_ = np.linalg.lstsq(
            relative[:, columns] / scale[columns], np.ones(len(y)), rcond=None
        )
        error = float(((relative[:, columns] / scale[columns] @ found - 1) ** 2).sum())
        if (found >= 0).all() and error < lowest:
            lowest = error
            best = np.zeros(relative.shape[1])
            best[columns] = found / scale[columns]
    return [float(value) for value in best]


def _counts(case: dict[str, Any], names: Sequence[str]) -> list[float]:
    return [1.0 if name == "fixed" else float(case[name]) for name in names]


def measure(
    point: Point, distributed: DistributedContext | None, repeats: int = 5
) -> dict[str, Any]:
    """Steps of one point, in this process and those of ``distributed``: the median of ``repeats``
    after two for warmth. What is counted and measured is the most of any process.
    """
    keep_freed_memory()
    torch.set_num_threads(1)
    spec = dataclasses.replace(SPEC, tables={**SPEC.tables, "item_id": point.item_rows})
    settings = build_settings(size=point.size)
    whole = make_batch(point.load)
    with PeakMemory(every_seconds=0.01) as memory:
        model = build_model(spec, settings.model, seed=0, distributed=distributed).train()
        optimizers = Optimizers(model, settings.train, total_steps=1000, distributed=distributed)
        batch = whole
        if distributed is not None:
            weight = model.loss_weight(whole)
            batch = dataclasses.replace(
                part_of(whole, distributed.rank, distributed.world_size)[0], loss_weight=weight
            )

        def step(number: int) -> None:
            model.loss(model(batch), batch).backward()  # type: ignore[no-untyped-call]
            optimizers.step(number)

        step(0)
        with flop_counter() as counter:
            step(1)
        seconds = []
        for number in range(repeats):
            began = time.perf_counter()
            step(2 + number)
            seconds.append(time.perf_counter() - began)
    config = settings.model
    assert isinstance(config, SizedConfig)
    dense, _ = count_parameters(spec, config)
    events = batch.event_item.shape[0]
    single = (
        batch.users.ids.numel()
        + batch.context.ids.numel()
        + batch.cross.ids.numel()
        + batch.items.ids.numel()
    )
    found = {
        "impressions": batch.candidates_count,
        "table_rows": model.tables.weight.shape[0],
        "event_vectors": events * config.token_width,
        "vectors": single + events,
        "moved_bytes": _moved_bytes(batch, spec, config.embedding_size, dense, point.processes),
        "flops": counter.get_total_flops(),
        "seconds": statistics.median(seconds),
        "peak_bytes": memory.bytes,
    }
    if distributed is not None:
        most = (
            torch.stack(
                distributed.all_gather(torch.tensor([list(found.values())], dtype=torch.float64))
            )
            .amax((0, 1))
            .tolist()
        )
        found = {
            name: value if name == "seconds" else int(value)
            for name, value in zip(found, most, strict=True)
        }
        distributed.barrier()
    return {
        "name": point.name,
        "size": point.size,
        "processes": point.processes,
        "others": point.processes - 1,
        "held_out": point.held_out,
        "users": point.load.users,
        "history_length": point.load.history_length,
        "dense_parameters": dense,
        **found,
    }


def _moved_bytes(
    batch: RequestBatch, spec: InputSpec, width: int, dense: int, processes: int
) -> int:
    """What one of ``processes`` sends in a step: of its distinct vectors there and of their
    gradients back those that others own, and the dense part's gradients twice (a sum in a ring).
    """
    ids: dict[str, list[Tensor]] = {table: [] for table in spec.tables}
    for level, columns in (
        (spec.user, batch.users),
        (spec.context, batch.context),
        (spec.cross, batch.cross),
        (spec.item, batch.items),
    ):
        for table, column in zip(level.tables, columns.ids.unbind(1), strict=True):
            ids[table].append(column)
    for table, column in zip(spec.event.tables, batch.event_ids.unbind(1), strict=True):
        ids[table].append(column)
    vectors = sum(torch.unique(torch.cat(columns)).numel() for columns in ids.values() if columns)
    return int((processes - 1) / processes * (vectors * 2 * (4 * width + 8) + 2 * 4 * dense))


def _measured(point: Point) -> dict[str, Any]:
    """A point in processes of its own."""
    command = [sys.executable, "-m", "hemix.lab.benchmarks.costs", json.dumps(asdict(point))]
    environment = {
        "WORLD_SIZE": str(point.processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    started = [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment, "RANK": str(rank)},
        )
        for rank in range(point.processes)
    ]
    try:
        while (
            all(process.poll() is None or process.returncode == 0 for process in started)
            and started[0].poll() is None
        ):
            time.sleep(0.02)
        for process in started:
            if process.poll() not in (None, 0):  # before the others say that it is gone
                _, errors = process.communicate()
                last = (errors.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
                raise HemixError(f"bench costs: {point.name}: {last}")
        found: dict[str, Any] = json.loads(started[0].communicate()[0].splitlines()[-1])
    finally:
        for process in started:
            process.kill()
            process.communicate()
    return found


if __name__ == "__main__":
    content, context = json.loads(sys.argv[1]), DistributedContext.from_environment("cpu")
    print(
        json.dumps(measure(Point(**{**content, "load": Workload(**content["load"])}), context)),
        flush=True,
    )
    if context is not None:
        os._exit(0)  # threads of torch.distributed may abort an interpreter that is being torn down
