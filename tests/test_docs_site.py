"""The generated pages of the documentation name every command, flag and Python name."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

import hemix
from tests.cli.commands import COMMANDS

pytest.importorskip("mkdocs", reason="the extra docs is not installed")


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    path = Path(__file__).parent.parent / "docs_site" / "generated_pages.py"
    spec = importlib.util.spec_from_file_location("generated_pages", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_flag_of_every_command(pages: ModuleType) -> None:
    text: str = pages.command_line_page()
    sections = {part.split("\n", 1)[0]: part for part in text.split("\n## hemix ")[1:]}
    assert sorted(sections) == sorted(name for name in COMMANDS if not COMMANDS[name].hidden)
    for name, section in sections.items():
        for parameter in COMMANDS[name].params:
            shown = parameter.opts if parameter.param_type_name == "option" else []
            assert [flag for flag in shown if flag not in section and flag != "--help"] == []


def test_every_name_of_the_package(pages: ModuleType) -> None:
    listed = {
        line.rpartition(".")[2] for line in pages.python_page().splitlines() if "::: " in line
    }
    assert listed == {getattr(hemix, name).__name__ for name in hemix.__all__}
