"""One name for one idea: every flag is a parameter of the command's function, or a field of its
configuration.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import pytest

import hemix
from tests.cli.commands import COMMANDS

CONFIGS: dict[str, list[Any]] = {
    "ablate": [hemix.AblateConfig, hemix.StudyOptions],
    "bench": [hemix.BenchOptions],
    "compare": [hemix.CompareConfig, hemix.StudyOptions],
    "experiment": [hemix.ExperimentPlan],
    "prepare": [hemix.PrepareOptions],
    "scale": [hemix.ScaleConfig, hemix.StudyOptions],
    "score": [hemix.ScoreOptions],
    "serve": [hemix.ServeConfig],
    "suite": [hemix.SuiteConfig, hemix.StudyOptions],
}
"""Objects that a function takes for the other flags of its command"""

NOT_IN_PYTHON = {"json_", "import_", "json_file", "chart", "processes"}
"""Flags of the command line alone: --json, --import (hemix.import_models), bench --json and
--chart, and train --processes (torchrun).
"""
OTHER_FUNCTIONS = {("train", "search"): "quick_search"}
"""Flags that choose another function of hemix"""
OTHER_NAMES = {
    ("ablate", "set_"): "settings",
    ("compare", "set_"): "settings",
    ("experiment", "arm"): "arms",
    ("experiment", "token_file"): "token",
    ("scale", "set_"): "settings",
    ("serve", "config"): "config",
    ("suite", "set_"): "settings",
    ("train", "config"): "settings",
    ("train", "seed"): "settings",
    ("train", "set_"): "settings",
    ("train", "size"): "settings",
}
"""Flags that are more than their name: texts and files that the command reads, and settings of a
run, which are one argument in Python.
"""
IN_PYTHON_ALONE = {
    "evaluate": {"importance_impressions", "seed"},
    "experiment": {"block"},
}
"""Parameters without a flag"""


def function_of(command: str) -> Callable[..., Any]:
    """The function of a command: ``log export`` -> ``hemix.log_export``."""
    name = {"import": "import_logs", "schema": "json_schema"}.get(
        command, command.replace(" ", "_")
    )
    assert name in hemix.__all__
    function: Callable[..., Any] = getattr(hemix, name)
    return function


def parameters_of(command: str) -> dict[str, Any]:
    """Defaults of the parameters of a command's function and of its configuration, by name."""
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(function_of(command)).parameters.items()
    }
    for config in CONFIGS.get(command, []):
        if hasattr(config, "model_fields"):
            defaults |= {name: field.default for name, field in config.model_fields.items()}
        elif dataclasses.is_dataclass(config):
            defaults |= {field.name: field.default for field in dataclasses.fields(config)}
        else:
            signature = inspect.signature(config)
            defaults |= {name: value.default for name, value in signature.parameters.items()}
    return defaults


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_is_a_parameter_with_the_same_default(command: str) -> None:
    parameters = parameters_of(command)
    for flag in COMMANDS[command].params:
        if flag.name in NOT_IN_PYTHON:
            continue
        if (command, flag.name) in OTHER_FUNCTIONS:
            assert OTHER_FUNCTIONS[command, flag.name] in hemix.__all__
            continue
        other = OTHER_NAMES.get((command, flag.name))
        assert (other or flag.name) in parameters, flag.name
        if other is None and not flag.required:
            assert flag.default == parameters[flag.name], flag.name


@pytest.mark.parametrize("command", COMMANDS)
def test_every_parameter_is_a_flag(command: str) -> None:
    flags = {OTHER_NAMES.get((command, flag.name), flag.name) for flag in COMMANDS[command].params}
    configs = {"config", "options", "plan"} if command in CONFIGS else set()
    missing = {
        name
        for name in parameters_of(command)
        if name not in flags | configs | IN_PYTHON_ALONE.get(command, set())
        and name != "callback"
        and not name.startswith("on_")
    }
    assert missing == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_function_has_at_most_seven_explicit_parameters(command: str) -> None:
    parameters = inspect.signature(function_of(command)).parameters.values()
    assert len(parameters) <= 7
    assert not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
