"""The process of one cell: ``python -m hemix.lab.studies.cell FOLDER`` trains, scores valid and
measures.

With ``--open-test`` it also scores test.

Works from FOLDER/cell.json alone. A stopped one goes on from its last checkpoint. What was scored
is kept as float32 and measured as it is kept, so that metrics and comparisons speak of the same
numbers. The test split is opened by ``--open-test`` and by nothing else.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hemix.data.dataset import Dataset
from hemix.data.layout import save_array
from hemix.errors import DataError, HemixError
from hemix.evaluation.evaluate import task_metrics
from hemix.evaluation.predictions import Predictions
from hemix.lab.flops import flop_counter
from hemix.lab.studies.cells import CELL_FORMAT, Judged
from hemix.measure import PeakMemory, machine
from hemix.models import import_files, is_neural
from hemix.run.evaluation import predictions_of
from hemix.run.folder import INFO_FILE, Run
from hemix.settings import Settings, parse_settings
from hemix.training.loop import train

__all__ = ["code_digest", "flops_per_impression", "run_cell"]

_FLOP_BATCHES = 4


def run_cell(folder: Path, *, open_test: bool = False) -> None:
    """Do what of the cell is not done yet.

    Raises HemixError; Interrupted (of training) after a stop signal.
    """
    task = CELL_FORMAT.read(folder / "cell.json")
    import_files(task.get("imports", ()))
    with _alone(folder):
        dataset = Dataset(task["data"], history_events_max=task["history_events_max"])
        settings = parse_settings(task["settings"])
        if not (folder / "result.json").exists():
            began = time.perf_counter()
            with PeakMemory() as memory:
                run = _trained(dataset, folder / "run", settings)
                tasks = _judge(run, dataset, "valid", folder)
            trained = run.metrics
            result = {
                "tasks": tasks,
                **{
                    key: trained[key]
                    for key in (
                        "dense_parameters",
                        "embedding_parameters",
                        "train_seconds",
                        "steps",
                    )
                },
                "flops_per_impression": flops_per_impression(run, dataset),
                "peak_bytes": max(memory.bytes, trained["peak_bytes"]),
                "seconds": round(time.perf_counter() - began, 3),
                "train_rows": dataset.manifest["splits"]["train"]["rows"],
                "threads": torch.get_num_threads(),
                "hemix": version("hemix"),
                "torch": torch.__version__,
                "code": code_digest(),
                "machine": machine(),
            }
            CELL_FORMAT.write(folder / "result.json", result)
        if open_test and not (folder / "test.json").exists():
            run = _trained(
                dataset, folder / "run", settings
            )  # again where the weights were dropped: the same seed, the same run
            content = {"tasks": _judge(run, dataset, "test", folder)}
            CELL_FORMAT.write(folder / "test.json", content)


def _trained(dataset: Dataset, out: Path, settings: Settings) -> Run:
    if not is_neural(settings.model) and not (out / INFO_FILE).exists():
        shutil.rmtree(out, ignore_errors=True)  # it keeps no checkpoints to go on from
    return Run.load(train(dataset, out, settings, resume=True))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process works on this cell."""
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _judge(run: Run, dataset: Dataset, split: Judged, folder: Path) -> dict[str, Any]:
    """Score a split, keep the scores as ``<split>.npy`` (float32 [n, outputs], in the order of
    Schema.outputs), measure them.
    """
    predictions = predictions_of(run, dataset, dataset.split(split))
    probabilities = predictions.probabilities.astype(np.float32)
    conditional = np.asarray(predictions.conditional, dtype=np.float32)
    if not np.isfinite(probabilities).all():
        raise DataError(f"{run.folder}: scores of {split} that are not numbers")
    given = [column for column, other in enumerate(predictions.given) if other is not None]
    save_array(
        folder / f"{split}.npy", np.concatenate([probabilities, conditional[:, given]], axis=1)
    )
    kept: Predictions = dataclasses.replace(
        predictions,
        probabilities=probabilities.astype(np.float64),
        conditional=conditional.astype(np.float64),
    )
    return {task.name: task_metrics(task, kept) for task in kept.task_rows()}


@torch.no_grad()
def flops_per_impression(run: Run, dataset: Dataset) -> float | None:
    """Operations of a forward pass, counted on shuffled valid batches of the training's size, over
    their impressions; None for a model without matrix products, whose work this does not see.
    """
    part = dataset.split("valid")
    plan = part.plan(run.settings.train.batch_size, order="shuffled", seed=0)
    flops = impressions = 0
    for number in range(min(_FLOP_BATCHES, len(plan))):
        batch = part.batch(plan.order[plan.begin[number] : plan.begin[number + 1]])
        with flop_counter() as counter:
            run.model(batch)
        flops += counter.get_total_flops()
        impressions += batch.candidates_count
    return flops / impressions if flops else None


def code_digest() -> str:
    """8 hex digits of the source that data, models and training are made of: two cells of one
    digest were made by the same code.
    """
    root = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for room in ("data", "nn", "models", "training"):
        for path in sorted((root / room).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def main(arguments: list[str]) -> int:
    """The process; returns its exit code: 0, 2 for a HemixError (one line on stderr), 130 when
    stopped.
    """
    try:
        run_cell(Path(arguments[0]), open_test="--open-test" in arguments[1:])
    except HemixError as error:
        print(str(error), file=sys.stderr)
        return 130 if type(error).__name__ == "Interrupted" else 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
