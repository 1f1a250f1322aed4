"""What cells will cost, before they run: from finished cells of the same kind, else from a few
steps timed in a process of their own.

``python -m hemix.lab.studies.cost CELL.json`` is that process. A model that does not train in steps
is timed by its first cell only.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hemix.data.dataset import Dataset
from hemix.errors import HemixError, RunError
from hemix.lab.studies.cells import CELL_FORMAT, Cell, Judged
from hemix.lab.studies.runner import Options
from hemix.models import build_model, import_files
from hemix.settings import parse_settings
from hemix.training.optimizers import Optimizers

__all__ = ["known_costs", "plan"]

_WARM, _TIMED = 2, 6
_BEGIN_SECONDS = 8.0
"""To start a process and open a dataset"""
_SCORING_SHARE = 0.4
"""Scoring an impression against learning from it"""


def plan(stages: Sequence[tuple[str, Sequence[Cell], Judged]], options: Options) -> dict[str, Any]:
    """What will be done until the cells of every stage have their results of its split.

    Returns the ``stages``, each ``{"stage", "cells", "kept", "seconds", "unknown"}``, then
    ``seconds`` (of one process) and ``hours`` (with ``jobs`` at a time). ``unknown``: models whose
    cost nobody knows yet.

    Models of which no cell is finished are timed now, for some seconds each.
    """
    root = stages[0][1][0].root
    costs = known_costs(root)
    found: dict[str, Any] = {"stages": [], "jobs": options.jobs, "threads": options.threads}
    for stage, cells, split in stages:
        distinct = list({cell.folder: cell for cell in cells}.values())
        missing = [cell for cell in distinct if not cell.done(split)]
        seconds, unknown = 0.0, set[str]()
        for cell in missing:
            if (cell.folder / "result.json").exists():
                seconds += _BEGIN_SECONDS
                continue
            key = cell.contender.cost_key
            if key not in costs:
                costs[key] = _timed(cell, options.threads)
            cost = costs[key]
            if cost is None:
                unknown.add(cell.contender.label)
            else:
                seconds += _BEGIN_SECONDS + cost * cell.data.train_rows
        entry = {
            "stage": stage,
            "cells": len(distinct),
            "kept": len(distinct) - len(missing),
            "seconds": round(seconds),
        }
        found["stages"].append({**entry, "unknown": sorted(unknown)})
    found["seconds"] = sum(stage["seconds"] for stage in found["stages"])
    found["hours"] = round(found["seconds"] / options.jobs / 3600, 3)
    return found


def known_costs(root: Path) -> dict[str, float | None]:
    """Seconds a train impression, by cost key, of the finished cells in a study's folder."""
    seen: dict[str, list[float]] = {}
    for file in (root / "cells").glob("*/result.json"):
        try:
            key, result = (
                CELL_FORMAT.read(file.with_name("cell.json"))["cost_key"],
                CELL_FORMAT.read(file),
            )
            seen.setdefault(key, []).append(result["seconds"] / max(result["train_rows"], 1))
        except (RunError, KeyError):
            continue  # a cell of an older kind says nothing
    return {key: statistics.median(values) for key, values in seen.items()}


def _timed(cell: Cell, threads: int) -> float | None:
    content = {
        "data": str(cell.data.folder.absolute()),
        "history_events_max": cell.contender.history_events_max,
        "settings": cell.settings.model_dump(mode="json"),
        **cell.contender.imports(),
    }
    done = subprocess.run(
        [sys.executable, "-m", "hemix.lab.studies.cost", json.dumps(content)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )
    try:
        return float(done.stdout.split()[-1]) if done.returncode == 0 else None
    except (IndexError, ValueError):
        return None


def _seconds_an_impression(content: dict[str, Any]) -> float:
    """Of training for all its epochs, and of scoring as many impressions as the other splits may
    hold.
    """
    import_files(content.get("imports", ()))
    settings = parse_settings(content["settings"])
    data = Dataset(content["data"], history_events_max=content["history_events_max"])
    part = data.split("train")
    chart = part.plan(settings.train.batch_size, order="shuffled", seed=0)
    model = build_model(data.spec, settings.model, seed=0).train()
    optimizers = Optimizers(model, settings.train, total_steps=1000)
    batches = min(_WARM + _TIMED, len(chart))
    seconds, impressions = 0.0, 0
    for number in range(batches):
        began = time.perf_counter()
        batch = part.batch(chart.order[chart.begin[number] : chart.begin[number + 1]])
        model.loss(model(batch), batch).backward()  # type: ignore[no-untyped-call]
        optimizers.step(number)
        if number >= min(_WARM, batches - 1):
            seconds += time.perf_counter() - began
            impressions += batch.candidates_count
    others = sum(data.manifest["splits"][name]["rows"] for name in ("valid", "test"))
    scoring = _SCORING_SHARE * others / max(part.impressions, 1)
    return seconds / impressions * float(settings.train.epochs + scoring)


if __name__ == "__main__":
    try:
        print(_seconds_an_impression(json.loads(sys.argv[1])))
    except (HemixError, NotImplementedError, RuntimeError) as problem:
        print(problem, file=sys.stderr)
        sys.exit(2)
