"""How the processes of a run begin: with the same settings, data and files, on the data of their checkpoint, and with which random
numbers each part of a step works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hemix.data.dataset import Dataset
from hemix.errors import RunError
from hemix.run.folder import INFO_FILE, Run
from hemix.schema import first_difference
from hemix.settings import Settings
from hemix.team import Team
from hemix.training.checkpoint import Checkpoint
from hemix.training.origin import weights_of

__all__ = ["agree", "check_fits", "identity", "in_first", "part_seed", "together"]


def agree(team: Team, data: Dataset, out: Path, settings: Settings, *, resume: bool, start_from: Run | None) -> None:
    """Raises UsageError in all processes where they would begin differently: which setting, file of the data or flag, and in which
    process."""
    sections = settings.model_dump(mode="json").items()
    team.same(
        {
            "settings": {f"{section}.{name}": value for section, part in sections for name, value in part.items()},
            "data": {"schema.yaml": data.schema.fingerprint(), **_hashes(identity(data))},
            "flags": {"--resume": resume, "--from": None if start_from is None else weights_of(start_from)},
            "files": {f"{out / INFO_FILE}": "there" if (out / INFO_FILE).exists() else "missing"},
        }
    )


def identity(data: Dataset) -> dict[str, Any]:
    """What makes a dataset the same one, wherever it lies."""
    return {"fingerprint": data.schema.fingerprint(), "encoders": data.manifest["encoders"], "files": data.manifest["files"]}


def check_fits(checkpoint: Checkpoint, data: Dataset) -> None:
    """Raises RunError where a checkpoint is of another schema, naming the first column that differs, or of other data, naming the first
    file that does."""
    theirs, ours = checkpoint.state["data"], identity(data)
    if theirs["fingerprint"] != ours["fingerprint"]:
        where = first_difference(checkpoint.state["schema"], data.schema.model_dump(mode="json")) or "which tables there are"
        raise RunError(f"{checkpoint.folder}: of another schema than {data.folder}: they differ in {where}")
    if theirs != ours:
        before, now = _hashes(theirs), _hashes(ours)
        name = next(name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name))
        raise RunError(
            f"{checkpoint.folder}: was trained on another dataset than {data.folder} ({name} differs); resume with the same one"
        )


def _hashes(data: dict[str, Any]) -> dict[str, str]:
    return {name: entry["xxh64"] for name, entry in data["files"].items()}


def together(team: Team | None, work: Callable[[], None], what: str) -> None:
    """Do it in every process, before any goes on."""
    if team is None:
        work()
    else:
        team.together(work, what)


def in_first(team: Team | None, work: Callable[[], None], what: str) -> None:
    """Do what one process does for all, before any goes on."""
    together(team, work if team is None or team.first else lambda: None, what)


def part_seed(seed: int, step: int, part: int) -> int:
    """Seed of the random numbers of a part of a step's batch: dropout of one repeats no other's, and nothing of it has to be kept."""
    return int(np.random.SeedSequence([seed, step, part]).generate_state(1, np.uint64)[0])
