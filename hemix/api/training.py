"""Functions that train, evaluate and export runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hemix.api.types import PathLike, Progress, SplitName, ignore_progress
from hemix.errors import UsageError
from hemix.training.callbacks import SILENT, Callback

if TYPE_CHECKING:
    from hemix.distributed import DistributedContext
    from hemix.runs.folder import ScoredPosition
    from hemix.settings import Settings

__all__ = [
    "ScoreOptions",
    "evaluate",
    "export",
    "import_models",
    "predict",
    "quick_search",
    "score",
    "train",
]


def import_models(files: Sequence[PathLike]) -> None:
    """Import Python files that register models; each file is imported once.

    Raises UsageError where a file is missing, fails to import or registers no model.
    """
    from hemix.models import import_files

    import_files(files)


def train(
    data: PathLike,
    out: PathLike,
    *,
    model: str | None = None,
    settings: Settings | Mapping[str, Any] | Sequence[str] = (),
    resume: bool = False,
    init_from: PathLike | None = None,
    callback: Callback = SILENT,
) -> Path:
    """Train a model on a dataset into a run folder.

    Under ``torchrun`` every process calls this with the same arguments
    (docs/how-to/several-processes.md).

    Args:
        data: The dataset folder.
        out: The run folder.
        model: Name of the model; None: that of the settings, by default hemix.
        settings: Changes of the defaults, ``{"train.epochs": 2}`` or ``["train.epochs=2"]``; or all
            settings, such as :func:`hemix.build_settings` makes of a YAML file.
        resume: Continue an interrupted run, with its own settings.
        init_from: A run folder whose weights the new run begins with.
        callback: Receives what training reports.

    Returns:
        The run folder.

    Raises:
        UsageError: ``out`` cannot be used, or a resumed run has other settings.
        SettingsError: A setting is unknown or invalid.
        RunError: A checkpoint or ``init_from`` cannot be used, or the loss diverges.
        StorageError: The disk is full.
        Interrupted: After Ctrl-C or SIGTERM, when the checkpoint is saved.
    """
    from hemix.data.dataset import Dataset
    from hemix.runs import Run
    from hemix.training.loop import train as run_training

    out = Path(out)
    chosen, own = _training_settings(out, model, settings, resume=resume)
    parent = Run.load(init_from) if init_from is not None else None
    dataset = Dataset(data)
    dataset.verify()
    if own is not None:
        rows = dataset.manifest["splits"]["train"]["rows"]
        before = None if parent is None else parent.settings
        if chosen.resolved(rows, before) != own.resolved(rows):
            raise _other_settings(out)
    with _distributed(chosen.train.device) as distributed:
        run_training(
            dataset,
            out,
            chosen,
            resume=resume,
            init_from=parent,
            distributed=distributed,
            callback=callback,
        )
    return out


@contextmanager
def _distributed(device: str) -> Iterator[DistributedContext | None]:
    """Connect the processes that torchrun started; yield None for this process alone."""
    from hemix.distributed import DistributedContext

    distributed = DistributedContext.from_environment(device)
    try:
        yield distributed
        if distributed is not None:
            distributed.barrier()
    finally:
        if distributed is not None:
            distributed.close()


def _training_settings(
    out: Path,
    model: str | None,
    settings: Settings | Mapping[str, Any] | Sequence[str],
    *,
    resume: bool,
) -> tuple[Settings, Settings | None]:
    """Return the chosen settings, and those that a resumed run has, which must be the same.

    Raises UsageError where ``model`` is not that of the settings or of a resumed run.
    """
    from hemix.settings import Settings, build_settings

    saved = out / "settings.yaml"
    own = build_settings(config=saved) if resume and saved.exists() else None
    if own is not None and model not in (None, own.model.name):
        raise _other_settings(out)
    if isinstance(settings, Settings):
        if model not in (None, settings.model.name):
            name = settings.model.name
            raise UsageError(f"model: settings are those of {name}, not {model}", field="model")
        chosen = settings
    else:
        config = None if own is None else saved
        chosen = build_settings(model=model, config=config, overrides=settings)
    return chosen, own


def _other_settings(out: Path) -> UsageError:
    return UsageError(
        f"--resume: the run in {out} has other settings than the flags; a run cannot change them",
        field="--resume",
        hint="leave out --model, --size, --seed, --config and --set, or name another --out",
    )


def quick_search(
    data: PathLike,
    out: PathLike,
    *,
    model: str | None = None,
    settings: Settings | Mapping[str, Any] | Sequence[str] = (),
    callback: Callback = SILENT,
) -> Path:
    """Train three models of a small log and keep the best on valid, as ``train --search quick``.

    The points are the settings themselves, a dense learning rate 2.5 times as high, and one epoch
    more. OUT/search.json lists them with their valid losses.

    Args:
        data: The dataset folder, of at most 100,000 train rows.
        out: The new run folder.
        model: Name of the model; None: that of the settings, by default hemix.
        settings: As in :func:`train`.
        callback: Receives what all three runs report.

    Returns:
        The run folder.

    Raises:
        UsageError: ``out`` cannot be used, the log is larger, or the model is lightgbm.
        SettingsError: A setting is unknown or invalid.
        RunError: The loss of a run diverges.
        Interrupted: After Ctrl-C or SIGTERM; no run is kept.
    """
    from hemix.data.dataset import Dataset
    from hemix.training.quick_search import search_quickly

    out = Path(out)
    chosen, _ = _training_settings(out, model, settings, resume=False)
    dataset = Dataset(data)
    dataset.verify()
    return search_quickly(dataset, out, chosen, callback=callback)


def evaluate(
    run: PathLike,
    data: PathLike,
    *,
    split: SplitName = "test",
    importance_impressions: int = 8_000,
    seed: int = 0,
    on_progress: Progress = ignore_progress,
) -> dict[str, Any]:
    """Measure a run on a split; writes RUN/metrics.json and RUN/report.html.

    Args:
        run: The run folder.
        data: A dataset folder with the run's schema and encoders.
        split: Name of the split.
        importance_impressions: Impressions for the permutation importance; 0 skips it.
        seed: Seed of the bootstrap, the ECE floor and the permutations.
        on_progress: Called with the activity and its completed fraction.

    Returns:
        The split's entry of metrics.json.

    Raises:
        RunError: The run cannot be used, or the dataset has another schema.
        DataError: The dataset is damaged, or has no such split.
    """
    from hemix.data.dataset import Dataset
    from hemix.runs import Run
    from hemix.runs.evaluation import evaluate_run

    return evaluate_run(
        Run.load(run),
        Dataset(data),
        split,
        importance_impressions=importance_impressions,
        seed=seed,
        on_progress=on_progress,
    )


def predict(
    run: PathLike,
    data: PathLike,
    out: PathLike,
    *,
    split: SplitName = "test",
    position: ScoredPosition = "serving",
    on_progress: Progress = ignore_progress,
) -> dict[str, int]:
    """Score every impression of a split into a new Parquet file.

    Args:
        run: The run folder.
        data: A dataset folder with the run's schema and encoders.
        out: The new file.
        split: Name of the split.
        position: ``serving`` gives the scores of a server, ``logged`` those at the logged position.
        on_progress: Called with the activity and its completed fraction.

    Returns:
        The number of ``rows``, and how many of them are ``without_score``: a column of the
        expression is missing there, or its value is not finite.

    Raises:
        RunError: The run cannot be used, or the dataset has another schema.
        UsageError: ``out`` exists.
    """
    from hemix.data.dataset import Dataset
    from hemix.runs import Run
    from hemix.runs.prediction import predicted_tables, write_predictions

    dataset = Dataset(data)
    total = dataset.manifest["splits"].get(split, {}).get("rows", 1)
    tables = predicted_tables(
        Run.load(run),
        dataset,
        split,
        position=position,
        on_progress=lambda done: on_progress("predict", done / total),
    )
    return write_predictions(tables, out)


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """Details of :func:`score`."""

    items: PathLike | None = None
    """Features of items that are new or have changed since training; None: those of the run"""
    users: PathLike | None = None
    """The same of users"""
    store: str | None = None
    """URL of a server's store, in place of events, items and users"""
    top: int | None = None
    """Write only so many best rows of every request, with their ``rank`` from 1; None: all rows.

    Without request ids, the rows of a user at a time are a request.
    """
    processes: int = 1
    """Processes of this machine that score at a time"""


