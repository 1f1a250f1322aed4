"""The command line: parse, call the API, print. No work is done here.

A wrong input ends with one line on stderr and exit code 2; an interrupted command with 130.
``--json`` prints what a machine would want instead of what a person would.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from hemix import api, cli_serving
from hemix.cli_errors import COMMAND_ERRORS, report, to_hemix_error
from hemix.errors import Interrupted, UsageError

__all__ = ["app", "main"]

app = typer.Typer(
    name="hemix",
    help="HeMix: from impression logs to a trained, evaluated ranking model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

OutFolder = Annotated[Path, typer.Option("--out", help="New folder to write.", show_default=False)]
DataFolder = Annotated[
    Path, typer.Option("--data", help="Dataset folder made by hemix prepare.", show_default=False)
]
RunFolder = Annotated[
    Path, typer.Argument(help="Run folder made by hemix train.", show_default=False)
]
SplitName = Annotated[str, typer.Option("--split", help="train, valid or test.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a machine.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Every random choice comes from it.")]
Imports = cli_serving.Imports


def _console() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)


def _emit(content: dict[str, Any], as_json: bool, text: str) -> None:
    print(json.dumps(content, indent=1, ensure_ascii=False) if as_json else text)


def _version(asked: bool) -> None:
    if asked:
        print(f"hemix {version('hemix')}")
        raise typer.Exit


@app.callback()
def _options(
    _asked: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """HeMix: from impression logs to a trained, evaluated ranking model."""


@app.command()
def demo(
    out: OutFolder,
    users: Annotated[int, typer.Option(min=1, help="Users of the simulated city.")] = 6000,
    days: Annotated[int, typer.Option(min=3, help="Days of impressions.")] = 8,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Simulate a city, prepare its logs, train, evaluate and write a report."""
    from hemix.display import Display, demo_summary

    with Display(_console()) as display:
        figures = api.demo(
            out,
            users=users,
            days=days,
            seed=seed,
            on_progress=display.progress,
            callback=display.training(),
        )
    _emit(figures, json_, demo_summary(figures, out))


