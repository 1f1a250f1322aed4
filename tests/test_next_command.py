"""Commands that are printed for a user to type next."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from hemix.display import command_line


def test_paths_are_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "hemix"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    line = command_line("prepare", Path("sp ace/数据"), "--out", "DATA")
    assert shlex.split(line) == ["hemix", "prepare", "sp ace/数据", "--out", "DATA"]


def test_without_hemix_on_the_path_the_installed_one_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", "")
    folder = tmp_path / "my env" / "bin"
    folder.mkdir(parents=True)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    assert shlex.split(command_line("doctor")) == [str(folder / "python"), "-m", "hemix", "doctor"]
    (folder / "hemix").touch()
    monkeypatch.chdir(tmp_path)
    assert shlex.split(command_line("doctor")) == ["my env/bin/hemix", "doctor"]
