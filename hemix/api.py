"""The commands as functions: paths in, paths and figures out.

The command line parses, calls these and prints.

Heavy parts are imported where they are used, so that ``hemix simulate`` and ``hemix prepare`` never
load torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hemix.config import named_overrides
from hemix.errors import MissingExtra, RunError, UsageError
from hemix.formats import SavedFormat
from hemix.training.callbacks import SILENT, Callback, Record

if TYPE_CHECKING:
    from hemix.data.dataset import Dataset as Dataset
    from hemix.distributed import DistributedContext
    from hemix.runs import Run as Run
    from hemix.serving.config import ServeConfig
    from hemix.settings import Settings

__all__ = [
    "Dataset",
    "Run",
    "ablate",
    "compare",
    "demo",
    "doctor",
    "evaluate",
    "experiment",
    "export",
    "import_logs",
    "import_models",
    "predict",
    "prepare",
    "scale",
    "simulate",
    "store_load",
    "train",
]

_DEMO_FORMAT = SavedFormat(version=1, error=RunError, remedy="name a new folder with --out")
"""Of logs/demo.json"""

PathLike = str | Path
Progress = Callable[[str, float], None]


def _silent(_what: str, _share: float) -> None: ...


def __getattr__(name: str) -> Any:
    if name == "Dataset":
        from hemix.data.dataset import Dataset

        return Dataset
    if name == "Run":
        from hemix.runs import Run

        return Run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def simulate(
    out: PathLike, *, users: int, days: int, seed: int = 0, on_progress: Progress = _silent
) -> dict[str, Any]:
    """The simulated city's logs into a new folder ``out``; the truth lies apart in ``out/truth``.

    Returns counts.
    """
    from hemix.lab.simulator import simulate as run_simulation

    return run_simulation(Path(out), users=users, days=days, seed=seed, on_progress=on_progress)


def import_logs(
    name: str, raw: PathLike, out: PathLike, *, random_log: bool = False
) -> dict[str, Any]:
    """A public data set's raw files to logs in a new folder ``out``.

    ``name``: kuairand or movielens. Returns counts.
    """
    from hemix.lab.datasets import import_logs as run_import

    return run_import(name, Path(raw), Path(out), random_log=random_log)


def prepare(
    logs: PathLike,
    out: PathLike,
    *,
    shift_days: int = 0,
    earlier: PathLike | None = None,
    forget_days: int | None = None,
    on_progress: Progress = _silent,
) -> dict[str, Any]:
    """Logs with their schema.yaml to a new dataset folder ``out``. Returns the manifest.

    ``shift_days``: below 0, moves the split so many whole days earlier: another origin of the same
    logs. ``earlier``: a dataset or a run whose ids go on, those forgotten that train rows have not
    held for ``forget_days`` (docs/how-to/incremental.md).
    """
    from hemix.preparation import prepare as run_prepare
    from hemix.preparation import shift_split

    schema = shift_split(Path(logs), shift_days) if shift_days else None
    return run_prepare(
        Path(logs),
        Path(out),
        schema=schema,
        continue_from=earlier,
        forget_days=forget_days,
        progress=on_progress,
    )


def import_models(files: Sequence[PathLike]) -> None:
    """Import Python files that register models, each once, for all that this process does next.

    Raises UsageError where a file is missing, fails to import or registers no model.
    """
    from hemix.models import import_files

    import_files(files)


def train(
    data: PathLike,
    out: PathLike,
    *,
    model: str | None = None,
    size: str | None = None,
    seed: int | None = None,
    config: PathLike | None = None,
    settings: Sequence[str] | Mapping[str, Any] = (),
    resume: bool = False,
    start_from: PathLike | None = None,
    on_start: Callable[[Record], None] | None = None,
    on_record: Callable[[Record], None] | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Path:
    """Train a model on a dataset folder. See :func:`hemix.training.loop.train`.

    Under ``torchrun`` every process calls this with the same arguments
    (docs/how-to/several-processes.md).

    Args:
        data: The dataset folder.
        out: The run folder.
        model: Name of the model.
        size: tiny, base, small or large.
        seed: Every random choice comes from it.
        config: YAML file of settings.
        settings: Single values over these, such as ``{"train.epochs": 2}``.
        resume: Continue an interrupted run, with its own settings.
        start_from: The run folder whose weights this one begins with.
        on_start, on_record, on_step: As :class:`hemix.training.callbacks.Callback` has them.

    Returns:
        The run folder.

    Raises:
        UsageError, SettingsError, RunError: As :func:`hemix.training.loop.train` does.
    """
    from hemix.data.dataset import Dataset
    from hemix.runs import Run
    from hemix.training.callbacks import function_callback
    from hemix.training.loop import train as run_training

    out = Path(out)
    flags = {"model": model, "size": size, "seed": seed, "overrides": settings}
    chosen = _training_settings(out, config, flags, resume=resume)
    first = Run.load(start_from) if start_from is not None else None
    dataset = Dataset(data)
    dataset.verify()
    callback = function_callback(on_start, on_record, on_step)
    with _distributed(chosen.train.device) as distributed:
        run_training(
            dataset,
            out,
            chosen,
            resume=resume,
            start_from=first,
            distributed=distributed,
            callback=callback,
        )
    return out


@contextmanager
def _distributed(device: str) -> Iterator[DistributedContext | None]:
    """The processes that torchrun started, which end together; None for this process alone."""
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
    out: Path, config: PathLike | None, flags: Mapping[str, Any], *, resume: bool
) -> Settings:
    """The settings of a run: its own where it is resumed. Raises UsageError for other flags."""
    from hemix.settings import build_settings

    saved = out / "settings.yaml"
    if not resume or not saved.exists():
        return build_settings(config=config, **flags)
    own = build_settings(config=saved)
    another_model = flags["model"] not in (None, own.model.name)
    if another_model or build_settings(config=config or saved, **flags) != own:
        own_settings = "goes on with its own settings (settings.yaml)"
        raise UsageError(
            f"--resume: {out} {own_settings}", field="--resume", hint="leave the other flags away"
        )
    return own


def evaluate(
    run: PathLike,
    data: PathLike,
    *,
    split: str = "test",
    on_progress: Progress = _silent,
    **options: Any,
) -> dict[str, Any]:
    """Metrics of a run on a split: merged into RUN/metrics.json, shown in RUN/report.html,
    returned.
    """
    from hemix.data.dataset import Dataset
    from hemix.runs import Run
    from hemix.runs.evaluation import evaluate_run

    return evaluate_run(Run.load(run), Dataset(data), split, on_progress=on_progress, **options)


def predict(
    run: PathLike,
    data: PathLike,
    out: PathLike,
    *,
    split: str = "test",
    bias: Literal["logged", "serving"] = "serving",
    on_progress: Progress = _silent,
    on_without_score: Callable[[int], None] = lambda _rows: None,
) -> int:
    """Scores of every impression of a split into a new Parquet file; returns how many rows.
    ``on_without_score`` gets the number of rows that have no score, where there are any: a column
    of the expression is missing, or its value is not finite."""
    from hemix.data.dataset import Dataset
    from hemix.runs import Run
    from hemix.runs.prediction import predicted_tables, write_predictions

    dataset = Dataset(data)
    total = dataset.manifest["splits"].get(split, {}).get("rows", 1)
    tables = predicted_tables(
        Run.load(run),
        dataset,
        split,
        bias=bias,
        on_progress=lambda done: on_progress("predict", done / total),
    )
    counts = write_predictions(tables, out)
    if counts["without_score"]:
        on_without_score(counts["without_score"])
    return counts["rows"]


def compare(
    data: PathLike | Sequence[PathLike],
    out: PathLike,
    *,
    models: Sequence[str] | Mapping[str, Mapping[str, Any]] | None = None,
    settings: Sequence[str] | Mapping[str, Any] = (),
    **options: Any,
) -> dict[str, Any]:
    """Models on the same data, with the same search, seeds and origins, and their paired
    differences: ``out``/compare.json, report.html.

    ``models``: names, or settings by a label; None: all. Further arguments are those of
    :class:`hemix.lab.studies.compare.CompareConfig` and
    :class:`hemix.lab.studies.options.StudyOptions`.
    """
    from hemix.lab.studies.compare import CompareConfig
    from hemix.lab.studies.compare import compare as run_compare

    study = _study_options(options)
    chosen = study.pop("options")
    config = CompareConfig(models=models, overrides=named_overrides(settings), **study)
    return run_compare(_paths(data), Path(out), config, chosen)


def ablate(
    data: PathLike | Sequence[PathLike],
    out: PathLike,
    *,
    settings: Sequence[str] | Mapping[str, Any] = (),
    **options: Any,
) -> dict[str, Any]:
    """HeMix against itself without one part each: ``out``/ablate.json, report.html.

    Further arguments: :func:`hemix.lab.studies.ablate.ablate`.
    """
    from hemix.lab.studies.ablate import ablate as run_ablate

    return run_ablate(
        _paths(data), Path(out), overrides=named_overrides(settings), **_study_options(options)
    )


def scale(
    data: PathLike,
    out: PathLike,
    *,
    settings: Sequence[str] | Mapping[str, Any] = (),
    **options: Any,
) -> dict[str, Any]:
    """Sizes and history lengths, and the laws fitted to them: ``out``/scale.json, report.html.

    Further arguments: :class:`hemix.lab.studies.scale.ScaleConfig`.
    """
    from hemix.lab.studies.scale import ScaleConfig
    from hemix.lab.studies.scale import scale as run_scale

    study = _study_options(options)
    chosen = study.pop("options")
    config = ScaleConfig(overrides=named_overrides(settings), **study)
    return run_scale(Path(data), Path(out), config, chosen)


def _paths(data: PathLike | Sequence[PathLike]) -> list[PathLike]:
    return [data] if isinstance(data, str | Path) else list(data)


def _study_options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Gather the arguments of StudyOptions under ``options``."""
    from hemix.lab.studies.options import StudyOptions

    own = {
        key: value
        for key, value in arguments.items()
        if key in ("jobs", "threads", "on_plan", "on_trial")
    }
    return {
        **{key: value for key, value in arguments.items() if key not in own},
        "options": StudyOptions(**own),
    }


