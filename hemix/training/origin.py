"""What a run's first weights came from: kept in its folder from the beginning, so that a resume before the first checkpoint has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hemix.errors import HemixError, RunError, UsageError
from hemix.files import read_json, write_json
from hemix.run.folder import Run

__all__ = ["ORIGIN_FILE", "first_run", "keep_origin", "weights_of"]

ORIGIN_FILE = "from.json"


def keep_origin(out: Path, run: Run | None) -> None:
    """Write down in the folder ``out`` whose weights the run there begins with, and their sha256; nothing for weights of its own."""
    if run is not None:
        write_json(out / ORIGIN_FILE, {"schema_version": 1, "run": str(run.folder.absolute()), "weights": weights_of(run)})


def first_run(out: Path, given: Run | None, *, has_checkpoint: bool) -> Run | None:
    """The run whose weights the one in ``out``, which goes on, begins with; None for weights of its own or those of its checkpoint.

    ``given``: what --from names now. Raises UsageError where the run began with other weights than those, RunError where they are gone
    or changed.
    """
    path = out / ORIGIN_FILE
    origin: dict[str, Any] | None = read_json(path, RunError) if path.exists() else None
    if origin is None and not (out / "settings.yaml").exists():
        return given  # nothing was begun there
    if given is not None and (origin is None or origin.get("weights") != weights_of(given)):
        began = "weights of its own" if origin is None else f"the weights of {origin.get('run')}"
        raise UsageError(f"--from {given.folder}: {out} began with {began}; leave the flag away to go on")
    if has_checkpoint:
        return None
    if origin is None or given is not None:
        return given
    folder = Path(str(origin.get("run")))
    before = f"{out}: began with the weights of {folder} (--from) and has no checkpoint yet"
    try:
        run = Run.load(folder)
    except HemixError as error:
        raise RunError(f"{before}: {error}") from error
    if origin.get("weights") != weights_of(run):
        raise RunError(f"{before}: that run has other weights now; begin a new one")
    return run


def weights_of(run: Run) -> dict[str, str]:
    """sha256 by file, as they were checked when the run was loaded."""
    digests: dict[str, str] = run.info["weights"]
    return digests
