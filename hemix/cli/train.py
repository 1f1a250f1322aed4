"""Commands that train, evaluate and export runs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hemix import api
from hemix.cli.command import add_command
from hemix.cli.flags import TRAIN, DataFolder, Imports, Json, OutFolder, RunFolder, Split
from hemix.cli.output import console, print_result
from hemix.config import named_overrides
from hemix.errors import UsageError

if TYPE_CHECKING:
    from hemix.settings import Settings

__all__ = ["commands"]

commands = typer.Typer()


@dataclass(frozen=True, kw_only=True)
class TrainFlags:
    """Flags of ``hemix train``."""

    data: DataFolder
    out: OutFolder
    model: Annotated[str | None, typer.Option(help="Name of the model.", show_default="hemix")] = (
        None
    )
    size: Annotated[
        str | None,
        typer.Option(
            help="Size of the model: tiny, base, small or large for most models.",
            show_default="tiny",
        ),
    ] = None
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of all random choices.", show_default="0")
    ] = None
    config: Annotated[
        Path | None, typer.Option(help="YAML file of settings.", show_default=False)
    ] = None
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A setting, may be repeated: train.epochs=2 (docs/reference/settings.md)",
            show_default=False,
        ),
    ] = None
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted run exactly.")
    ] = False
    init_from: Annotated[
        Path | None,
        typer.Option(
            "--init-from",
            help="Begin with the weights of this run, also on the data of a later day.",
            show_default=False,
        ),
    ] = None
    search: Annotated[
        Literal["none", "quick"],
        typer.Option(help="quick: train a small log at three points and keep the best on valid."),
    ] = "none"
    processes: Annotated[
        int,
        typer.Option(
            "--processes", min=1, help="Processes on this machine; on several, use torchrun."
        ),
    ] = 1
    import_: Imports = None
    json_: Json = False

    def settings(self) -> Settings | dict[str, Any]:
        """Return all settings if a file is named, else the single changes of the defaults."""
        overrides: Sequence[str] | Mapping[str, Any] = self.set_ or ()
        if self.config is None:
            sized = {"model.size": self.size, "train.seed": self.seed}
            named = {name: value for name, value in sized.items() if value is not None}
            return named | named_overrides(overrides)
        from hemix.settings import build_settings

        return build_settings(
            model=self.model,
            size=self.size,
            seed=self.seed,
            config=self.config,
            overrides=overrides,
        )


@add_command(commands, panel=TRAIN, example="hemix train --data data --out runs/a")
def train(flags: TrainFlags) -> None:
    """Train a model into a run folder. Ctrl-C saves a checkpoint and prints how to continue."""
    from hemix.display import Display, training_summary

    if flags.search == "quick":
        _check_search(flags)
    if flags.processes > 1 and "RANK" not in os.environ:
        from hemix.training.launch import launch

        raise typer.Exit(launch(flags.processes, sys.argv[1:]))
    with Display(console()) as display:
        if flags.search == "quick":
            api.quick_search(
                flags.data,
                flags.out,
                model=flags.model,
                settings=flags.settings(),
                callback=display.training(),
            )
        else:
            api.train(
                flags.data,
                flags.out,
                model=flags.model,
                settings=flags.settings(),
                resume=flags.resume,
                init_from=flags.init_from,
                callback=display.training(),
            )
    if os.environ.get("RANK", "0") != "0":
        return
    metrics = json.loads((flags.out / "metrics.json").read_text())
    print_result(metrics, flags.json_, training_summary(metrics, flags.data, flags.out))


def _check_search(flags: TrainFlags) -> None:
    """Refuse flags beside --search quick."""
    others = {
        "--resume": flags.resume,
        "--init-from": flags.init_from is not None,
        "--processes": flags.processes > 1 or "RANK" in os.environ,
    }
    for name, is_given in others.items():
        if is_given:
            raise UsageError(
                f"{name}: --search quick trains new runs in one process: leave out one of the two",
                field=name,
            )


@dataclass(frozen=True, kw_only=True)
class EvaluateFlags:
    """Flags of ``hemix evaluate``."""

    run: RunFolder
    data: DataFolder
    split: Split = "test"
    import_: Imports = None
    json_: Json = False


@add_command(commands, panel=TRAIN, example="hemix evaluate runs/a --data data")
def evaluate(flags: EvaluateFlags) -> None:
    """Write metrics, slices, calibration and importance: RUN/metrics.json and RUN/report.html."""
    from hemix.display import Display, metrics_table

    with Display(console()) as display:
        metrics = api.evaluate(
            flags.run, flags.data, split=flags.split, on_progress=display.progress
        )
    text = f"{metrics_table(metrics, flags.split)}\nReport: {flags.run / 'report.html'}"
    print_result(metrics, flags.json_, text)


@dataclass(frozen=True, kw_only=True)
class PredictFlags:
    """Flags of ``hemix predict``."""

    run: RunFolder
    data: DataFolder
    out: Annotated[Path, typer.Option("--out", help="New Parquet file.", show_default=False)]
    split: Split = "test"
    position: Annotated[
        Literal["serving", "logged"],
        typer.Option(help="Score at the position of a server, or at the logged one."),
    ] = "serving"
    import_: Imports = None
    json_: Json = False


@add_command(commands, panel=TRAIN, example="hemix predict runs/a --data data --out scores.parquet")
def predict(flags: PredictFlags) -> None:
    """Score every impression of a split into a Parquet file."""
    from hemix.display import Display

    with Display(console()) as display:
        counts = api.predict(
            flags.run,
            flags.data,
            flags.out,
            split=flags.split,
            position=flags.position,
            on_progress=display.progress,
        )
    if counts["without_score"]:
        console().print(
            f"{flags.out}: score is null in {counts['without_score']:,} rows: a column of score is "
            "missing there, or its value is not finite"
        )
    text = f"{flags.out}: {counts['rows']:,} scored impressions of {flags.split}"
    print_result({**counts, "out": str(flags.out)}, flags.json_, text)


@dataclass(frozen=True, kw_only=True)
class ScoreFlags:
    """Flags of ``hemix score``."""

    run: RunFolder
    impressions: Annotated[
        Path,
        typer.Option(help="Rows to score: a Parquet file or a folder.", show_default=False),
    ]
    out: Annotated[Path, typer.Option("--out", help="New Parquet file.", show_default=False)]
    events: Annotated[
        Path | None, typer.Option(help="Events of histories.", show_default="no histories")
    ] = None
    items: Annotated[
        Path | None,
        typer.Option(help="Features of new or changed items.", show_default="those of the run"),
    ] = None
    users: Annotated[
        Path | None,
        typer.Option(help="Features of new or changed users.", show_default="those of the run"),
    ] = None
    store: Annotated[
        str | None,
        typer.Option(
            help="Store URL of a server, in place of events, items and users.", show_default=False
        ),
    ] = None
    top: Annotated[
        int | None,
        typer.Option(
            "--top", min=1, help="Write the best rows of every request.", show_default="all rows"
        ),
    ] = None
    processes: Annotated[int, typer.Option("--processes", min=1, help="Number of processes.")] = 1
    import_: Imports = None
    json_: Json = False


@add_command(
    commands,
    panel=TRAIN,
    example="hemix score runs/a --impressions new.parquet --events events.parquet --out s.parquet",
)
def score(flags: ScoreFlags) -> None:
    """Score new rows, without labels or splits, into a Parquet file."""
    from hemix.display import Display, scoring_notes

    with Display(console()) as display:
        counts = api.score(
            flags.run,
            flags.impressions,
            flags.out,
            events=flags.events,
            options=api.ScoreOptions(
                items=flags.items,
                users=flags.users,
                store=flags.store,
                top=flags.top,
                processes=flags.processes,
            ),
            on_progress=display.progress,
        )
    has_history = flags.events is not None or flags.store is not None
    for note in scoring_notes(counts, has_history=has_history):
        console().print(note)
    text = f"{flags.out}: {counts['rows']:,} scored rows, {counts['written']:,} written"
    print_result({**counts, "out": str(flags.out)}, flags.json_, text)


@dataclass(frozen=True, kw_only=True)
class ExportFlags:
    """Flags of ``hemix export``."""

    run: RunFolder
    out: OutFolder
    format: Annotated[Literal["onnx"], typer.Option("--format", help="Format of the graphs.")] = (
        "onnx"
    )
    import_: Imports = None
    json_: Json = False


@add_command(commands, panel=TRAIN, example="hemix export runs/a --out exported")
def export(flags: ExportFlags) -> None:
    """Write a run as graphs for other servers, and compare them with the model."""
    from hemix.display import Display

    with Display(console()) as display:
        content = api.export(
            flags.run, flags.out, format=flags.format, on_progress=display.progress
        )
    graphs = ", ".join(graph["file"] for graph in content["graphs"].values())
    comparison = (
        f"{content['checked_probabilities']:,} probabilities compared, largest difference "
        f"{content['max_abs_difference']:.1e}"
    )
    text = (
        f"{flags.out}: {graphs}; {comparison}\nNames, types and shapes: "
        f"{flags.out / 'export.json'}; inputs: docs/how-to/export.md"
    )
    print_result(content, flags.json_, text)
