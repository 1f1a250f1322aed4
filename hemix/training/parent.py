"""The parent of a run: the run whose weights it begins with, recorded in from.json.

A resume before the first checkpoint reads it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hemix.errors import HemixError, RunError, UsageError
from hemix.formats import SavedFormat
from hemix.runs.folder import Run

__all__ = ["PARENT_FILE", "parent_run", "weights_of", "write_parent"]

PARENT_FILE = "from.json"
_FORMAT = SavedFormat(version=1, error=RunError, remedy="train into a new folder")


def write_parent(out: Path, run: Run | None) -> None:
    """Record the parent in a run folder.

    Args:
        out: The run folder.
        run: The parent; None for weights of the seed, which writes nothing.
    """
    if run is None:
        return
    folder = str(run.folder.absolute())
    content = {"schema_version": 1, "run": folder, "weights": weights_of(run)}
    _FORMAT.write(out / PARENT_FILE, content)


def parent_run(out: Path, init_from: Run | None, *, has_checkpoint: bool) -> Run | None:
    """Find the run whose weights a resumed run begins with.

    Args:
        out: The folder of the resumed run.
        init_from: The run that --init-from names now.
        has_checkpoint: Whether a checkpoint holds the weights already.

    Returns:
        The parent; None for weights of the seed or of the checkpoint.

    Raises:
        UsageError: If the run began with other weights than ``init_from``'s.
        RunError: If the parent is gone or has other weights now.
    """
    path = out / PARENT_FILE
    parent: dict[str, Any] | None = _FORMAT.read(path) if path.exists() else None
    if parent is None and not (out / "settings.yaml").exists():
        return init_from  # the folder is new
    if init_from is not None and (parent is None or parent.get("weights") != weights_of(init_from)):
        own = "weights of its own" if parent is None else f"the weights of {parent.get('run')}"
        message = f"{out} began with {own}; leave out the flag to continue"
        raise UsageError(f"--init-from {init_from.folder}: {message}", field="--init-from")
    if has_checkpoint:
        return None
    if parent is None or init_from is not None:
        return init_from
    folder = Path(str(parent.get("run")))
    problem = f"{out}: began with the weights of {folder} (--init-from) and has no checkpoint yet"
    try:
        run = Run.load(folder)
    except HemixError as error:
        raise RunError(f"{problem}: {error}", code=error.code, field="--init-from") from error
    if parent.get("weights") != weights_of(run):
        raise RunError(
            f"{problem}: that run has other weights now",
            code="other_data",
            hint="train into a new folder",
        )
    return run


def weights_of(run: Run) -> dict[str, str]:
    """Return the sha256 of the weights by file, which were checked when the run was loaded."""
    digests: dict[str, str] = run.info["weights"]
    return digests
