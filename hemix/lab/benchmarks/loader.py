"""``hemix bench loader``: the fraction of a training step spent waiting for the next batch.

It uses the training loop's loader with its prefetching thread, the model and the optimisers. Every
size runs in its own process.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hemix.data.dataset import Dataset
from hemix.data.replacement import Replacement
from hemix.data.sampler import RequestSampler
from hemix.errors import HemixError
from hemix.lab.benchmarks.common import run_module
from hemix.lab.simulator import simulate
from hemix.measure import PeakMemory, machine
from hemix.models import build_model
from hemix.preparation import prepare
from hemix.settings import build_settings
from hemix.training.optimizers import Optimizers

__all__ = ["TARGET", "run"]

TARGET = 0.1
"""Maximum fraction of a step that the loop should wait for its batch"""

_SIZES = ("tiny", "base", "small")
_USERS, _DAYS = 2000, 20
_WARM_UP_STEPS = 2


@dataclass(frozen=True, kw_only=True)
class _Config:
    data: str
    size: str
    batch_size: int
    steps: int
    threads: int


def run(
    *,
    scale: float = 1.0,
    data: Path | None = None,
    sizes: tuple[str, ...] = _SIZES,
    batch_size: int = 1024,
    steps: int = 7,
    threads: int = 0,
) -> dict[str, Any]:
    """Measure waiting time and step time of every model size.

    Args:
        scale: Factor of the simulated city's 2,000 users.
        data: A dataset folder; None: simulate one.
        sizes: The model sizes.
        batch_size: Impressions per batch.
        steps: Measured steps, after two to warm up.
        threads: PyTorch threads; 0: its default.

    Returns:
        The figures. ``ours_seconds`` is the median wait for a batch, ``step_seconds`` that of
        forward, backward and update while the loader's thread works. ``batch_seconds`` makes a
        batch without other work, which is the wait without the thread (``plain_seconds``).

    Raises:
        HemixError: A process failed, or there are too few impressions.
    """
    threads = threads or torch.get_num_threads()
    with tempfile.TemporaryDirectory(prefix="hemix-bench-") as temporary:
        folder = data or _simulated_dataset(Path(temporary), max(int(_USERS * scale), 50))
        configs = [
            _Config(
                data=str(folder),
                size=size,
                batch_size=batch_size,
                steps=steps,
                threads=threads,
            )
            for size in sizes
        ]
        return {"cases": [_measure_in_process(config) for config in configs], "machine": machine()}


def _simulated_dataset(folder: Path, users: int) -> Path:
    simulate(folder / "logs", users=users, days=_DAYS, seed=0)
    prepare(folder / "logs", folder / "data")
    return folder / "data"


def _measure_in_process(config: _Config) -> dict[str, Any]:
    content = json.dumps(asdict(config))
    name = f"bench loader: {config.size}"
    case: dict[str, Any] = json.loads(run_module("hemix.lab.benchmarks.loader", content, name=name))
    return case


def _measure(config: _Config) -> dict[str, Any]:
    torch.set_num_threads(config.threads)
    data = Dataset(config.data)
    split = data.split("train")
    settings = build_settings(size=config.size).resolved(split.impressions)
    sampler = RequestSampler(split, batch_size=config.batch_size)
    steps = min(config.steps, sampler.steps - _WARM_UP_STEPS)
    if steps < 1:
        raise HemixError(
            f"bench loader: {config.data}: too few impressions for {_WARM_UP_STEPS + 1} batches of "
            f"{config.batch_size}",
            code="too_few_rows",
            field=config.data,
        )
    model = build_model(data.spec, settings.model, 0).train()
    optimizers = Optimizers(model, settings.train, sampler.steps)
    replacement = Replacement(rate=settings.train.oov_dropout, seed=(0,))
    batch_seconds, events = [], []
    for i in range(_WARM_UP_STEPS + steps):
        start = time.perf_counter()
        batch = split.batch(sampler.requests(0, i, 0), replacement=replacement.of_batch(0, i, 0))
        batch_seconds.append(time.perf_counter() - start)
        events.append(int(batch.event_item.shape[0]))
    wait_seconds, step_seconds = [], []
    with PeakMemory() as memory:
        batches = split.batches(sampler, replacement=replacement)
        for i in range(_WARM_UP_STEPS + steps):
            start = time.perf_counter()
            batch = next(batches)
            arrival = time.perf_counter()
            model.training_loss(batch).backward()  # type: ignore[no-untyped-call]
            optimizers.step(i)
            wait_seconds.append(arrival - start)
            step_seconds.append(time.perf_counter() - arrival)
        batches.close()  # type: ignore[attr-defined]
    wait, step, make = (
        float(np.median(seconds[_WARM_UP_STEPS:]))
        for seconds in (wait_seconds, step_seconds, batch_seconds)
    )
    return {
        "name": f"loader, {config.size}",
        "ours_seconds": round(wait, 6),
        "plain_seconds": round(make, 6),
        "batch_seconds": round(make, 6),
        "step_seconds": round(step, 5),
        "share_waited": round(wait / (wait + step), 5),
        "share_to_make": round(make / (make + step), 5),
        "within_target": wait / (wait + step) < TARGET,
        "ours_peak_bytes": memory.bytes,
        "dense_parameters": sum(p.numel() for p in model.dense_parameters()),
        "impressions": config.batch_size,
        "events": int(np.median(events)),
        "steps": steps,
        "threads": config.threads,
    }


if __name__ == "__main__":
    print(json.dumps(_measure(_Config(**json.loads(sys.argv[1])))))
