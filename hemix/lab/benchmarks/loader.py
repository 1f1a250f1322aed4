"""`hemix bench loader`: what share of a training step goes into waiting for the next batch.

A real dataset folder and the training loop's own parts: the loader with its prefetching thread, the
model, both optimisers. Every size steps in a process of its own.
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

from hemix.data.dataset import Dataset, Replacement
from hemix.errors import HemixError
from hemix.lab.simulator import simulate
from hemix.measure import PeakMemory, machine
from hemix.models import build_model
from hemix.preparation import prepare
from hemix.settings import build_settings
from hemix.training.optimizers import Optimizers

__all__ = ["TARGET", "run"]

TARGET = 0.1
"""Share of a step that the loop may wait for its batch."""

_SIZES = ("tiny", "base", "small")
_USERS, _DAYS = 2000, 20
_WARM = 2


@dataclass(frozen=True, kw_only=True)
class _Load:
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
    """Train ``steps`` steps of every size on the train split of ``data``; without it on a simulated
    city of ``scale`` x 2,000 users.

    Medians of: ``ours_seconds``, what the loop waited for a batch; ``step_seconds``, forward,
    backward and update with the loader's thread at work beside it; ``batch_seconds``, to make a
    batch with nothing else going on, which is the wait without the thread (``plain_seconds``).
    """
    threads = threads or torch.get_num_threads()
    with tempfile.TemporaryDirectory(prefix="hemix-bench-") as temporary:
        folder = data or _city(Path(temporary), max(int(_USERS * scale), 50))
        loads = [
            _Load(
                data=str(folder),
                size=size,
                batch_size=batch_size,
                steps=steps,
                threads=threads,
            )
            for size in sizes
        ]
        return {"cases": [_in_its_own_process(load) for load in loads], "machine": machine()}


def _city(folder: Path, users: int) -> Path:
    simulate(folder / "logs", users=users, days=_DAYS, seed=0)
    prepare(folder / "logs", folder / "data")
    return folder / "data"


def _in_its_own_process(load: _Load) -> dict[str, Any]:
    content = json.dumps(asdict(load))
    done = subprocess.run(
        [sys.executable, "-m", "hemix.lab.benchmarks.loader", content],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise HemixError(f"bench loader: {load.size} failed: {last}")
    case: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return case


def _measure(load: _Load) -> dict[str, Any]:
    torch.set_num_threads(load.threads)
    settings = build_settings(size=load.size)
    data = Dataset(load.data)
    split = data.split("train")
    plan = split.plan(load.batch_size, order="shuffled")
    steps = min(load.steps, len(plan) - _WARM)
    if steps < 1:
        raise HemixError(
            f"bench loader: {load.data}: too few impressions for {_WARM + 1} batches of "
            f"{load.batch_size}"
        )
    model = build_model(data.spec, settings.model, 0).train()
    optimizers = Optimizers(model, settings.train, len(plan))
    replacement = Replacement(rate=settings.train.oov_dropout, seed=(0, 0))
    made, waited, stepped, events = [], [], [], []
    for i in range(_WARM + steps):
        began = time.perf_counter()
        batch = split.batch(
            plan.order[plan.begin[i] : plan.begin[i + 1]],
            replacement=Replacement(rate=replacement.rate, seed=(0, 0, i)),
        )
        made.append(time.perf_counter() - began)
        events.append(int(batch.event_item.shape[0]))
    with PeakMemory() as memory:
        batches = split.batches(plan, replacement=replacement)
        for i in range(_WARM + steps):
            began = time.perf_counter()
            batch = next(batches)
            have = time.perf_counter()
            model.loss(model(batch), batch).backward()  # type: ignore[no-untyped-call]
            optimizers.step(i)
            waited.append(have - began)
            stepped.append(time.perf_counter() - have)
        batches.close()  # type: ignore[attr-defined]
    wait, step, make = (float(np.median(seconds[_WARM:])) for seconds in (waited, stepped, made))
    return {
        "name": f"loader, {load.size}",
        "ours_seconds": round(wait, 6),
        "plain_seconds": round(make, 6),
        "batch_seconds": round(make, 6),
        "step_seconds": round(step, 5),
        "share_waited": round(wait / (wait + step), 5),
        "share_to_make": round(make / (make + step), 5),
        "within_target": wait / (wait + step) < TARGET,
        "ours_peak_bytes": memory.bytes,
        "dense_parameters": sum(p.numel() for p in model.dense_parameters()),
        "impressions": load.batch_size,
        "events": int(np.median(events)),
        "steps": steps,
        "threads": load.threads,
    }


if __name__ == "__main__":
    print(json.dumps(_measure(_Load(**json.loads(sys.argv[1])))))
