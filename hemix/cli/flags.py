"""Flags that several commands have, and the headings of the help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hemix import api
from hemix.api.types import SplitName

DATA, TRAIN, STUDY, SERVE, TOOLS = "Data", "Train", "Study", "Serve", "Tools"
"""Headings of the commands in the help."""

OutFolder = Annotated[Path, typer.Option("--out", help="New folder to write.", show_default=False)]
DataFolder = Annotated[
    Path, typer.Option("--data", help="Dataset folder made by hemix prepare.", show_default=False)
]
RunFolder = Annotated[
    Path, typer.Argument(help="Run folder made by hemix train.", show_default=False)
]
LogsFolder = Annotated[
    Path, typer.Argument(help="Folder of logs with a schema.yaml.", show_default=False)
]
Split = Annotated[SplitName, typer.Option("--split", help="Split to score.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a machine.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of all random choices.")]


def _import_models(files: list[Path] | None) -> list[Path] | None:
    if files:
        api.import_models(files)
    return files


Imports = Annotated[
    list[Path] | None,
    typer.Option(
        "--import",
        callback=_import_models,
        help="Python file with a model of your own; may be repeated.",
        show_default=False,
    ),
]

# -- studies ---------------------------------------------------------------------------------------

DataFolders = Annotated[
    list[Path],
    typer.Option(
        "--data",
        help="Dataset folder; may be repeated for other test periods of the same logs.",
        show_default=False,
    ),
]
StudyFolder = Annotated[
    Path,
    typer.Option(
        "--out",
        help="Folder of the study; finished trials are not run again.",
        show_default=False,
    ),
]
StudySettings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="A setting of all trials, may be repeated: train.epochs=2",
        show_default=False,
    ),
]
EvaluateTest = Annotated[
    bool,
    typer.Option(
        "--evaluate-test",
        help="Score the test split instead of valid; every access is logged.",
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option("--jobs", min=1, help="Trials at a time.", show_default="cores / threads"),
]
Threads = Annotated[int, typer.Option("--threads", min=1, help="Threads of a trial.")]
Seeds = Annotated[int, typer.Option("--seeds", min=1, help="Number of training seeds.")]

# -- serving ---------------------------------------------------------------------------------------

LogFolder = Annotated[
    Path,
    typer.Argument(help="Folder NAME-VERSION-SCHEMA of hemix serve's --log.", show_default=False),
]
ServedRun = Annotated[
    Path, typer.Option("--run", help="Run folder that was served.", show_default=False)
]
