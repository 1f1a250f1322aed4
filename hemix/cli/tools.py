"""The demonstration, the description of this machine, and the benchmarks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from hemix import api
from hemix.cli.command import add_command
from hemix.cli.flags import TOOLS, Json, OutFolder, Seed
from hemix.cli.output import console, print_result
from hemix.errors import UsageError
from hemix.lab.benchmarks import Benchmark, BenchOptions

__all__ = ["commands"]

commands = typer.Typer()


@dataclass(frozen=True, kw_only=True)
class DemoFlags:
    """Flags of ``hemix demo``."""

    out: OutFolder
    users: Annotated[int, typer.Option(min=1, help="Number of users of the simulated city.")] = 6000
    days: Annotated[int, typer.Option(min=3, help="Days of impressions.")] = 8
    seed: Seed = 0
    json_: Json = False


@add_command(commands, panel=TOOLS, example="hemix demo --out runs/demo")
def demo(flags: DemoFlags) -> None:
    """Simulate a city, prepare its logs, train, evaluate and write a report."""
    from hemix.display import Display, demo_summary

    with Display(console()) as display:
        metrics = api.demo(
            flags.out,
            users=flags.users,
            days=flags.days,
            seed=flags.seed,
            on_progress=display.progress,
            callback=display.training(),
        )
    print_result(metrics, flags.json_, demo_summary(metrics, flags.out))


@dataclass(frozen=True, kw_only=True)
class DoctorFlags:
    """Flags of ``hemix doctor``."""

    json_: Json = False


@add_command(commands, panel=TOOLS, example="hemix doctor")
def doctor(flags: DoctorFlags) -> None:
    """Print versions, devices, kernels in use and optional packages."""
    from hemix.display import facts

    report = api.doctor()
    print_result(report, flags.json_, facts(report))


@dataclass(frozen=True, kw_only=True)
class BenchFlags:
    """Flags of ``hemix bench``."""

    name: Annotated[Benchmark, typer.Argument(help="Benchmark.", show_default=False)]
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Write the figures to this file.", show_default=False),
    ] = None
    scale: Annotated[float, typer.Option(min=0.0001, help="Fraction of the full size.")] = 1.0
    sweep: Annotated[
        bool, typer.Option("--sweep", help="score, train: add several lengths and counts.")
    ] = False
    size: Annotated[
        str | None,
        typer.Option(
            help="mfu: size of the model: tiny, base, small or large.", show_default=False
        ),
    ] = None
    chart: Annotated[
        Path | None,
        typer.Option(help="With --sweep: write a chart to this SVG file.", show_default=False),
    ] = None
    run: Annotated[
        Path | None,
        typer.Option(help="serve: run folder to serve.", show_default="a new run"),
    ] = None
    seconds: Annotated[
        float | None,
        typer.Option(
            help="serve: run only the mixed load, for so many seconds.", show_default=False
        ),
    ] = None
    device: Annotated[
        str | None,
        typer.Option(help="serve: device that scores, such as cuda.", show_default=False),
    ] = None
    processes: Annotated[
        int | None,
        typer.Option(min=1, help="prepare: processes of this machine.", show_default="1"),
    ] = None
    partitions: Annotated[
        int | None,
        typer.Option(
            min=1, max=1_000_000, help="prepare: partitions of the users.", show_default="8 to 64"
        ),
    ] = None


@add_command(commands, panel=TOOLS, example="hemix bench score --scale 0.1 --json score.json")
def bench(flags: BenchFlags) -> None:
    """Run a benchmark and print its table."""
    from hemix.display import benchmark_table
    from hemix.files import write_json

    for option, file in (("--json", flags.json_file), ("--chart", flags.chart)):
        if file is not None and not file.absolute().parent.is_dir():
            raise UsageError(f"{option} {file}: no such folder", field=option)
    if flags.chart is not None and not flags.sweep:
        raise UsageError("--chart: needs --sweep (benchmarks score and train)", field="--chart")
    figures = api.bench(
        flags.name,
        scale=flags.scale,
        options=BenchOptions(
            sweep=flags.sweep,
            size=flags.size,
            run=flags.run,
            seconds=flags.seconds,
            device=flags.device,
            processes=flags.processes,
            partitions=flags.partitions,
        ),
    )
    if flags.json_file is not None:
        write_json(flags.json_file, figures)
    if flags.chart is not None:
        from hemix.lab.benchmarks.sweep_chart import draw_sweeps

        draw_sweeps(figures, flags.chart)
    print(benchmark_table(figures))