def score(
    run: PathLike,
    impressions: PathLike,
    out: PathLike,
    *,
    events: PathLike | None = None,
    options: ScoreOptions | None = None,
    on_progress: Progress = ignore_progress,
) -> dict[str, int]:
    """Score new rows, without labels or splits, into a new Parquet file.

    The scores are those of ``hemix serve``. Rows keep their columns. Each table is a Parquet file
    or a folder of these, with the columns of the run's schema.

    Args:
        run: The run folder.
        impressions: The rows to score: user, item, time, context and cross columns.
        out: The new file.
        events: Events of histories. Without events and a store, histories are empty.
        options: Features of items and users, a store, the best rows alone, processes.
        on_progress: Called with the activity and its completed fraction.

    Returns:
        Counts: ``rows`` that were scored, ``written`` rows, and rows ``without_score``, with
        ``unknown_items``, with ``unknown_users``, and with ``cut_histories``, whose users have so
        many later events that earlier ones were not read.

    Raises:
        DataError: A file or a value cannot be used; names file, row and column.
        RunError: The run cannot be used.
        StoreError: The store fails.
        UsageError: ``out`` exists, or options contradict each other.
    """
    from hemix.batch_scoring import ScoringInputs
    from hemix.batch_scoring import score as score_files

    options = options or ScoreOptions()

    def path(given: PathLike | None) -> Path | None:
        return None if given is None else Path(given)

    inputs = ScoringInputs(
        impressions=Path(impressions),
        events=path(events),
        items=path(options.items),
        users=path(options.users),
        store=options.store,
    )
    return score_files(
        Path(run),
        inputs,
        Path(out),
        top=options.top,
        processes=options.processes,
        progress=on_progress,
    )


def export(
    run: PathLike,
    out: PathLike,
    *,
    format: Literal["onnx"] = "onnx",
    on_progress: Progress = ignore_progress,
) -> dict[str, Any]:
    """Write a run as graphs for other servers and compare them with the model.

    Args:
        run: The run folder.
        out: The new folder.
        format: ``onnx``.
        on_progress: Called with the activity and its completed fraction.

    Returns:
        The content of export.json.

    Raises:
        UsageError: The format is unknown, the model cannot be exported or ``out`` is not new.
        MissingExtra: The extra ``onnx`` is not installed.
        RunError: The run is not finished, or the graphs differ from the model.
    """
    from hemix.exporting import export_run

    return export_run(run, out, format, on_progress=on_progress)
