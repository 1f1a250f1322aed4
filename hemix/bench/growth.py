"""`hemix bench growth`: logs, and the same with ten times the users over the same days, prepared and trained on for one epoch.

Preparation and training each run in a process of its own, whose anonymous memory is sampled: it has to stay within a limit, and the time
has to grow with the rows. Logs are those of `hemix bench prepare`, the model is `tiny` in steps of 1,024 impressions.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hemix.bench.prepare import write_logs
from hemix.errors import HemixError
from hemix.measure import PeakMemory, machine

__all__ = ["GROWTH", "LIMIT_BYTES", "run"]

GROWTH = 10
LIMIT_BYTES = 6 * 1024**3
"""Anonymous memory that each of the two processes may use at the full size."""

_IMPRESSIONS, _EVENTS, _USERS, _ITEMS = 2_000_000, 10_000_000, 200_000, 100_000
_SETTINGS = {"model.size": "tiny", "train.batch_impressions": 1024, "train.epochs": 1, "train.checkpoint_every_steps": 2000}


def run(*, scale: float = 1.0, out: Path | None = None) -> dict[str, Any]:
    """Two cases, ``small`` and ``large``; the second says how many times the seconds of the first it took. ``out`` keeps logs, data and
    runs."""
    cases: list[dict[str, Any]] = []
    for name, times in (("small", 1), ("large", GROWTH)):
        with tempfile.TemporaryDirectory(prefix="hemix-bench-") as temporary:
            folder = Path(temporary) if out is None else out / name
            cases.append({"name": name, **_case(folder, times * scale)})
    small, large = cases
    for part in ("prepare", "train"):
        large[f"{part}_times"] = round(large[f"{part}_seconds"] / small[f"{part}_seconds"], 2)
    large["times"] = round(_seconds(large) / _seconds(small), 2)
    return {"cases": cases, "machine": machine()}


def _case(folder: Path, scale: float) -> dict[str, Any]:
    impressions, events, users = (max(int(full * scale), 100) for full in (_IMPRESSIONS, _EVENTS, _USERS))
    write_logs(folder / "logs", impressions=impressions, events=events, users=users, items=_ITEMS, seed=0)
    prepared = _measured("prepare", [str(folder / "logs"), "--out", str(folder / "data")])
    settings = [part for key, value in _SETTINGS.items() for part in ("--set", f"{key}={value}")]
    trained = _measured("train", ["--data", str(folder / "data"), "--out", str(folder / "run"), *settings])
    steps = json.loads((folder / "run" / "metrics.json").read_text())["steps"]
    peaks = (prepared[1], trained[1])
    return {
        "impressions": impressions,
        "events": events,
        "users": users,
        "steps": steps,
        "prepare_seconds": prepared[0],
        "prepare_peak_bytes": peaks[0],
        "train_seconds": trained[0],
        "train_peak_bytes": peaks[1],
        "limit_bytes": LIMIT_BYTES,
        "within_limit": max(peaks) < LIMIT_BYTES,
    }


def _seconds(case: dict[str, Any]) -> float:
    return float(case["prepare_seconds"] + case["train_seconds"])


def _measured(command: str, arguments: Sequence[str]) -> tuple[float, int]:
    """(seconds, peak of anonymous memory in bytes) of a `hemix` command in a process of its own, the interpreter included."""
    began = time.monotonic()
    call = [sys.executable, "-m", "hemix", command, *arguments]
    with subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        with PeakMemory(process.pid) as peak:
            _, errors = process.communicate()
        if process.returncode != 0:
            raise HemixError(f"bench growth: hemix {command}: {errors.strip().splitlines()[-1]}")
    return round(time.monotonic() - began, 1), peak.bytes
