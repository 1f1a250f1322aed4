"""Errors and exit codes, and the help of every command."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

import hemix as package
from hemix import api
from hemix.errors import ProcessLost
from hemix.training.launch import LAUNCHED
from tests.cli.commands import COMMANDS
from tests.cli.run import Command, refused

PANELS = {"Data", "Train", "Study", "Serve", "Tools"}


def test_the_version(hemix: Command) -> None:
    assert hemix("--version") == (0, f"hemix {package.__version__}\n", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example_that_parses(hemix: Command, name: str) -> None:
    command = COMMANDS[name]
    code, out, _ = hemix(*name.split(), "--help")
    assert code == 0 and f"Usage: hemix {name}" in out and "Example: hemix" in out
    assert command.rich_help_panel in PANELS
    epilog = command.epilog or ""
    program, *arguments = shlex.split(epilog.removeprefix("Example: "))
    assert [program, *arguments[: len(name.split())]] == ["hemix", *name.split()]
    command.make_context(name, arguments[len(name.split()) :])  # fails for an unknown flag


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_has_a_help_text(name: str) -> None:
    for parameter in COMMANDS[name].params:
        assert getattr(parameter, "help", None), parameter.name


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["trian"], "No such command 'trian'"),
        (["simulate", "--out", "X", "--users", "-3"], "--users"),
        (["simulate", "--out", "X", "--days", "many"], "--days"),
        (["simulate", "--out", "X", "--days", "2"], "--days"),
        (["train", "--out", "X"], "--data"),
        (["train", "--data", "nowhere", "--out", "X"], "nowhere: not a dataset folder"),
        (["train", "--data", "nowhere", "--out", "X", "--seed", "-1"], "--seed"),
        (
            ["train", "--data", "nowhere", "--out", "X", "--set", "train.epochs"],
            "expected section.setting=value",
        ),
        (
            ["train", "--data", "nowhere", "--out", "X", "--set", "train.epcohs=1"],
            "train.epcohs: unknown key",
        ),
        (
            ["train", "--data", "nowhere", "--out", "X", "--size", "huge"],
            "known: tiny, base, small, large",
        ),
        (["train", "--data", "nowhere", "--out", "X", "--model", "hemx"], "known: hemix"),
        (
            ["train", "--data", "nowhere", "--out", "X", "--config", "absent.yaml"],
            "absent.yaml: cannot be read: No such file",
        ),
        (["evaluate", "nowhere", "--data", "nowhere"], "nowhere: no such run folder"),
        (
            ["import", "criteo", "raw", "--out", "X"],
            "'criteo' is not one of 'ebnerd', 'kuairand', 'mind', 'movielens'",
        ),
        (["import", "kuairand", "raw", "--out", "X"], "raw"),
        (["prepare", "nowhere", "--out", "X"], "nowhere"),
        (["prepare", "nowhere", "--out", "X", "--shift-days", "0"], "--shift-days"),
        (["evaluate", "nowhere", "--data", "nowhere", "--split", "dev"], "--split"),
        (["experiment", "--arm", "a", "--logs", "l", "--out", "X"], "--arm a: expected NAME=URL"),
        (["scale", "--data", "d", "--out", "X", "--lengths", "9,x"], "--lengths 9,x"),
        (["bench", "speed"], "'speed' is not one of"),
        (["bench", "score", "--chart", "a.svg"], "--chart: needs --sweep"),
        (
            ["predict", "nowhere", "--data", "d", "--out", "x", "--position", "third"],
            "'third' is not one of 'serving', 'logged'",
        ),
    ],
)
def test_usage_errors_are_one_line(
    hemix: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, args: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert says in refused(hemix(*args))
    assert list(tmp_path.iterdir()) == [], "a refused command leaves nothing"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (KeyboardInterrupt(), 130),
        (FileNotFoundError(2, "No such file", "x"), 2),
        (ProcessLost("rank 1 has ended"), 75),
    ],
)
def test_exit_codes(
    hemix: Command, monkeypatch: pytest.MonkeyPatch, error: BaseException, expected: int
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(api, "doctor", fail)
    code, out, err = hemix("doctor")
    assert (code, out) == (expected, "")
    assert len(err.splitlines()) == 1


def test_a_lost_process_is_reported_by_its_launcher_alone(
    hemix: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ProcessLost("rank 1 has ended")

    monkeypatch.setattr(api, "doctor", fail)
    monkeypatch.setenv(LAUNCHED, "1")
    assert hemix("doctor") == (75, "", "")