def export(
    run: PathLike, out: PathLike, *, format: str = "onnx", on_progress: Progress = _silent
) -> dict[str, Any]:
    """A run as ONNX graphs for other servers, checked against the model, in a new folder ``out``;
    returns its export.json.
    """
    from hemix.exporting import export_run

    return export_run(run, out, format, on_progress=on_progress)


def store_load(
    logs: PathLike,
    store: str,
    *,
    history_cap: int = 10_000,
    history_days: int | None = 90,
    item_days: int | None = 365,
    on_progress: Progress = _silent,
) -> dict[str, Any]:
    """Every event of the logs into the server's store at a URL, once, however often it is called.

    Returns counts.

    ``history_cap``, ``history_days``, ``item_days``: the server's own; the newest so many events of
    a user are kept, a user unheard of for so many days from now is forgotten, and so is what live
    events said of an item (None: never).
    """
    from hemix.backfill import load

    ttl_ms, item_ttl_ms = (
        None if days is None else days * 86_400_000 for days in (history_days, item_days)
    )
    return load(
        Path(logs),
        store,
        cap=history_cap,
        ttl_ms=ttl_ms,
        item_ttl_ms=item_ttl_ms,
        progress=on_progress,
    )


def served_rows(log: PathLike, run: PathLike, out: PathLike) -> dict[str, int]:
    """What `hemix serve` logged, with labels out of the events that answered to it, as tables of a
    new folder ``out``, for the schema of ``run``. Returns counts.
    """
    from hemix.schema import Schema
    from hemix.serving.ranking_log.training_rows import write_training_rows

    return write_training_rows(log, out, Schema.load(Path(run) / "schema.yaml"))


