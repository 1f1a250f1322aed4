"""The demonstration, the description of this machine, and the benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hemix.api.data import prepare, simulate
from hemix.api.training import evaluate, train
from hemix.api.types import PathLike, Progress, ignore_progress
from hemix.errors import RunError, UsageError
from hemix.formats import SavedFormat
from hemix.training.callbacks import SILENT, Callback

if TYPE_CHECKING:
    from hemix.lab.benchmarks import Benchmark, BenchOptions

__all__ = ["bench", "demo", "doctor"]

_DEMO_FORMAT = SavedFormat(version=1, error=RunError, remedy="name a new folder with --out")
"""Of logs/demo.json"""


def demo(
    out: PathLike,
    *,
    users: int = 6000,
    days: int = 8,
    seed: int = 0,
    on_progress: Progress = ignore_progress,
    callback: Callback = SILENT,
) -> dict[str, Any]:
    """Simulate, prepare, train, evaluate and report. Finished steps are not repeated.

    Args:
        out: The run folder; it gets the logs and the dataset as well.
        users: Users of the simulated city.
        days: Days of impressions.
        seed: Seed of all random draws.
        on_progress: Called with the activity and its completed fraction.
        callback: Receives what training reports.

    Returns:
        The metrics of the test split.

    Raises:
        UsageError: ``out`` holds another demo, or other files.
    """
    from hemix.training.checks import check_out

    out = Path(out)
    record = out / "logs" / "demo.json"
    if not (out / "run.json").exists() or not record.exists():
        check_out(out, resume=record.exists())
    options = {"users": users, "days": days, "seed": seed}
    if not record.exists():
        simulate(out / "logs", **options, on_progress=on_progress)
        _DEMO_FORMAT.write(record, options)
    elif (earlier := _DEMO_FORMAT.read(record)) != _DEMO_FORMAT.mark(options):
        earlier_options = {name: earlier.get(name) for name in options}
        raise UsageError(
            f"--out {out}: holds a demo of other users, days or seed ({earlier_options})",
            code="out_exists",
            field="--out",
            hint="name a new folder",
        )
    if not (out / "data" / "manifest.json").exists():
        prepare(out / "logs", out / "data", on_progress=on_progress)
    begun = (out / "log.jsonl").exists()
    settings = {"train.seed": seed}
    train(out / "data", out, settings=settings, resume=begun, callback=callback)
    return evaluate(out, out / "data", on_progress=on_progress)


def doctor() -> dict[str, Any]:
    """Return versions, devices, optional packages, and which kernels are in use."""
    from hemix.environment import examine

    return examine()


def bench(
    name: Benchmark, *, scale: float = 1.0, options: BenchOptions | None = None
) -> dict[str, Any]:
    """Run a benchmark.

    Args:
        name: One of :data:`hemix.lab.benchmarks.BENCHMARKS`.
        scale: Fraction of the full size.
        options: Options of this benchmark; None: the defaults.

    Returns:
        The figures.

    Raises:
        UsageError: The name is unknown, or the benchmark has no such option.
    """
    from hemix.lab.benchmarks import run_benchmark

    return run_benchmark(name, scale=scale, options=options)
