"""What is checked before anything is trained or written: the place of the run, and that there is something to learn."""

from __future__ import annotations

from pathlib import Path

from hemix.data.dataset import Dataset
from hemix.data.spec import InputSpec
from hemix.errors import DataError, SettingsError, UsageError
from hemix.models import NeuralConfig, count_parameters
from hemix.run.folder import INFO_FILE
from hemix.run.weights import DENSE_FILE, TABLES_FILE
from hemix.settings import Settings
from hemix.training.origin import ORIGIN_FILE

__all__ = ["check_labels", "check_memory", "check_out", "process_bytes"]

_RUN_FILES = {
    "log.jsonl",  # the first to be written
    ORIGIN_FILE,
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


def process_bytes(spec: InputSpec, settings: Settings, processes: int) -> tuple[int, int, int]:
    """What the first of ``processes``, which needs most, holds in bytes of fp32: of its rows of the tables, of the dense part, which
    each has whole, and of the copy from which a checkpoint is written in the background.

    Counted are weights, gradients of the dense part, optimiser state and averages. Activations, batches, the gradients of a step's rows
    and the library itself come on top (docs/scale.md).
    """
    assert isinstance(settings.model, NeuralConfig), "a model without embedding tables"
    train, width = settings.train, settings.model.embedding_size
    dense, _ = count_parameters(spec, settings.model)
    averages = train.average_decay > 0
    row_values = (3 * width if train.table_optimizer == "adam" else width + 1) + (width + 1 if averages else 0)
    tables = 4 * -(-sum(spec.tables.values()) // processes) * row_values
    saved = 4 * dense * (4 if averages else 3)
    copies = train.save_in_background and train.checkpoint_every_steps > 0
    return tables, saved + 4 * dense, tables + saved if copies else 0


def check_memory(spec: InputSpec, settings: Settings, processes: int) -> None:
    """Raise SettingsError where a process would need more than ``train.memory_budget_bytes``, saying what would do."""
    budget = settings.train.memory_budget_bytes
    tables, dense, copy = process_bytes(spec, settings, processes)
    if not budget or tables + dense + copy <= budget:
        return
    copied = f", {copy:,} of the copy for a checkpoint" if copy else ""
    need = f"{tables:,} bytes of tables, {dense:,} of the dense part{copied} a process, {processes} in all"
    ways = [_enough(spec, settings, budget)]
    if copy:
        train = settings.train.model_copy(update={"save_in_background": False})
        fewer = _enough(spec, settings.model_copy(update={"train": train}), budget)
        ways.insert(0, f"{fewer} with train.save_in_background=false" if fewer else None)
    told = " or ".join(way for way in ways if way)
    if not told:
        raise SettingsError(f"train.memory_budget_bytes: {budget:,} is too little on any number: {need}")
    raise SettingsError(f"train.memory_budget_bytes: {budget:,} is too little: {need}; {told} would do")


def _enough(spec: InputSpec, settings: Settings, budget: int) -> str | None:
    """The least number of processes that need no more; None: no number does."""
    tables, dense, copy = process_bytes(spec, settings, 1)
    rows = 2 * tables if copy else tables
    fixed = tables + dense + copy - rows
    total = sum(spec.tables.values())
    held = (budget - fixed) * total // max(rows, 1) if budget > fixed else 0
    if held < 1:
        return None
    enough = max(1, -(-total // held))
    return "one process" if enough == 1 else f"{enough} processes"
