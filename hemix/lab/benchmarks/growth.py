"""``hemix bench growth``: preparation and training of logs with ten times the users.

Each command runs in its own process. Its memory must stay below a limit, and its time must grow
with the rows. Processor seconds depend less on other work of the machine than elapsed seconds.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hemix.lab.benchmarks.common import measure_command
from hemix.lab.benchmarks.synthetic_logs import write_logs
from hemix.measure import machine

__all__ = ["GROWTH", "LIMIT_BYTES", "run"]

GROWTH = 10
"""Users of the large case, in multiples of the small one's"""
LIMIT_BYTES = 6 * 1024**3
"""Maximum anonymous memory of each process at the full size"""

_IMPRESSIONS, _EVENTS, _USERS, _ITEMS = 2_000_000, 10_000_000, 200_000, 100_000
_SETTINGS = {
    "model.size": "tiny",
    "train.batch_size": 1024,
    "train.epochs": 1,
    "train.checkpoint_every_steps": 2000,
}
_COMMANDS = ("prepare", "train")


def run(*, scale: float = 1.0, out: Path | None = None) -> dict[str, Any]:
    """Measure the cases ``small`` and ``large``.

    Args:
        scale: Factor of the size of the logs.
        out: The folder for logs, datasets and runs; None: a temporary one.

    Returns:
        The figures; those of ``large`` include the ratios to ``small``.

    Raises:
        HemixError: A command failed.
    """
    cases: list[dict[str, Any]] = []
    for name, factor in (("small", 1), ("large", GROWTH)):
        with tempfile.TemporaryDirectory(prefix="hemix-bench-") as temporary:
            folder = Path(temporary) if out is None else out / name
            cases.append({"name": name, **_measure_case(folder, factor * scale)})
    small, large = cases
    for command in _COMMANDS:
        ratio = large[f"{command}_seconds"] / small[f"{command}_seconds"]
        large[f"{command}_times"] = round(ratio, 2)
    for key, unit in (("times", "seconds"), ("processor_times", "processor_seconds")):
        totals = [sum(case[f"{command}_{unit}"] for command in _COMMANDS) for case in cases]
        large[key] = round(totals[1] / totals[0], 2)
    return {"cases": cases, "machine": machine()}


def _measure_case(folder: Path, scale: float) -> dict[str, Any]:
    impressions, events, users = (
        max(int(full * scale), 100) for full in (_IMPRESSIONS, _EVENTS, _USERS)
    )
    write_logs(
        folder / "logs", impressions=impressions, events=events, users=users, items=_ITEMS, seed=0
    )
    prepared = measure_command(
        "prepare", [str(folder / "logs"), "--out", str(folder / "data")], name="bench growth"
    )
    flags = [text for key, value in _SETTINGS.items() for text in ("--set", f"{key}={value}")]
    trained = measure_command(
        "train",
        ["--data", str(folder / "data"), "--out", str(folder / "run"), *flags],
        name="bench growth",
    )
    steps = json.loads((folder / "run" / "metrics.json").read_text())["steps"]
    return {
        "impressions": impressions,
        "events": events,
        "users": users,
        "steps": steps,
        **{f"prepare_{name}": value for name, value in asdict(prepared).items()},
        **{f"train_{name}": value for name, value in asdict(trained).items()},
        "limit_bytes": LIMIT_BYTES,
        "within_limit": max(prepared.peak_bytes, trained.peak_bytes) < LIMIT_BYTES,
    }
