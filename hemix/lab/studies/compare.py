"""``hemix compare``: the same data, epochs and search for every model, several seeds and origins;
paired differences.

Valid is scored; test only where it is opened, and each opening is written down in
DIR/openings.jsonl.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from hemix.errors import RunError, UsageError
from hemix.files import storage_errors, write_json
from hemix.formats import FORMAT_KEY
from hemix.lab.studies import search as searching
from hemix.lab.studies.cells import SEEDS_APART, STUDY_FORMAT, Cell, Contender, Judged
from hemix.lab.studies.cost import plan
from hemix.lab.studies.inputs import Input, open_inputs
from hemix.lab.studies.report import write_study_report
from hemix.lab.studies.runner import Failure, Options, check_study_folder, run_cells, study_folder
from hemix.lab.studies.summary import Runs, pairs, summarise
from hemix.measure import machine
from hemix.models import find_model, model_names
from hemix.settings import of_model

__all__ = ["CompareConfig", "cells_of", "compare", "complete_runs", "facts", "judge", "openings"]


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """What is compared."""

    models: Sequence[str] | Mapping[str, Mapping[str, Any]] | None = None
    """Names, or settings by a label of one's own:
    ``{"deep": {"model.name": "hemix", "model.layers": 4}}``; None: all models"""
    seeds: int = 3
    search: str | Path | None = "default"
    """"default", a search file, or None for no search"""
    search_data: str | Path | None = None
    """A smaller dataset to search on; None: the first one"""
    changes: Mapping[str, Any] | None = None
    """Settings for all models"""
    primary: Sequence[str] | None = None
    """Pairs ``a:b`` that are reported without adjustment; None: hemix:lightgbm where both take
    part
    """
    final: bool = False
    """Open test"""


def compare(
    data: Sequence[str | Path],
    out: Path,
    config: CompareConfig | None = None,
    options: Options | None = None,
) -> dict[str, Any]:
    """Compare models; writes compare.json and report.html.

    Args:
        data: Datasets: rolling origins of the same logs.
        out: The study's folder; a second call continues it.
        config: What is compared.
        options: How many cells run at a time, and whom to tell.

    Returns:
        The content of compare.json.

    Raises:
        UsageError, SettingsError, DataError: Before anything is written.
        RunError: If no run finished.
    """
    config, options = config or CompareConfig(), options or Options()
    base = dict(config.changes or {})
    contenders = _contenders(config.models, base)
    if config.seeds < 1:
        raise UsageError(f"--seeds {config.seeds}: expected 1 or more")
    primary = _primary(config.primary, [one.label for one in contenders])
    points = _search_points(config.search, base)
    check_study_folder(out)
    inputs, small = open_inputs(data, opens_test=config.final, small=config.search_data)
    split: Judged = "test" if config.final else "valid"
    failed: list[Failure] = []
    searched: dict[str, Any] = {}
    with study_folder(out):
        if points is not None:
            search = _Search(out, contenders, points, small or inputs[0])
            options.on_plan(plan(search.stages(inputs, config.seeds, split), options))
            contenders, searched, failed = search.run(options)
        cells = cells_of(out, contenders, inputs, config.seeds)
        if points is None and contenders:
            options.on_plan(plan([("compare", cells, split)], options))
        runs, failures = judge(out, cells, contenders, inputs, split, options)
        failed += failures
        finished = [pair for pair in primary if pair[0] in runs and pair[1] in runs]
        content = {
            "schema_version": 1,
            FORMAT_KEY: STUDY_FORMAT.version,
            "split": split,
            "models": summarise(runs, split),
            **pairs(runs, inputs, split, primary=finished),
            "primary": [":".join(pair) for pair in primary],
            "failed": failed,
            "search": searched,
            **facts(out, inputs, config.seeds, small if points is not None else None),
        }
        write_json(out / "compare.json", content)
        write_study_report(out / "report.html", "compare", content)
    return content


def _search_points(search: str | Path | None, base: Mapping[str, Any]) -> searching.Points | None:
    """The points of a search; None for no search."""
    if search is None:
        return None
    return searching.default_points(base) if search == "default" else searching.read_points(search)


def _contenders(
    models: Sequence[str] | Mapping[str, Mapping[str, Any]] | None, base: Mapping[str, Any]
) -> list[Contender]:
    asked = list(model_names()) if models is None else models
    named = asked if isinstance(asked, Mapping) else {name: {"model.name": name} for name in asked}
    if not named:
        raise UsageError(f"--models: expected one or more of {', '.join(model_names())}")
    if not isinstance(asked, Mapping) and len(named) < len(asked):
        raise UsageError(f"--models {','.join(asked)}: a model is named twice")
    names = {
        label: find_model(str(own.get("model.name", "hemix"))).name for label, own in named.items()
    }
    every = list(dict.fromkeys(names.values()))
    return [
        Contender.of(label, {**of_model(names[label], base, every), **own})
        for label, own in named.items()
    ]


def _primary(asked: Sequence[str] | None, labels: Sequence[str]) -> list[tuple[str, str]]:
    if asked is None:
        return [("hemix", "lightgbm")] if {"hemix", "lightgbm"} <= set(labels) else []
    found = []
    for text in asked:
        a, _, b = text.partition(":")
        if a not in labels or b not in labels or a == b:
            raise UsageError(f"--primary {text}: expected two of {', '.join(labels)} as a:b")
        found.append((a, b))
    return found


def cells_of(
    out: Path, contenders: Sequence[Contender], inputs: Sequence[Input], seeds: int
) -> list[Cell]:
    """Every contender on every origin from every seed.

    Seeds of different origins differ, so that no two runs share their chance.
    """
    return [
        Cell(root=out, contender=contender, data=data, seed=seed + SEEDS_APART * origin)
        for contender in contenders
        for origin, data in enumerate(inputs)
        for seed in range(seeds)
    ]


class _Search:
    """Every model at every point of its grid, on one dataset."""

    def __init__(
        self, out: Path, contenders: Sequence[Contender], points: searching.Points, data: Input
    ) -> None:
        self._out, self._contenders, self._data = out, contenders, data
        self._grids = {
            one.label: [
                Cell(root=out, contender=at, data=data, seed=0)
                for at in searching.points_for(one, points)
            ]
            for one in contenders
        }
        self._cells = [cell for grid in self._grids.values() for cell in grid]

    def stages(
        self, inputs: Sequence[Input], seeds: int, split: Judged
    ) -> list[tuple[str, Sequence[Cell], Judged]]:
        """The search and the comparison after it, for the estimate of their cost."""
        contenders, name = self._contenders, "compare"
        if all(cell.done("valid") for cell in self._cells):
            best = [searching.best(grid)[0] for grid in self._grids.values()]
            contenders = [cell.contender for cell in best if cell is not None]
        else:
            name = "compare (before the search its settings are not known)"
        cells = cells_of(self._out, contenders, inputs, seeds)
        return [("search", self._cells, "valid"), (name, cells, split)]

    def run(self, options: Options) -> tuple[list[Contender], dict[str, Any], list[Failure]]:
        """Train all points; returns models at their best points, what each gave, and failures."""
        failed = run_cells(self._cells, options)
        chosen, searched = list[Contender](), dict[str, Any]()
        for label, grid in self._grids.items():
            best, results = searching.best(grid)
            changes = best and best.contender.changes
            searched[label] = {"data": self._data.name, "points": results, "chosen": changes}
            for cell in grid:
                if cell is not best:
                    cell.drop_weights()
            if best is None:
                failed.append({"cell": label, "error": "no point of the search finished"})
            else:
                chosen.append(best.contender)
        return chosen, searched, failed


def judge(
    out: Path,
    cells: Sequence[Cell],
    contenders: Sequence[Contender],
    inputs: Sequence[Input],
    split: Judged,
    options: Options,
) -> tuple[Runs, list[Failure]]:
    """Run the cells, open test where it is asked for, and return the contenders' finished runs with
    what failed.
    """
    if split == "test":
        _write_opening(out, cells, inputs)
    failed = run_cells(cells, options, split=split)
    runs, incomplete = complete_runs(cells, contenders, inputs, split)
    if split == "test":
        for cell in cells:
            if cell.done("test"):
                cell.drop_weights()
    return runs, failed + incomplete


def complete_runs(
    cells: Sequence[Cell], contenders: Sequence[Contender], inputs: Sequence[Input], split: Judged
) -> tuple[Runs, list[Failure]]:
    """The finished runs by label, [origins][seeds]; a contender with an origin of which no run
    finished is left out. Raises RunError where nothing is left.
    """
    runs, failed = Runs(), list[Failure]()
    for contender in contenders:
        mine = [
            [
                c
                for c in cells
                if c.contender.label == contender.label and c.data is data and c.done(split)
            ]
            for data in inputs
        ]
        if all(mine):
            runs[contender.label] = mine
        else:
            failed.append(
                {"cell": contender.label, "error": "left out: of some dataset no run finished"}
            )
    if not runs:
        raise RunError(
            "no run finished; each cell's log.txt says why, under cells in the study's folder"
        )
    return runs, failed


def _write_opening(out: Path, cells: Sequence[Cell], inputs: Sequence[Input]) -> None:
    opening = {
        FORMAT_KEY: STUDY_FORMAT.version,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "hemix": version("hemix"),
        "datasets": [data.summary() for data in inputs],
        "models": list(dict.fromkeys(cell.contender.label for cell in cells)),
        "cells": len(cells),
        "not_scored_before": [cell.folder.name for cell in cells if not cell.done("test")],
    }
    path = out / "openings.jsonl"
    with storage_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(opening) + "\n")


def openings(out: Path) -> list[dict[str, Any]]:
    """Every time that test was opened in this folder.

    Raises RunError for a record of another version.
    """
    path = out / "openings.jsonl"
    if not path.exists():
        return []
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for record in records:
        STUDY_FORMAT.check(path, record.get(FORMAT_KEY))
    return records


def facts(
    out: Path, inputs: Sequence[Input], seeds: int, small: Input | None = None
) -> dict[str, Any]:
    """What every study's JSON says of its data, seeds, versions, machine and openings of test."""
    return {
        "datasets": [data.summary() for data in inputs],
        **({"search_data": small.summary()} if small is not None else {}),
        "seeds": [
            [seed + SEEDS_APART * origin for seed in range(seeds)] for origin in range(len(inputs))
        ],
        "openings": openings(out),
        "versions": {"hemix": version("hemix"), "torch": torch.__version__},
        "machine": machine(),
    }
