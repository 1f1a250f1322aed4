"""Checks that the processes of a run, its dataset and its checkpoint belong together."""

from __future__ import annotations

from hemix.data.dataset import Dataset
from hemix.errors import RunError
from hemix.runs.folder import INFO_FILE
from hemix.training.checkpoint import Checkpoint
from hemix.training.job import TrainingJob
from hemix.training.parent import weights_of
from hemix.validation import first_difference

__all__ = ["assert_equal_jobs", "check_same_data"]


def assert_equal_jobs(job: TrainingJob) -> None:
    """Raise UsageError in all processes where they would begin differently.

    The error names the setting, the file of the data or the flag that differs, and the process.
    """
    if job.distributed is None:
        return
    sections = job.settings.model_dump(mode="json").items()
    settings = {f"{group}.{name}": v for group, values in sections for name, v in values.items()}
    fingerprint = job.data.schema.fingerprint()
    info = job.out / INFO_FILE
    parent = None if job.init_from is None else weights_of(job.init_from)
    job.distributed.assert_equal_across_ranks(
        {
            "data": {"schema.yaml": fingerprint, **job.data.file_hashes()},
            "settings": settings,  # after the data, from which automatic ones follow
            "flags": {"--resume": job.resume, "--init-from": parent},
            "files": {f"{info}": "there" if info.exists() else "missing"},
        }
    )


def check_same_data(checkpoint: Checkpoint, data: Dataset) -> None:
    """Refuse a checkpoint of other data.

    Args:
        checkpoint: The checkpoint to continue from.
        data: The dataset to train on.

    Raises:
        RunError: Naming the first column that differs for another schema, or the first file.
    """
    state, folder = checkpoint.state, checkpoint.folder
    if state["fingerprint"] != data.schema.fingerprint():
        difference = first_difference(state["schema"], data.schema.model_dump(mode="json"))
        where = f"they differ in {difference or 'which tables there are'}"
        raise RunError(
            f"{folder}: of another schema than {data.folder}: {where}", code="other_schema"
        )
    theirs, ours = state["data"], data.file_hashes()
    if theirs != ours:
        names = sorted(theirs.keys() | ours.keys())
        name = next(name for name in names if theirs.get(name) != ours.get(name))
        reason = f"was trained on another dataset than {data.folder} ({name} differs)"
        raise RunError(f"{folder}: {reason}", code="other_data", hint="resume with the same one")
