"""Train a model on a dataset into a run folder: the checks, the start or the resume, the end.

The steps themselves are the :mod:`trainer <hemix.training.trainer>`'s; boosted trees train in
:mod:`boosting <hemix.training.boosting>`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hemix.data.dataset import Dataset
from hemix.distributed import DistributedContext, on_all_ranks, on_rank_zero
from hemix.errors import UsageError
from hemix.files import link_target, storage_errors
from hemix.measure import PeakMemory
from hemix.models import find_model
from hemix.models.lightgbm import LightGBM
from hemix.runs import folder as run_folder
from hemix.runs.folder import INFO_FILE, Run
from hemix.settings import Settings
from hemix.training.boosting import boost
from hemix.training.callbacks import SILENT, Callback, Record
from hemix.training.checkpoint import Checkpoint, Checkpoints
from hemix.training.checks import check_memory, check_out
from hemix.training.consistency import assert_equal_jobs, check_same_data
from hemix.training.job import TrainingJob
from hemix.training.parent import parent_run, write_parent
from hemix.training.run_lock import RunLock
from hemix.training.slots import check_slots
from hemix.training.trainer import Trainer

__all__ = ["Record", "train"]


def train(
    data: Dataset,
    out: str | Path,
    settings: Settings,
    *,
    resume: bool = False,
    init_from: Run | None = None,
    distributed: DistributedContext | None = None,
    callback: Callback = SILENT,
) -> Path:
    """Train a model on ``data``'s train split into a run folder.

    Of several processes each calls this with the same arguments. Each holds some of the tables'
    rows and computes some slots of every step. Batches, losses and files are those of one process;
    only rank 0 calls the callback.

    Args:
        data: The dataset.
        out: The run folder: new, or with ``resume`` an unfinished run.
        settings: All settings, where ``auto`` is resolved by the train rows; an interrupted run
            needs its own ones.
        resume: Continue an interrupted run exactly; leave a finished one as it is. Without a
            complete checkpoint it starts afresh, from the weights that it began with.
        init_from: The run whose weights the new one begins with.
        distributed: The processes of the run; None: this process alone.
        callback: Receives what the run reports.

    Returns:
        The run folder.

    Raises:
        UsageError: If ``out`` cannot be used, or another process trains into it.
        RunError: If a checkpoint or the run to start from cannot be used, or the loss diverges.
        StorageError: If the disk is full.
        Interrupted: After Ctrl-C or SIGTERM, when the checkpoint is saved.
    """
    train_rows = data.manifest["splits"]["train"]["rows"]
    parent = None if init_from is None else init_from.settings
    job = TrainingJob(
        data=data,
        out=link_target(out),
        settings=settings.resolved(train_rows, parent),
        automatic=settings.train.automatic(),
        resume=resume,
        init_from=init_from,
        distributed=distributed,
        callback=callback,
    )
    if not job.is_rank_zero:
        job = replace(job, callback=SILENT)
    assert_equal_jobs(job)
    if resume and (job.out / INFO_FILE).exists():
        return job.out
    with RunLock(job.out) as lock:
        _train(job, lock)
    return job.out


def _train(job: TrainingJob, lock: RunLock) -> None:
    on_rank_zero(job.distributed, lambda: _check_folder(job, lock), f"begin {job.out}")
    background_group = _background_group(job)
    if issubclass(find_model(job.settings.model.name).model, LightGBM):
        if job.distributed is not None:
            raise UsageError(
                "--processes: lightgbm trains in one process, with train.threads",
                field="--processes",
            )
        boost(job)
        return
    check_memory(job.data.spec, job.settings, job.processes)
    check_slots(job.settings, job.data, job.processes)
    checkpoint, half_written = _find_checkpoint(job)
    if job.resume:
        parent = parent_run(job.out, job.init_from, has_checkpoint=checkpoint is not None)
        job = replace(job, init_from=parent)
    trainer = Trainer(job, background_group)
    if checkpoint is None:
        on_rank_zero(job.distributed, lambda: _begin_folder(job, lock), f"begin {job.out}")
    else:
        restored = checkpoint
        description = f"read {restored.folder}"
        on_all_ranks(job.distributed, lambda: trainer.restore(restored), description)
    resumes_nothing = job.resume and checkpoint is None
    resuming = {"nothing_to_resume": resumes_nothing, "half_written": half_written}
    job.callback.on_start({**trainer.header(), **resuming})
    try:
        with storage_errors(job.out), PeakMemory() as memory:
            trainer.run()
            trainer.finish(memory)
    finally:
        trainer.close()


def _check_folder(job: TrainingJob, lock: RunLock) -> None:
    """Check the run folder, and lock it if it exists."""
    check_out(job.out, resume=job.resume)
    if (job.out / "log.jsonl").exists():
        with storage_errors(job.out):
            lock.acquire()


def _background_group(job: TrainingJob) -> DistributedContext | None:
    """Connect the processes a second time for asynchronous checkpoints, while all are here."""
    options = job.settings.train
    if job.distributed is None or not options.async_checkpoint:
        return None
    return job.distributed.background_group() if options.checkpoint_every_steps > 0 else None


def _find_checkpoint(job: TrainingJob) -> tuple[Checkpoint | None, list[str]]:
    """The newest complete checkpoint, and newer ones that are half-written.

    Raises UsageError where the processes do not see the same one.
    """
    checkpoints = Checkpoints(job.out, job.settings.train.keep_checkpoints)
    newest = (
        checkpoints.latest(lambda other: check_same_data(other, job.data)) if job.resume else None
    )
    half_written = checkpoints.half_written() if job.resume else []
    if job.distributed is not None:
        name, digest = (None, None) if newest is None else (newest.folder.name, newest.digest)
        facts = {"the newest complete one": name, "its state.json": digest}
        job.distributed.assert_equal_across_ranks({"checkpoints": facts})
    return newest, half_written


def _begin_folder(job: TrainingJob, lock: RunLock) -> None:
    """Make or empty the run folder and lock it."""
    with storage_errors(job.out):
        job.out.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        (job.out / "log.jsonl").write_text("")
        write_parent(job.out, job.init_from)
        run_folder.begin(job.out, job.settings, job.data)
