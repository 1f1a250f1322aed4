"""Commands whose flags are the fields of a dataclass."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer
from typer.testing import CliRunner

from hemix.cli.command import add_command, given_values, with_signature


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

    parameters = inspect.signature(with_signature(use)).parameters
    assert list(parameters) == ["file", "count", "names", "mode"]
    assert [parameter.default for parameter in parameters.values()][1:] == [3, None, "a"]
    assert parameters["file"].default is inspect.Parameter.empty


def test_help_shows_the_example(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert "Example: app use FILE" in result.output and "Use a file." in result.output
