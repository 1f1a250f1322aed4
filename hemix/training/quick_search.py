"""``hemix train --search quick``: three runs of a small log, of which the best on valid is kept.

A small log says little about the best rates, and a run on it takes seconds. Studies search with
equal effort for every model by themselves (`hemix.lab.studies.search`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hemix.config import TrainSettings
from hemix.data.dataset import Dataset
from hemix.errors import RunError, UsageError
from hemix.files import link_target, storage_errors
from hemix.formats import SavedFormat
from hemix.models import is_neural
from hemix.settings import ResolvedSettings, Settings
from hemix.training.callbacks import SILENT, Callback
from hemix.training.checks import check_out
from hemix.training.loop import train

__all__ = ["MOST_ROWS", "SEARCH_FILE", "quick_points", "search_quickly"]

MOST_ROWS = 100_000
"""Train rows of the largest log that is searched on."""
SEARCH_FILE = "search.json"
_FORMAT = SavedFormat(version=1, error=RunError, remedy="train into a new folder")
_RATE_FACTOR = 2.5


def quick_points(train: TrainSettings) -> list[dict[str, Any]]:
    """Return the settings that each run changes: none; a higher dense rate; one epoch more.

    Args:
        train: Settings of training, without ``auto``.
    """
    return [
        {},
        {"dense_learning_rate": _RATE_FACTOR * train.dense_learning_rate},
        {"epochs": train.epochs + 1},
    ]


def search_quickly(
    data: Dataset, out: Path, settings: Settings, *, callback: Callback = SILENT
) -> Path:
    """Train at every point and keep the run with the lowest valid loss.

    Args:
        data: A dataset of up to :data:`MOST_ROWS` train rows.
        out: The run folder, which must be new; its search.json lists the points.
        settings: Settings of the first point.
        callback: Receives what all runs report.

    Returns:
        The run folder.

    Raises:
        UsageError: The log is larger, the model is no neural one, or ``out`` cannot be used.
        RunError: The loss of a run diverges, or valid has no loss.
        Interrupted: After Ctrl-C or SIGTERM; nothing is kept.
    """
    rows = data.manifest["splits"]["train"]["rows"]
    if rows > MOST_ROWS:
        raise UsageError(
            f"--search quick: for logs of at most {MOST_ROWS:,} train rows, {data.folder} has "
            f"{rows:,}: leave out the flag",
            field="--search",
        )
    if not is_neural(settings.model):
        raise UsageError(
            f"--search quick: {settings.model.name} has no learning rates that it searches: leave "
            "out the flag",
            field="--search",
        )
    out = link_target(out)
    check_out(out, resume=False)
    base = settings.resolved(rows)
    points = quick_points(base.train)
    folder = out.parent / f".{out.name}.search"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        losses = [
            _train_point(data, folder / str(number), _at(base, point), callback)
            for number, point in enumerate(points)
        ]
        best = min(range(len(points)), key=losses.__getitem__)
        _keep(folder / str(best), out, _record(points, losses, best))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return out


def _at(base: ResolvedSettings, point: Mapping[str, Any]) -> ResolvedSettings:
    """Return settings with those of a point."""
    return base.model_copy(update={"train": base.train.model_copy(update=dict(point))})


def _train_point(data: Dataset, out: Path, settings: Settings, callback: Callback) -> float:
    """Train one run; return the valid loss of the weights that it keeps."""
    train(data, out, settings, callback=callback)
    records = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    losses = [record["valid_loss"] for record in records if "valid_loss" in record]
    if not losses or None in losses:
        raise RunError(
            f"{data.folder}: the valid split has no loss, so no run can be chosen: leave out "
            "--search",
            code="undefined_metric",
            field="--search",
        )
    keeps_best = settings.train.patience > 0 and len(losses) > 1
    return float(min(losses) if keeps_best else losses[-1])


def _record(points: list[dict[str, Any]], losses: list[float], best: int) -> dict[str, Any]:
    """Return the content of search.json."""
    trials = [
        {"settings": {f"train.{name}": value for name, value in point.items()}, "valid_loss": loss}
        for point, loss in zip(points, losses, strict=True)
    ]
    return {"points": trials, "chosen": best}


def _keep(run: Path, out: Path, record: Mapping[str, Any]) -> None:
    """Move a run to its place."""
    with storage_errors(out):
        _FORMAT.write(run / SEARCH_FILE, record)
        if out.exists():
            out.rmdir()
        run.rename(out)
