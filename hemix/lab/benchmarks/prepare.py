"""``hemix bench prepare``: speed and memory of the preparation of large synthetic logs.

Preparation runs in its own process, whose anonymous memory is sampled.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hemix.errors import HemixError
from hemix.lab.benchmarks.common import last_line
from hemix.lab.benchmarks.synthetic_logs import write_logs
from hemix.measure import PeakMemory, machine

__all__ = ["LIMIT_BYTES", "run"]

LIMIT_BYTES = 2 * 1024**3
"""Maximum anonymous memory of preparation at the full size"""

_IMPRESSIONS, _EVENTS, _USERS, _ITEMS = 5_000_000, 20_000_000, 200_000, 100_000


def run(
    *,
    scale: float = 1.0,
    impressions: int = _IMPRESSIONS,
    events: int = _EVENTS,
    seed: int = 0,
    out: Path | None = None,
) -> dict[str, Any]:
    """Write synthetic logs, prepare them and measure.

    Args:
        scale: Factor of all sizes.
        impressions: Impressions at scale 1.
        events: Events at scale 1.
        seed: Seed of the logs.
        out: The folder for logs and data; None: a temporary one.

    Returns:
        The figures of one case. Rows per second count impressions and events.

    Raises:
        HemixError: The preparation failed.
    """
    impressions, events = max(int(impressions * scale), 1000), max(int(events * scale), 1000)
    users, items = max(int(_USERS * scale), 10), max(int(_ITEMS * scale), 10)
    with tempfile.TemporaryDirectory(prefix="hemix-bench-") as temporary:
        folder = Path(temporary) if out is None else out
        start = time.monotonic()
        write_logs(
            folder / "logs",
            impressions=impressions,
            events=events,
            users=users,
            items=items,
            seed=seed,
        )
        written = time.monotonic()
        peak_bytes = _prepare_in_process(folder / "logs", folder / "data")
        seconds = time.monotonic() - written
        dataset_bytes = sum(
            path.stat().st_size for path in (folder / "data").rglob("*") if path.is_file()
        )
    case = {
        "name": "prepare",
        "impressions": impressions,
        "events": events,
        "users": users,
        "items": items,
        "rows_per_second": round((impressions + events) / seconds),
        "ours_seconds": round(seconds, 2),
        "ours_peak_bytes": peak_bytes,
        "limit_bytes": LIMIT_BYTES,
        "within_limit": peak_bytes < LIMIT_BYTES,
        "dataset_bytes": dataset_bytes,
        "draw_seconds": round(written - start, 2),
    }
    return {"cases": [case], "machine": machine()}


def _prepare_in_process(logs: Path, data: Path) -> int:
    """Prepare in a process; returns its peak anonymous memory in bytes."""
    code = "import sys; from hemix.preparation import prepare; prepare(sys.argv[1], sys.argv[2])"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(logs), str(data)], stderr=subprocess.PIPE, text=True
    ) as process:
        with PeakMemory(process.pid, every_seconds=0.02) as peak:
            _, errors = process.communicate()
        if process.returncode != 0:
            cause = last_line(errors, process.returncode)
            raise HemixError(f"bench prepare: {cause}", code="process_failed")
    return peak.bytes
