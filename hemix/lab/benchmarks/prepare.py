"""``hemix bench prepare``: speed and memory of the preparation of large synthetic logs.

Preparation runs in processes of its own, whose anonymous memory is sampled.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from hemix.data.layout import MANIFEST_FORMAT
from hemix.lab.benchmarks.common import CommandCost, measure_command
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
    sizes = {
        "impressions": max(int(impressions * scale), 1000),
        "events": max(int(events * scale), 1000),
        "users": max(int(_USERS * scale), 10),
        "items": max(int(_ITEMS * scale), 10),
    }
    with tempfile.TemporaryDirectory(prefix="hemix-bench-") as temporary:
        folder = Path(temporary) if out is None else out
        start = time.monotonic()
        write_logs(folder / "logs", **sizes, seed=seed)
        draw_seconds = round(time.monotonic() - start, 2)
        flags = () if partitions is None else ("--partitions", str(partitions))
        paths = (str(folder / "logs"), "--out", str(folder / "data"))
        cost = measure_command(
            "prepare", [*paths, "--processes", str(processes), *flags], name="bench prepare"
        )
        case = sizes | {"processes": processes} | _figures(folder / "data", cost)
    rows = sizes["impressions"] + sizes["events"]
    case |= {"rows_per_second": round(rows / cost.seconds), "draw_seconds": draw_seconds}
    return {"cases": [{"name": "prepare", **case}], "machine": machine()}


def _figures(data: Path, cost: CommandCost) -> dict[str, Any]:
    """What a preparation cost, and the size of its dataset."""
    manifest = MANIFEST_FORMAT.read(data / "manifest.json")
    return {
        "partitions": len(manifest["partitions"]),
        "ours_seconds": cost.seconds,
        "ours_processor_seconds": cost.processor_seconds,
        "ours_peak_bytes": cost.peak_bytes,
        "limit_bytes": LIMIT_BYTES,
        "within_limit": cost.peak_bytes < LIMIT_BYTES,
        "dataset_bytes": sum(path.stat().st_size for path in data.rglob("*") if path.is_file()),
    }
