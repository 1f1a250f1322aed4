"""Runner of trials: several at a time, each in its own process.

A failed trial is reported and the others continue. A second call runs only the missing trials.
Ctrl-C stops all processes after they have saved a checkpoint.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hemix.errors import UsageError
from hemix.files import out_exists, storage_errors
from hemix.lab.studies.options import StudyOptions
from hemix.lab.studies.trial import TRIAL_FORMAT, TRIALS_FOLDER, EvaluatedSplit, Trial

__all__ = ["Failure", "check_study_folder", "run_trials", "study_folder"]

Failure = dict[str, str]
"""``{"trial": name of the trial's folder or label of a candidate, "error": one line}``"""

_STOP_TIMEOUT_SECONDS = 60.0
_POLL_SECONDS = 0.1


def check_study_folder(root: Path) -> None:
    """Raise UsageError unless ``root`` is absent, empty or a study's folder.

    Raises RunError for a study of an older hemix.
    """
    if root.exists() and not root.is_dir():
        raise out_exists(root, "is a file")
    if root.exists() and any(root.iterdir()) and not (root / TRIALS_FOLDER).is_dir():
        for definition in root.glob("cells/*/cell.json"):  # the layout up to format version 2
            TRIAL_FORMAT.read(definition)
        raise out_exists(root, "exists already and is not a study's folder")


@contextmanager
def study_folder(root: Path) -> Iterator[None]:
    """Create ``root`` where it does not exist, and lock it against other studies.

    Raises UsageError, StorageError.
    """
    check_study_folder(root)
    with storage_errors(root):
        (root / TRIALS_FOLDER).mkdir(parents=True, exist_ok=True)
        with (root / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(
                    f"--out {root}: another study uses this folder", field="--out"
                ) from error
            yield


def run_trials(
    trials: Sequence[Trial], options: StudyOptions, *, split: EvaluatedSplit = "valid"
) -> list[Failure]:
    """Run all trials that have no results yet.

    Args:
        trials: The trials; equal ones run once.
        options: Trials at a time, and whom to report to.
        split: The split whose results are needed.

    Returns:
        The failures.

    Raises:
        KeyboardInterrupt: After all processes have stopped.
    """
    waiting = list({t.folder: t for t in trials if not t.is_finished(split)}.values())
    total = len({trial.folder for trial in trials})
    done = total - len(waiting)
    failures = list[Failure]()
    running = dict[subprocess.Popen[bytes], Trial]()
    try:
        while waiting or running:
            while waiting and len(running) < options.jobs:
                trial = waiting.pop(0)
                running[_start(trial, split, options.threads)] = trial
                options.on_trial(f"{trial.folder.name} started", done, total)
            time.sleep(_POLL_SECONDS)
            for process in [p for p in running if p.poll() is not None]:
                trial = running.pop(process)
                done += 1
                if process.returncode == 0 and trial.is_finished(split):
                    options.on_trial(f"{trial.folder.name} finished", done, total)
                    continue
                error = _error_line(trial.folder, process.returncode)
                failures.append({"trial": trial.folder.name, "error": error})
                options.on_trial(f"{trial.folder.name} failed: {error}", done, total)
    finally:
        _stop(list(running))
    return failures


def _start(trial: Trial, split: EvaluatedSplit, threads: int) -> subprocess.Popen[bytes]:
    trial.write_definition()
    flags = ["--evaluate-test"] if split == "test" else []
    with (trial.folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "hemix.lab.studies.run_trial", str(trial.folder), *flags],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            # Ctrl-C reaches only the study, which stops its trials by SIGTERM
            start_new_session=True,
        )


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + _STOP_TIMEOUT_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _error_line(folder: Path, exit_code: int) -> str:
    """Describe in one line why a trial failed."""
    lines = (folder / "log.txt").read_text(errors="replace").strip().splitlines()
    if exit_code < 0:
        hint = " (out of memory?)" if exit_code == -signal.SIGKILL else ""
        return f"killed by {signal.Signals(-exit_code).name}{hint}"
    return " ".join(lines[-1].split()) if lines else f"ended with exit code {exit_code}"
