"""The run whose weights a run begins with, written down in its folder from the beginning.

So a resume before the first checkpoint still finds those weights.
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
    """Write into a run folder whose weights the run begins with.

    Args:
        out: The run folder.
        run: The parent; None for weights of the seed: nothing is written.
    """
    if run is None:
        return
    folder = str(run.folder.absolute())
    content = {"schema_version": 1, "run": folder, "weights": weights_of(run)}
    _FORMAT.write(out / PARENT_FILE, content)


def parent_run(out: Path, given: Run | None, *, has_checkpoint: bool) -> Run | None:
    """Find the run whose weights a resumed run begins with.

    Args:
        out: The folder of the resumed run.
        given: What --from names now.
        has_checkpoint: Whether a checkpoint holds the weights already.

    Returns:
        The parent; None for weights of the seed or of the checkpoint.

    Raises:
        UsageError: If the run began with other weights than ``given``'s.
        RunError: If the parent is gone or has other weights now.
    """
    path = out / PARENT_FILE
    parent: dict[str, Any] | None = _FORMAT.read(path) if path.exists() else None
    if parent is None and not (out / "settings.yaml").exists():
        return given  # nothing was begun there
    if given is not None and (parent is None or parent.get("weights") != weights_of(given)):
        own = "weights of its own" if parent is None else f"the weights of {parent.get('run')}"
        message = f"{out} began with {own}; leave the flag away to go on"
        raise UsageError(f"--from {given.folder}: {message}")
    if has_checkpoint:
        return None
    if parent is None or given is not None:
        return given
    folder = Path(str(parent.get("run")))
    began = f"{out}: began with the weights of {folder} (--from) and has no checkpoint yet"
    try:
        run = Run.load(folder)
    except HemixError as error:
        raise RunError(f"{began}: {error}") from error
    if parent.get("weights") != weights_of(run):
        raise RunError(f"{began}: that run has other weights now; begin a new one")
    return run


def weights_of(run: Run) -> dict[str, str]:
    """sha256 by file, as they were checked when the run was loaded."""
    digests: dict[str, str] = run.info["weights"]
    return digests
