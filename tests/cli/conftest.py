"""Run the command line in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from hemix import api
from hemix.cli import main
from tests.cli.run import Command


@pytest.fixture
def hemix(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command line in this process: (exit code, stdout, stderr)."""

    def run(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["hemix", *map(str, args)])
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def run_folder(planted_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the planted data."""
    out = tmp_path_factory.mktemp("cli") / "run"
    return api.train(planted_data, out, settings={"train.batch_size": 256, "train.warmup_steps": 1})
