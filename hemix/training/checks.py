"""What is checked before anything is trained or written: the place of the run, and that there is something to learn."""

from __future__ import annotations

from pathlib import Path

from hemix.data.dataset import Dataset
from hemix.errors import DataError, UsageError
from hemix.run.folder import INFO_FILE
from hemix.run.weights import DENSE_FILE, TABLES_FILE

__all__ = ["check_labels", "check_out"]

_RUN_FILES = {
    "log.jsonl",  # the first to be written
    "settings.yaml",
    "schema.yaml",
    "encoders",
    "users",
    "items",
    "statistics",
    "checkpoints",
    "tensorboard",
    DENSE_FILE,
    TABLES_FILE,
    "metrics.json",
}
"""What an unfinished run may hold."""


def check_out(out: Path, *, resume: bool) -> None:
    """Raise UsageError where ``out`` is neither new nor, with ``resume``, a run of ours. A demo's logs and data may lie in it."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out}: is a file; name a new folder")
    if (out / INFO_FILE).exists():
        raise UsageError(f"--out {out}: holds a finished run; name a new folder")
    found = {path.name for path in out.iterdir()} - {"logs", "data"} if out.exists() else set[str]()
    ours = "log.jsonl" in found and {name for name in found if not name.startswith(".")} <= _RUN_FILES
    if found and not ours:
        raise UsageError(f"--out {out}: exists already and is not empty; name a new folder")
    if found and not resume:
        raise UsageError(f"--out {out}: an unfinished run: add --resume to continue it")


def check_labels(data: Dataset) -> None:
    """Nothing can be learned of a first label that train holds in one class only. Raises DataError."""
    train, task = data.manifest["splits"]["train"], data.schema.tasks[0]
    known, positives = train["rows"] - train["unknown"][task], train["positives"][task]
    if positives in (0, known):
        raise DataError(f"{data.folder}: {positives} positives of {task} among the {known} train rows where it is known: nothing can be "
                        "learned from one class")  # fmt: skip
