"""`hemix bench growth`: logs, and the same with ten times the users over the same days, prepared
and trained on for one epoch.

Preparation and training each run in a process of its own, whose anonymous memory is sampled: it has
to stay within a limit, and the time has to grow with the rows: by the clock, and in processor
seconds, which other work on the machine moves less. Logs are those of `hemix bench prepare`, the
model is `tiny` in steps of 1,024 impressions.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hemix.errors import HemixError
from hemix.lab.benchmarks.prepare import write_logs
from hemix.measure import PeakMemory, machine

__all__ = ["GROWTH", "LIMIT_BYTES", "run"]

GROWTH = 10
LIMIT_BYTES = 6 * 1024**3
"""Anonymous memory that each of the two processes may use at the full size."""

_IMPRESSIONS, _EVENTS, _USERS, _ITEMS = 2_000_000, 10_000_000, 200_000, 100_000
_SETTINGS = {
    "model.size": "tiny",
    "train.batch_size": 1024,
    "train.epochs": 1,
    "train.checkpoint_every_steps": 2000,
}


def run(*, scale: float = 1.0, out: Path | None = None) -> dict[str, Any]:
    """Two cases, ``small`` and ``large``; the second says how many times the seconds of the first
    it took. ``out`` keeps logs, data and runs.
    """
    cases: list[dict[str, Any]] = []
    for name, times in (("small", 1), ("large", GROWTH)):
        with tempfile.TemporaryDirectory(prefix="hemix-bench-") as temporary:
            folder = Path(temporary) if out is None else out / name
            cases.append({"name": name, **_case(folder, times * scale)})
    small, large = cases
    for part in ("prepare", "train"):
        large[f"{part}_times"] = round(large[f"{part}_seconds"] / small[f"{part}_seconds"], 2)
    for unit in ("seconds", "processor_seconds"):
        both = [
            sum(case[f"{part}_{unit}"] for part in ("prepare", "train")) for case in (large, small)
        ]
        large["times" if unit == "seconds" else "processor_times"] = round(both[0] / both[1], 2)
    return {"cases": cases, "machine": machine()}


def _case(folder: Path, scale: float) -> dict[str, Any]:
    impressions, events, users = (
        max(int(full * scale), 100) for full in (_IMPRESSIONS, _EVENTS, _USERS)
    )
    write_logs(
        folder / "logs", impressions=impressions, events=events, users=users, items=_ITEMS, seed=0
    )
    prepared = _measured("prepare", [str(folder / "logs"), "--out", str(folder / "data")])
    settings = [part for key, value in _SETTINGS.items() for part in ("--set", f"{key}={value}")]
    trained = _measured(
        "train", ["--data", str(folder / "data"), "--out", str(folder / "run"), *settings]
    )
    steps = json.loads((folder / "run" / "metrics.json").read_text())["steps"]
    peaks = (prepared.peak_bytes, trained.peak_bytes)
    return {
        "impressions": impressions,
        "events": events,
        "users": users,
        "steps": steps,
        **{f"prepare_{name}": value for name, value in asdict(prepared).items()},
        **{f"train_{name}": value for name, value in asdict(trained).items()},
        "limit_bytes": LIMIT_BYTES,
        "within_limit": max(peaks) < LIMIT_BYTES,
    }


@dataclass(frozen=True)
class _Cost:
    """Of a `hemix` command in a process of its own, the interpreter included."""

    seconds: float
    processor_seconds: float
    peak_bytes: int
    """Of anonymous memory"""


def _measured(command: str, arguments: Sequence[str]) -> _Cost:
    began, used_before = time.monotonic(), _processor_seconds()
    call = [sys.executable, "-m", "hemix", command, *arguments]
    with subprocess.Popen(
        call, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        with PeakMemory(process.pid) as peak:
            _, errors = process.communicate()
        if process.returncode != 0:
            raise HemixError(f"bench growth: hemix {command}: {errors.strip().splitlines()[-1]}")
    return _Cost(
        round(time.monotonic() - began, 1), round(_processor_seconds() - used_before, 1), peak.bytes
    )


def _processor_seconds() -> float:
    """Of all ended children."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