def served_replay(log: PathLike, run: PathLike, store: str | None = None) -> dict[str, Any]:
    """Rank again what `hemix serve` logged, with ``run`` and the events logged (or those in the
    ``store`` at a URL); returns how far the scores are from those served.
    """
    from hemix.serving.ranking_log.replay import replay_log

    return replay_log(Path(log), Path(run), store)


def serve(
    run: PathLike,
    config: ServeConfig | None = None,
    *,
    on_ready: Callable[[str, dict[str, float]], None] | None = None,
) -> None:
    """Serve over HTTP until SIGTERM or Ctrl-C.

    Args:
        run: A run folder, or a registry of them (``name/version/``).
        config: The configuration; None: the defaults. :func:`hemix.serving.config.load_config`
            reads it from a file and the environment.
        on_ready: Called with the URL, and the seconds that parts of the start took, when the
            server answers.

    Raises:
        UsageError: A setting cannot be used.
        RunError: A run cannot be served.
        StoreError: The store cannot be opened.
        MissingExtra: The extra ``serve`` is not installed.
    """
    try:
        from hemix.serving.config import ServeConfig
        from hemix.serving.server import run_server
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] == "hemix":
            raise
        raise MissingExtra(missing.name or "a package", "serve", "the ranking server") from missing
    run_server(Path(run), config or ServeConfig(), on_ready or (lambda _url, _seconds: None))


