"""What is checked before anything is trained or written: the place of the run, and that there is something to learn."""

from __future__ import annotations

from pathlib import Path

from hemix.config import Settings
from hemix.data.dataset import Dataset
from hemix.data.spec import InputSpec
from hemix.errors import DataError, SettingsError, UsageError
from hemix.model import count_parameters
from hemix.run.folder import INFO_FILE
from hemix.run.weights import DENSE_FILE, TABLES_FILE

__all__ = ["check_labels", "check_memory", "check_out", "process_bytes"]

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


def process_bytes(spec: InputSpec, settings: Settings, processes: int) -> tuple[int, int]:
    """(bytes of the tables' rows of one of ``processes``, bytes of the dense part, which each has whole): weights, gradients of the
    dense part and optimiser state; fp32. Activations and the batch come on top."""
    train, width = settings.train, settings.model.embedding_size
    dense, _ = count_parameters(spec, settings.model)
    row_values = (3 * width if train.table_optimizer == "adam" else width + 1) + (width + 1 if train.average_decay > 0 else 0)
    rows = -(-sum(spec.tables.values()) // processes)
    return 4 * rows * row_values, 4 * dense * (5 if train.average_decay > 0 else 4)


def check_memory(spec: InputSpec, settings: Settings, processes: int) -> None:
    """Raise SettingsError where a process would need more than ``train.memory_budget_bytes``, saying how many processes would do."""
    budget = settings.train.memory_budget_bytes
    tables, dense = process_bytes(spec, settings, processes)
    if not budget or tables + dense <= budget:
        return
    need = f"{tables:,} bytes of tables and {dense:,} of the dense part a process, {processes} in all"
    if dense >= budget:
        raise SettingsError(f"train.memory_budget_bytes: {budget:,} is too little on any number: {need}")
    whole = process_bytes(spec, settings, 1)[0]
    enough = -(-whole // (budget - dense))
    while sum(process_bytes(spec, settings, enough)) > budget:
        enough += 1
    raise SettingsError(f"train.memory_budget_bytes: {budget:,} is too little: {need}; {enough} processes would do")
