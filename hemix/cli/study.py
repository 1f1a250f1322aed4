"""Commands that compare models: studies of many trainings, and simulated A/B tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hemix import api
from hemix.cli.command import add_command
from hemix.cli.flags import (
    STUDY,
    DataFolder,
    DataFolders,
    EvaluateTest,
    Imports,
    Jobs,
    Json,
    Seeds,
    StudyFolder,
    StudySettings,
    Threads,
)
from hemix.cli.output import console, print_result
from hemix.errors import UsageError

if TYPE_CHECKING:
    from hemix.lab.studies.options import StudyOptions

__all__ = ["commands"]

commands = typer.Typer()


def _names(text: str | None) -> list[str] | None:
    return None if text is None else text.split(",")


@dataclass(frozen=True, kw_only=True)
class CompareFlags:
    """Flags of ``hemix compare``."""

    data: DataFolders
    out: StudyFolder
    models: Annotated[
        str | None,
        typer.Option(help="Names of models, separated by commas.", show_default="all"),
    ] = None
    seeds: Seeds = 3
    search: Annotated[
        str, typer.Option(help="Search of settings: default, none, or a YAML file of points.")
    ] = "default"
    search_data: Annotated[
        Path | None,
        typer.Option(
            "--search-data",
            help="Smaller dataset folder for the search.",
            show_default="the first dataset",
        ),
    ] = None
    primary: Annotated[
        list[str] | None,
        typer.Option(
            help="Pair a:b of models, chosen beforehand; the p-values of all others are adjusted "
            "for their number (Holm). May be repeated.",
            show_default="hemix:lightgbm",
        ),
    ] = None
    set_: StudySettings = None
    evaluate_test: EvaluateTest = False
    jobs: Jobs = None
    threads: Threads = 1
    import_: Imports = None
    json_: Json = False


@add_command(
    commands,
    panel=STUDY,
    example="hemix compare --data data --out study --models hemix,dlrm",
)
def compare(flags: CompareFlags) -> None:
    """Compare models: the same data, search and seeds; paired differences."""
    from hemix.display import study_table
    from hemix.lab.studies.compare import CompareConfig

    config = CompareConfig(
        models=_names(flags.models),
        seeds=flags.seeds,
        search=None if flags.search == "none" else flags.search,
        search_data=flags.search_data,
        primary=flags.primary or None,
        settings=flags.set_ or (),
        evaluate_test=flags.evaluate_test,
    )
    with _study_options(flags) as options:
        content = api.compare(flags.data, flags.out, config, options=options)
    _print_report(content, flags, study_table(content))


@dataclass(frozen=True, kw_only=True)
class SuiteFlags:
    """Flags of ``hemix suite``."""

    data: Annotated[
        list[Path],
        typer.Option(
            "--data",
            help="Dataset folder of a log; repeated, once for every log.",
            show_default=False,
        ),
    ]
    out: StudyFolder
    models: Annotated[
        str | None,
        typer.Option(help="Names of models, separated by commas.", show_default="all"),
    ] = None
    reference: Annotated[str, typer.Option(help="Model that every other one is compared with.")] = (
        "hemix"
    )
    seeds: Seeds = 3
    set_: StudySettings = None
    evaluate_test: EvaluateTest = False
    jobs: Jobs = None
    threads: Threads = 1
    import_: Imports = None
    json_: Json = False


@add_command(
    commands,
    panel=STUDY,
    example="hemix suite --data news --data shop --out study --models hemix,lightgbm",
)
def suite(flags: SuiteFlags) -> None:
    """Compare models on several logs of different kinds, by their defaults."""
    from hemix.display import suite_table
    from hemix.lab.studies.suite import SuiteConfig

    config = SuiteConfig(
        models=_names(flags.models),
        reference=flags.reference,
        seeds=flags.seeds,
        settings=flags.set_ or (),
        evaluate_test=flags.evaluate_test,
    )
    with _study_options(flags) as options:
        content = api.suite(flags.data, flags.out, config, options=options)
    _print_report(content, flags, suite_table(content))


@dataclass(frozen=True, kw_only=True)
class AblateFlags:
    """Flags of ``hemix ablate``."""

    data: DataFolders
    out: StudyFolder
    variants: Annotated[
        str | None,
        typer.Option(help="Names of variants, separated by commas.", show_default="all"),
    ] = None
    seeds: Seeds = 3
    set_: StudySettings = None
    evaluate_test: EvaluateTest = False
    jobs: Jobs = None
    threads: Threads = 1
    import_: Imports = None
    json_: Json = False


@add_command(
    commands,
    panel=STUDY,
    example="hemix ablate --data data --out study --variants no_products",
)
def ablate(flags: AblateFlags) -> None:
    """Compare HeMix with variants that lack or change one component."""
    from hemix.display import study_table
    from hemix.lab.studies.ablate import AblateConfig

    config = AblateConfig(
        variants=_names(flags.variants),
        seeds=flags.seeds,
        settings=flags.set_ or (),
        evaluate_test=flags.evaluate_test,
    )
    with _study_options(flags) as options:
        content = api.ablate(flags.data, flags.out, config, options=options)
    _print_report(content, flags, study_table(content))


@dataclass(frozen=True, kw_only=True)
class ScaleFlags:
    """Flags of ``hemix scale``."""

    data: DataFolder
    out: StudyFolder
    seeds: Seeds = 2
    sizes: Annotated[
        str | None, typer.Option(help="Names of sizes, separated by commas.", show_default="all")
    ] = None
    lengths: Annotated[
        str | None,
        typer.Option(
            help="Maximum numbers of history events, separated by commas.",
            show_default="by the data",
        ),
    ] = None
    set_: StudySettings = None
    evaluate_test: EvaluateTest = False
    jobs: Jobs = None
    threads: Threads = 1
    import_: Imports = None
    json_: Json = False


@add_command(
    commands,
    panel=STUDY,
    example="hemix scale --data data --out study --sizes width_8,width_16",
)
def scale(flags: ScaleFlags) -> None:
    """Train several sizes and history lengths, and fit scaling laws."""
    from hemix.display import laws_table
    from hemix.lab.studies.scale import ScaleConfig

    config = ScaleConfig(
        seeds=flags.seeds,
        sizes=_names(flags.sizes),
        lengths=_lengths(flags.lengths),
        settings=flags.set_ or (),
        evaluate_test=flags.evaluate_test,
    )
    with _study_options(flags) as options:
        content = api.scale(flags.data, flags.out, config, options=options)
    _print_report(content, flags, laws_table(content))


@contextmanager
def _study_options(
    flags: CompareFlags | SuiteFlags | AblateFlags | ScaleFlags,
) -> Iterator[StudyOptions]:
    """Yield how the trials of a study run, while a display shows them."""
    from hemix.display import Display
    from hemix.lab.studies.options import StudyOptions

    with Display(console()) as display:
        study = display.study()
        yield StudyOptions(
            jobs=flags.jobs,
            threads=flags.threads,
            on_plan=study.on_plan,
            on_trial=study.on_trial,
        )


def _print_report(
    content: dict[str, Any],
    flags: CompareFlags | SuiteFlags | AblateFlags | ScaleFlags | ExperimentFlags,
    table: str,
) -> None:
    """Print a table and where the report is, or the content for a machine."""
    text = f"{table}\nReport: {flags.out / 'report.html'}"
    print_result(content, flags.json_, text)


def _lengths(text: str | None) -> list[int] | None:
    """Parse ``--lengths``. Raises UsageError."""
    if text is None:
        return None
    lengths = [length for length in text.split(",") if length]
    if not all(length.isdigit() for length in lengths):
        raise UsageError(
            f"--lengths {text}: expected whole numbers separated by commas", field="--lengths"
        )
    return [int(length) for length in lengths]


@dataclass(frozen=True, kw_only=True)
class ExperimentFlags:
    """Flags of ``hemix experiment``."""

    arm: Annotated[
        list[str],
        typer.Option(
            "--arm",
            help="NAME=URL, NAME=oracle or NAME=popularity; may be repeated.",
            show_default=False,
        ),
    ]
    logs: Annotated[
        Path,
        typer.Option("--logs", help="Logs folder made by hemix simulate.", show_default=False),
    ]
    out: Annotated[
        Path,
        typer.Option("--out", help="Folder to create or to continue.", show_default=False),
    ]
    users: Annotated[int, typer.Option("--users", min=1, help="Number of users.")] = 200
    first_user: Annotated[
        int, typer.Option("--first-user", min=0, help="Index of the first user.")
    ] = 0
    days: Annotated[int, typer.Option("--days", min=1, help="Days after the logs.")] = 2
    design: Annotated[
        Literal["paired", "split"],
        typer.Option("--design", help="paired: every user in every arm; split: each in one."),
    ] = "paired"
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the split design.")] = 0
    recall_size: Annotated[
        int | None,
        typer.Option(
            "--recall-size",
            min=1,
            help="Venues drawn for a request. Duplicates, far and closed ones are removed: 56 "
            "leave about 45 candidates, 130 about 100.",
            show_default="56",
        ),
    ] = None
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", help="File with the servers' token.", show_default=False),
    ] = None
    arm_timeout: Annotated[
        float,
        typer.Option(
            "--arm-timeout", min=0, help="Seconds to wait for a server before its arm is paused."
        ),
    ] = 30.0
    json_: Json = False


@add_command(
    commands,
    panel=STUDY,
    example="hemix experiment --logs logs --arm a=oracle --arm b=popularity --out exp",
)
def experiment(flags: ExperimentFlags) -> None:
    """Run a simulated A/B test: the effects of rankers on clicks, orders and amounts."""
    from hemix.display import Display, experiment_table, power_line
    from hemix.lab.abtest import ExperimentPlan
    from hemix.serving.token_file import read_token

    plan = ExperimentPlan(
        arms=_arms(flags.arm),
        logs=flags.logs,
        users=flags.users,
        days=flags.days,
        first_user=flags.first_user,
        design=flags.design,
        seed=flags.seed,
        recall_size=flags.recall_size,
    )
    token = read_token(flags.token_file, "--token-file")
    stderr = console()
    with Display(stderr) as display:
        content = api.experiment(
            plan,
            flags.out,
            token=token,
            arm_timeout=flags.arm_timeout,
            on_progress=display.progress,
            on_power=lambda power: stderr.print(power_line(power, flags.design)),
        )
    _print_report(content, flags, experiment_table(content))


def _arms(texts: list[str]) -> dict[str, str]:
    """Parse ``--arm NAME=URL``. Raises UsageError."""
    arms = dict[str, str]()
    for text in texts:
        name, equals, url = text.partition("=")
        if not equals or not name or not url or name in arms:
            raise UsageError(f"--arm {text}: expected NAME=URL, each name once", field="--arm")
        arms[name] = url
    return arms
