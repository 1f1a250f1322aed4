"""The process of a trial: ``python -m hemix.lab.studies.run_trial FOLDER [--evaluate-test]``.

It reads FOLDER/trial.json, trains, scores the valid split and writes the results. An interrupted
training resumes from its last checkpoint. Only ``--evaluate-test`` reads the test split.
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
from hemix.data.sampler import RequestSampler
from hemix.errors import DataError, HemixError
from hemix.evaluation.evaluate import task_metrics
from hemix.evaluation.predictions import Predictions
from hemix.lab.flops import flop_counter
from hemix.lab.studies.trial import DEFINITION_FILE, TRIAL_FORMAT, EvaluatedSplit
from hemix.measure import PeakMemory, machine
from hemix.models import import_files, is_neural
from hemix.runs.evaluation import split_predictions
from hemix.runs.folder import INFO_FILE, Run
from hemix.settings import Settings, parse_settings
from hemix.training.loop import train

__all__ = ["code_digest", "flops_per_impression", "run_trial"]

_FLOP_BATCHES = 4
_PACKAGE = Path(__file__).parents[2]


def run_trial(folder: Path, *, evaluate_test: bool = False) -> None:
    """Run the steps of a trial that have no result yet.

    Args:
        folder: The trial's folder, with trial.json.
        evaluate_test: Score the test split too.

    Raises:
        HemixError: The trial failed.
        Interrupted: A stop signal arrived; the checkpoint is saved.
    """
    definition = TRIAL_FORMAT.read(folder / DEFINITION_FILE)
    import_files(definition.get("imports", ()))
    with _exclusive_lock(folder):
        dataset = Dataset(definition["data"], history_events_max=definition["history_events_max"])
        settings = parse_settings(definition["settings"])
        if not (folder / "result.json").exists():
            result = _train_and_evaluate(dataset, settings, folder)
            TRIAL_FORMAT.write(folder / "result.json", result)
        if evaluate_test and not (folder / "test.json").exists():
            # trains again where the weights were deleted; the same seed gives the same run
            run = _train(dataset, folder / "run", settings)
            result = {"tasks": _evaluate(run, dataset, "test", folder)}
            TRIAL_FORMAT.write(folder / "test.json", result)


def _train_and_evaluate(dataset: Dataset, settings: Settings, folder: Path) -> dict[str, Any]:
    """Train, score the valid split and return the content of result.json."""
    start = time.perf_counter()
    with PeakMemory() as memory:
        run = _train(dataset, folder / "run", settings)
        tasks = _evaluate(run, dataset, "valid", folder)
    copied = ("dense_parameters", "embedding_parameters", "train_seconds", "steps")
    return {
        "tasks": tasks,
        **{key: run.metrics[key] for key in copied},
        "flops_per_impression": flops_per_impression(run, dataset),
        "peak_bytes": max(memory.bytes, run.metrics["peak_bytes"]),
        "seconds": round(time.perf_counter() - start, 3),
        "train_rows": dataset.manifest["splits"]["train"]["rows"],
        "threads": torch.get_num_threads(),
        "hemix": version("hemix"),
        "torch": torch.__version__,
        "code": code_digest(),
        "machine": machine(),
    }


def _train(dataset: Dataset, out: Path, settings: Settings) -> Run:
    if not is_neural(settings.model) and not (out / INFO_FILE).exists():
        shutil.rmtree(out, ignore_errors=True)  # boosted trees save no checkpoint to resume from
    return Run.load(train(dataset, out, settings, resume=True))


@contextmanager
def _exclusive_lock(folder: Path) -> Iterator[None]:
    """Wait until no other process works on this trial."""
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _evaluate(
    run: Run, dataset: Dataset, split: EvaluatedSplit, folder: Path
) -> dict[str, dict[str, Any]]:
    """Score a split, save the scores as ``<split>.npy`` and return the metrics by task.

    The file is float32 [n, outputs], in the order of Schema.outputs. The metrics are computed from
    the rounded scores, so that paired comparisons, which read the file, agree with them.
    """
    predictions = split_predictions(run, dataset, dataset.split(split))
    probabilities = predictions.probabilities.astype(np.float32)
    conditional = np.asarray(predictions.conditional, dtype=np.float32)
    if not np.isfinite(probabilities).all():
        raise DataError(f"{run.folder}: {split}: expected finite scores, found NaN or infinity")
    given = [column for column, task in enumerate(predictions.given) if task is not None]
    save_array(
        folder / f"{split}.npy", np.concatenate([probabilities, conditional[:, given]], axis=1)
    )
    rounded: Predictions = dataclasses.replace(
        predictions,
        probabilities=probabilities.astype(np.float64),
        conditional=conditional.astype(np.float64),
    )
    return {task.name: task_metrics(task, rounded) for task in rounded.task_rows()}


@torch.no_grad()
def flops_per_impression(run: Run, dataset: Dataset) -> float | None:
    """Count the operations of a forward pass on shuffled valid batches.

    Args:
        run: The trained run; its training's batch size is used.
        dataset: The dataset with the valid split.

    Returns:
        Operations per impression, or None for a model without matrix products.
    """
    split = dataset.split("valid")
    train_rows = dataset.manifest["splits"]["train"]["rows"]
    settings = run.settings.resolved(train_rows)
    sampler = RequestSampler(split, batch_size=settings.train.batch_size)
    flops = impressions = 0
    for batch in split.batches(sampler, steps=range(min(_FLOP_BATCHES, sampler.steps)), workers=0):
        with flop_counter() as counter:
            run.model(batch)
        flops += counter.get_total_flops()
        impressions += batch.candidates_count
    return flops / impressions if flops else None


def code_digest(package: Path = _PACKAGE) -> str:
    """Hash the source of hemix, without ``lab`` and ``cli``, to 8 hex digits.

    A report shows it, because trials of different code are not comparable. Features, schema, data,
    models and training decide a trial's result; ``lab`` and ``cli`` only start it.

    Args:
        package: The folder of the package.
    """
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package)
        if name.parts[0] not in ("lab", "cli"):
            digest.update(name.as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:8]


def main(arguments: list[str]) -> int:
    """Run a trial from command-line arguments.

    Returns the exit code: 0, 2 for a HemixError (one line on stderr), 130 after a stop signal.
    """
    try:
        run_trial(Path(arguments[0]), evaluate_test="--evaluate-test" in arguments[1:])
    except HemixError as error:
        print(str(error), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