def demo(
    out: PathLike,
    *,
    users: int = 6000,
    days: int = 8,
    seed: int = 0,
    on_progress: Progress = _silent,
    callback: Callback = SILENT,
) -> dict[str, Any]:
    """Simulate, prepare, train, evaluate and report. Steps that are done already stay as they are.

    Args:
        out: Folder of the run, with its logs and data in it.
        users: Users of the simulated city.
        days: Days of impressions.
        seed: Every random choice comes from it.
        on_progress: Called with what is being done and the part of it that is done, 0 to 1.
        callback: Receives what training reports.

    Returns:
        The metrics of the test split.
    """
    from hemix.training.checks import check_out

    out = Path(out)
    made = out / "logs" / "demo.json"
    if not (out / "run.json").exists() or not made.exists():
        check_out(out, resume=made.exists())
    asked = {"users": users, "days": days, "seed": seed}
    if not made.exists():
        simulate(out / "logs", **asked, on_progress=on_progress)
        _DEMO_FORMAT.write(made, asked)
    elif (before := _DEMO_FORMAT.read(made)) != _DEMO_FORMAT.mark(asked):
        made_with = {name: before.get(name) for name in asked}
        raise UsageError(
            f"--out {out}: holds a demo of other users, days or seed ({made_with})",
            field="--out",
            hint="name a new folder",
        )
    if not (out / "data" / "manifest.json").exists():
        prepare(out / "logs", out / "data", on_progress=on_progress)
    train(
        out / "data",
        out,
        seed=seed,
        resume=True,
        on_start=callback.on_start,
        on_record=callback.on_record,
        on_step=callback.on_step,
    )
    return evaluate(out, out / "data", on_progress=on_progress)


def doctor() -> dict[str, Any]:
    """Versions, devices, optional parts and which kernels are in use."""
    from hemix.environment import examine

    return examine()


def experiment(
    arms: Mapping[str, str],
    out: PathLike,
    *,
    logs: PathLike,
    users: int,
    days: int,
    first_user: int = 0,
    design: Literal["paired", "split"] = "paired",
    seed: int = 0,
    draws: int | None = None,
    token: str | None = None,
    patience_seconds: float = 30.0,
    on_power: Callable[[Mapping[str, float | None]], None] = lambda _: None,
    on_progress: Progress = _silent,
) -> dict[str, Any]:
    """Run or continue a simulated A/B test; writes experiment.json and report.html.

    Args:
        arms: URL of a server, ``oracle`` or ``popularity``, by name.
        out: Folder of the experiment; a second call with the same options continues it.
        logs: Folder that :func:`simulate` wrote.
        users: Number of users.
        days: Number of days after the logs.
        first_user: Index of the first user.
        design: ``paired``: every user in every arm; ``split``: every user in one arm.
        seed: Seed of the split design.
        draws: Recall draws per request, by default the city's.
        token: Token of the servers.
        patience_seconds: Time after which a server without an answer is paused.
        on_power: Called with the detectable relative difference by metric.
        on_progress: Called with the stage and the finished fraction, 0 to 1.

    Returns:
        The content of experiment.json.

    Raises:
        UsageError: For an invalid plan, or arms that cannot be compared.
        DataError: If the logs are not those of a simulated city, or a result is damaged.
    """
    from hemix.lab.abtest import Plan
    from hemix.lab.abtest import experiment as run_experiment

    plan = Plan(
        arms=dict(arms),
        logs=str(logs),
        users=users,
        days=days,
        first_user=first_user,
        design=design,
        seed=seed,
        draws=draws,
    )
    return run_experiment(
        plan,
        out,
        token=token,
        arm_timeout_seconds=patience_seconds,
        on_power=on_power,
        on_progress=on_progress,
    )
