"""``hemix bench prepare``: speed and memory of the preparation of large synthetic logs.

Preparation runs in processes of its own, whose anonymous memory is sampled.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from hemix.data.layout import MANIFEST_FORMAT
from hemix.lab.benchmarks.common import measure_command
from hemix.lab.benchmarks.synthetic_logs import write_logs
from hemix.measure import machine

__all__ = ["LIMIT_BYTES", "run"]

LIMIT_BYTES = 1024**3
"""Maximum anonymous memory of each process of a preparation at the full size"""

_IMPRESSIONS, _EVENTS, _USERS, _ITEMS = 5_000_000, 20_000_000, 200_000, 100_000


def run(
    *,
    scale: float = 1.0,
    impressions: int = _IMPRESSIONS,
    events: int = _EVENTS,
    processes: int = 1,
    partitions: int | None = None,
    seed: int = 0,
    out: Path | None = None,
) -> dict[str, Any]:
    """Write synthetic logs, prepare them and measure.

    Args:
        scale: Factor of all sizes.
        impressions: Impressions at scale 1.
        events: Events at scale 1.
        processes: Processes that prepare.
        partitions: Partitions of the users; None: by the number of rows.
        seed: Seed of the logs.
        out: The folder for logs and data; None: a temporary one.

    Returns:
        The figures of one case. Rows per second count impressions and events; memory is that of
        the largest process.

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
        cost = measure_command(
            "prepare",
            [
                *(str(folder / "logs"), "--out", str(folder / "data")),
                *("--processes", str(processes)),
                *(() if partitions is None else ("--partitions", str(partitions))),
            ],
            name="bench prepare",
        )
        manifest = MANIFEST_FORMAT.read(folder / "data" / "manifest.json")
        dataset_bytes = sum(
            path.stat().st_size for path in (folder / "data").rglob("*") if path.is_file()
        )
    case = {
        "name": "prepare",
        "impressions": impressions,
        "events": events,
        "users": users,
        "items": items,
        "processes": processes,
        "partitions": len(manifest["partitions"]),
        "rows_per_second": round((impressions + events) / cost.seconds),
        "ours_seconds": cost.seconds,
        "ours_processor_seconds": cost.processor_seconds,
        "ours_peak_bytes": cost.peak_bytes,
        "limit_bytes": LIMIT_BYTES,
        "within_limit": cost.peak_bytes < LIMIT_BYTES,
        "dataset_bytes": dataset_bytes,
        "draw_seconds": round(written - start, 2),
    }
    return {"cases": [case], "machine": machine()}
