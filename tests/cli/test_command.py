"""Commands whose flags are the fields of a dataclass."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer
from pydantic import BaseModel, ConfigDict, Field
from typer.testing import CliRunner

from hemix.cli.command import add_command, given_values, with_signature
from hemix.serving.config import DefaultText, ServeConfig
from tests.cli.commands import COMMANDS


@dataclass(frozen=True, kw_only=True)
class Flags:
    file: Annotated[Path, typer.Argument()]
    count: Annotated[int, typer.Option("--count", min=1)] = 3
    names: Annotated[list[str] | None, typer.Option("--name")] = None
    mode: Annotated[Literal["a", "b"], typer.Option()] = "a"


@pytest.fixture
def calls() -> list[tuple[Flags, dict[str, object]]]:
    return []


@pytest.fixture
def app(calls: list[tuple[Flags, dict[str, object]]]) -> typer.Typer:
    app = typer.Typer()

    @add_command(app, panel="Tools", example="app use FILE")
    def use(flags: Flags, context: typer.Context) -> None:
        """Use a file."""
        calls.append((flags, given_values(context, ["count", "names", "mode"])))

    return app


def test_a_command_gets_its_flags_as_one_object(
    app: typer.Typer, calls: list[tuple[Flags, dict[str, object]]]
) -> None:
    arguments = ["f", "--name", "x", "--name", "y", "--mode", "b"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    [(flags, given)] = calls
    assert flags == Flags(file=Path("f"), count=3, names=["x", "y"], mode="b")
    assert given == {"names": ["x", "y"], "mode": "b"}


@pytest.mark.parametrize("arguments", [[], ["f", "--count", "0"], ["f", "--mode", "c"]])
def test_typer_checks_the_flags(
    app: typer.Typer, calls: list[tuple[Flags, dict[str, object]]], arguments: list[str]
) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2
    assert calls == []


def test_a_flag_at_its_default_value_is_given(
    app: typer.Typer, calls: list[tuple[Flags, dict[str, object]]]
) -> None:
    assert CliRunner().invoke(app, ["f", "--count", "3"]).exit_code == 0
    assert calls[0][1] == {"count": 3}


def test_the_signature_has_the_fields_in_their_order() -> None:
    def use(flags: Flags) -> None:
        """Use a file."""

    parameters = inspect.signature(with_signature(use, {})).parameters
    assert list(parameters) == ["file", "count", "names", "mode"]
    assert [parameter.default for parameter in parameters.values()][1:] == [3, None, "a"]
    assert parameters["file"].default is inspect.Parameter.empty


def test_help_shows_the_example(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert "Example: app use FILE" in result.output and "Use a file." in result.output


class Settings(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    port_count: int = Field(default=4, ge=1, le=8)
    """How many ports."""
    folder: Annotated[Path | None, DefaultText("RUN/log")] = None
    secret: Annotated[Path | None, DefaultText()] = None
    no_log: bool = False


@pytest.fixture
def settings_app() -> tuple[typer.Typer, list[dict[str, object]]]:
    app, calls = typer.Typer(), list[dict[str, object]]()

    @add_command(app, panel="Tools", example="app run FILE", settings=Settings.model_fields)
    def run(flags: Flags, context: typer.Context) -> None:  # noqa: ARG001
        calls.append(given_values(context, Settings.model_fields))

    return app, calls


def test_fields_of_a_pydantic_model_are_flags(
    settings_app: tuple[typer.Typer, list[dict[str, object]]],
) -> None:
    app, calls = settings_app
    invoke = CliRunner().invoke
    arguments = ["f", "--port-count", "8", "--folder", "x", "--no-log", "--count", "2"]
    assert invoke(app, arguments).exit_code == 0
    assert invoke(app, ["f"]).exit_code == 0
    assert calls == [{"port_count": 8, "folder": Path("x"), "no_log": True}, {}]
    for wrong in ("0", "9", "x"):
        assert invoke(app, ["f", "--port-count", wrong]).exit_code == 2


def test_help_and_default_of_a_flag_are_those_of_its_field(
    settings_app: tuple[typer.Typer, list[dict[str, object]]],
) -> None:
    command = typer.main.get_command(settings_app[0])
    flags = {flag.name: flag for flag in command.params}
    assert flags["port_count"].help == "How many ports." and flags["port_count"].default == 4
    shown = {name: flags[name].show_default for name in ("port_count", "folder", "secret")}
    assert shown == {"port_count": True, "folder": "RUN/log", "secret": False}


@pytest.mark.parametrize("command", ["serve", "store load"])
def test_bounds_of_the_server_s_flags_are_those_of_its_configuration(command: str) -> None:
    flags = {flag.name: flag for flag in COMMANDS[command].params}
    bounds = {
        name: (flags[name].min, flags[name].max)
        for name in ServeConfig.model_fields
        if name in flags
    }
    assert bounds["history_cap"] == (1, None)
    if command == "serve":
        assert set(bounds) == set(ServeConfig.model_fields)
        assert bounds["port"] == (0, 65535) and bounds["store_timeout"] == (0.01, None)
        assert all(flags[name].help for name in ServeConfig.model_fields)