@app.command()
def simulate(
    out: OutFolder,
    users: Annotated[int, typer.Option(min=1, help="Users of the city.")] = 3000,
    days: Annotated[
        int, typer.Option(min=3, help="Days of impressions; an events-only past precedes them.")
    ] = 8,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Write the logs of a simulated city, with the truth apart in OUT/truth."""
    from hemix.display import Display, counts_line

    with Display(_console()) as display:
        counts = api.simulate(out, users=users, days=days, seed=seed, on_progress=display.progress)
    _emit(counts, json_, f"{out}: {counts_line(counts)}\nNext: hemix prepare {out} --out DATA")


@app.command(name="import")
def import_(
    name: Annotated[str, typer.Argument(help="kuairand or movielens.", show_default=False)],
    raw: Annotated[Path, typer.Argument(help="Folder of the raw files.", show_default=False)],
    out: OutFolder,
    random_log: Annotated[
        bool, typer.Option("--random-log", help="KuaiRand: add the randomly exposed impressions.")
    ] = False,
    json_: Json = False,
) -> None:
    """Turn a public data set's raw files into logs with a schema."""
    from hemix.display import counts_line

    with _console().status(f"importing {name} from {raw}"):
        counts = api.import_logs(name, raw, out, random_log=random_log)
    _emit(counts, json_, f"{out}: {counts_line(counts)}\nNext: hemix prepare {out} --out DATA")


@app.command()
def prepare(
    logs: Annotated[
        Path, typer.Argument(help="Folder of logs with a schema.yaml.", show_default=False)
    ],
    out: OutFolder,
    shift_days: Annotated[
        int | None,
        typer.Option(
            "--shift-days", help="-2: split two days earlier, a rolling origin.", show_default=False
        ),
    ] = None,
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from", help="A dataset or run whose ids go on (a later day).", show_default=False
        ),
    ] = None,
    forget_days: Annotated[
        int | None,
        typer.Option(
            "--forget-days",
            help="With --from: drop values not seen for so long.",
            show_default="never",
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Encode, sort and split logs into a dataset folder."""
    from hemix.display import Display, manifest_summary

    if shift_days is not None and shift_days >= 0:
        raise UsageError(
            f"--shift-days {shift_days}: expected a number below 0", field="--shift-days"
        )
    with Display(_console()) as display:
        manifest = api.prepare(
            logs,
            out,
            shift_days=shift_days or 0,
            earlier=from_,
            forget_days=forget_days,
            on_progress=display.progress,
        )
    _emit(manifest, json_, manifest_summary(manifest, out))


@app.command()
def train(
    data: DataFolder,
    out: OutFolder,
    model: Annotated[str | None, typer.Option(help="Model name.", show_default="hemix")] = None,
    size: Annotated[
        str | None, typer.Option(help="tiny, base, small or large.", show_default="tiny")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Every random choice comes from it.", show_default="0")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file of settings.", show_default=False)
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A setting, may be repeated: train.epochs=2 (docs/reference/settings.md)",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted run exactly.")
    ] = False,
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Go on from another run, also on a later day's data.", show_default=False
        ),
    ] = None,
    processes: Annotated[
        int, typer.Option("--processes", min=1, help="On this machine; on several, use torchrun.")
    ] = 1,
    _import: Imports = None,
    json_: Json = False,
) -> None:
    """Train a model into a run folder. Ctrl-C saves and says how to go on."""
    from hemix.display import Display, training_summary

    if processes > 1 and "RANK" not in os.environ:
        from hemix.training.launch import launch

        raise typer.Exit(launch(processes, sys.argv[1:]))

    with Display(_console()) as display:
        callback = display.training()
        api.train(
            data,
            out,
            model=model,
            size=size,
            seed=seed,
            config=config,
            settings=set_ or (),
            resume=resume,
            start_from=from_,
            on_start=callback.on_start,
            on_record=callback.on_record,
            on_step=callback.on_step,
        )
    if os.environ.get("RANK", "0") != "0":
        return
    metrics = json.loads((out / "metrics.json").read_text())
    _emit(metrics, json_, training_summary(metrics, data, out))


@app.command()
def evaluate(
    run: RunFolder,
    data: DataFolder,
    split: SplitName = "test",
    _import: Imports = None,
    json_: Json = False,
) -> None:
    """Metrics, slices, calibration and importance: RUN/metrics.json and RUN/report.html."""
    from hemix.display import Display, metrics_table

    with Display(_console()) as display:
        figures = api.evaluate(run, data, split=split, on_progress=display.progress)
    _emit(figures, json_, f"{metrics_table(figures, split)}\nReport: {run / 'report.html'}")


@app.command()
def predict(
    run: RunFolder,
    data: DataFolder,
    out: Annotated[Path, typer.Option("--out", help="New Parquet file.", show_default=False)],
    split: SplitName = "test",
    position: Annotated[
        str, typer.Option(help="serving: as a server scores; logged: at the logged position.")
    ] = "serving",
    _import: Imports = None,
    json_: Json = False,
) -> None:
    """Score every impression of a split into a Parquet file."""
    if position not in ("serving", "logged"):
        raise UsageError(f"--position {position}: expected serving or logged", field="--position")
    from hemix.display import Display

    bias: Literal["logged", "serving"] = "logged" if position == "logged" else "serving"
    without = list[int]()
    with Display(_console()) as display:
        rows = api.predict(
            run,
            data,
            out,
            split=split,
            bias=bias,
            on_progress=display.progress,
            on_without_score=without.append,
        )
    if without:
        _console().print(
            f"{out}: score is null in {sum(without):,} rows: a column of score is missing there, "
            "or its value is not finite"
        )
    _emit(
        {"rows": rows, "without_score": sum(without), "out": str(out)},
        json_,
        f"{out}: {rows:,} scored impressions of {split}",
    )


DataFolders = Annotated[
    list[Path],
    typer.Option(
        "--data",
        help="Dataset folder; again for further origins of the same logs.",
        show_default=False,
    ),
]
StudyFolder = Annotated[
    Path,
    typer.Option(
        "--out", help="Folder of the study; finished trials are not run again.", show_default=False
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="A setting for all, may be repeated: train.epochs=2", show_default=False
    ),
]
Final = Annotated[
    bool, typer.Option("--final", help="Score the test split; each access to it is logged.")
]
Jobs = Annotated[
    int | None,
    typer.Option("--jobs", min=1, help="Trials at a time.", show_default="cores / threads"),
]
Threads = Annotated[int, typer.Option("--threads", min=1, help="Threads of a trial.")]
Seeds = Annotated[int, typer.Option("--seeds", min=1, help="Training seeds.")]


@app.command()
def compare(
    data: DataFolders,
    out: StudyFolder,
    models: Annotated[
        str | None, typer.Option(help="Names with commas.", show_default="all")
    ] = None,
    seeds: Seeds = 3,
    search: Annotated[
        str, typer.Option(help="default, none, or a YAML file of points.")
    ] = "default",
    search_data: Annotated[
        Path | None,
        typer.Option("--search-data", help="A smaller dataset to search on.", show_default=False),
    ] = None,
    primary: Annotated[
        list[str] | None,
        typer.Option(help="A pair a:b named before, not adjusted.", show_default="hemix:lightgbm"),
    ] = None,
    set_: Set = None,
    final: Final = False,
    jobs: Jobs = None,
    threads: Threads = 1,
    _import: Imports = None,
    json_: Json = False,
) -> None:
    """Compare models: the same data, search and seeds; paired differences."""
    from hemix.display import Display, study_table

    with Display(_console()) as display:
        callback = display.study()
        content = api.compare(
            list(data),
            out,
            models=None if models is None else models.split(","),
            seeds=seeds,
            search=None if search == "none" else search,
            search_data=search_data,
            primary=primary or None,
            settings=set_ or (),
            final=final,
            jobs=jobs,
            threads=threads,
            on_plan=callback.on_plan,
            on_trial=callback.on_trial,
        )
    _emit(content, json_, f"{study_table(content)}\nReport: {out / 'report.html'}")


@app.command()
def ablate(
    data: DataFolders,
    out: StudyFolder,
    variants: Annotated[
        str | None, typer.Option(help="Names with commas.", show_default="all")
    ] = None,
    seeds: Seeds = 3,
    set_: Set = None,
    final: Final = False,
    jobs: Jobs = None,
    threads: Threads = 1,
    _import: Imports = None,
    json_: Json = False,
) -> None:
    """Compare HeMix with variants that lack or change one component."""
    from hemix.display import Display, study_table

    with Display(_console()) as display:
        callback = display.study()
        content = api.ablate(
            list(data),
            out,
            variants=None if variants is None else variants.split(","),
            seeds=seeds,
            settings=set_ or (),
            final=final,
            jobs=jobs,
            threads=threads,
            on_plan=callback.on_plan,
            on_trial=callback.on_trial,
        )
    _emit(content, json_, f"{study_table(content)}\nReport: {out / 'report.html'}")


@app.command()
def scale(
    data: DataFolder,
    out: StudyFolder,
    seeds: Seeds = 2,
    sizes: Annotated[
        str | None, typer.Option(help="Names of sizes, separated by commas.", show_default="all")
    ] = None,
    lengths: Annotated[
        str | None,
        typer.Option(
            help="Maxima of history events, separated by commas.", show_default="by the data"
        ),
    ] = None,
    set_: Set = None,
    final: Final = False,
    jobs: Jobs = None,
    threads: Threads = 1,
    _import: Imports = None,
    json_: Json = False,
) -> None:
    """Train several sizes and history lengths, and fit scaling laws."""
    from hemix.display import Display, laws_table

    if lengths is not None and not all(part.isdigit() for part in lengths.split(",") if part):
        raise UsageError(
            f"--lengths {lengths}: expected whole numbers with commas", field="--lengths"
        )
    with Display(_console()) as display:
        callback = display.study()
        content = api.scale(
            data,
            out,
            seeds=seeds,
            sizes=None if sizes is None else sizes.split(","),
            lengths=None if lengths is None else [int(part) for part in lengths.split(",") if part],
            settings=set_ or (),
            final=final,
            jobs=jobs,
            threads=threads,
            on_plan=callback.on_plan,
            on_trial=callback.on_trial,
        )
    _emit(content, json_, f"{laws_table(content)}\nReport: {out / 'report.html'}")


@app.command()
def export(
    run: RunFolder,
    out: OutFolder,
    format: Annotated[str, typer.Option("--format", help="onnx")] = "onnx",
    _import: Imports = None,
    json_: Json = False,
) -> None:
    """Write a run as graphs for other servers, checked against the model."""
    from hemix.display import Display

    with Display(_console()) as display:
        content = api.export(run, out, format=format, on_progress=display.progress)
    graphs = ", ".join(graph["file"] for graph in content["graphs"].values())
    checked = (
        f"{content['checked_probabilities']:,} probabilities checked, largest difference "
        f"{content['max_abs_difference']:.1e}"
    )
    _emit(
        content,
        json_,
        f"{out}: {graphs}; {checked}\nNames, types and shapes: {out / 'export.json'}; how to feed "
        "them: docs/how-to/export.md",
    )


app.command()(cli_serving.serve)
app.command()(cli_serving.experiment)
app.add_typer(cli_serving.store, name="store")
app.add_typer(cli_serving.served, name="served")


@app.command()
def bench(
    name: Annotated[
        str,
        typer.Argument(
            help="costs, growth, loader, mfu, prepare, score, serve, tables or train.",
            show_default=False,
        ),
    ],
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Write the figures to this file.", show_default=False),
    ] = None,
    scale: Annotated[float, typer.Option(min=0.0001, help="Fraction of the full size.")] = 1.0,
    sweep: Annotated[
        bool,
        typer.Option("--sweep", help="score, train: add several lengths and counts."),
    ] = False,
    size: Annotated[
        str | None, typer.Option(help="mfu: tiny, base, small or large.", show_default=False)
    ] = None,
    chart: Annotated[
        Path | None,
        typer.Option(help="With --sweep: write a chart to this SVG file.", show_default=False),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="serve: serve this run instead of a new one.", show_default=False),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            help="serve: run only the mixed load, for so many seconds.", show_default=False
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="serve: device that scores, such as cuda.", show_default=False),
    ] = None,
) -> None:
    """Run a benchmark and print its table."""
    from hemix.display import benchmark_table
    from hemix.files import write_json
    from hemix.lab.benchmarks import run_benchmark

    for flag, file in (("--json", json_file), ("--chart", chart)):
        if file is not None and not file.absolute().parent.is_dir():
            raise UsageError(f"{flag} {file}: no such folder")
    if chart is not None and not sweep:
        raise UsageError("--chart: needs --sweep (benchmarks score and train)", field="--chart")
    figures = run_benchmark(
        name, scale=scale, sweep=sweep, size=size, run=run, seconds=seconds, device=device
    )
    if json_file is not None:
        write_json(json_file, figures)
    if chart is not None:
        from hemix.lab.benchmarks.sweep_chart import draw_sweeps

        draw_sweeps(figures, chart)
    print(benchmark_table(figures))


@app.command()
def doctor(json_: Json = False) -> None:
    """Versions, devices, kernels in use and optional parts."""
    from hemix.display import facts

    found = api.doctor()
    _emit(found, json_, facts(found))


def main() -> None:
    """Run a command; end with its exit code, or that of its error."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = app(standalone_mode=False)
        if code == Interrupted.exit_code:  # newer versions of typer return it after Ctrl-C
            raise KeyboardInterrupt
    except typer.Exit as end:
        code = end.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE
    except COMMAND_ERRORS as error:
        code = report(to_hemix_error(error))
    code = code if isinstance(code, int) else 0
    if os.environ.get("WORLD_SIZE", "1") != "1":
        # All is written. The threads of a group of processes may abort an interpreter that is being
        # torn down, so it is not.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt  # the way of Ctrl-C, which leaves nothing half-written
