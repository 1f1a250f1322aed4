"""Checkpoints: complete or not there, damage named."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from hemix import api
from hemix.errors import RunError
from hemix.training.checkpoint import Checkpoints
from hemix.training.loop import Interrupted

SETTINGS = {
    "train.epochs": 1,
    "train.batch_impressions": 128,
    "train.checkpoint_every_steps": 2,
    "train.keep_checkpoints": 2,
    "train.threads": 1,
}


@pytest.fixture
def stopped(planted_data: Path, tmp_path: Path) -> Path:
    """A run stopped at step 7, with checkpoints of steps 6 and 7."""

    def stop(step: int, _total: int) -> None:
        if step == 7:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        api.train(planted_data, tmp_path / "run", settings=SETTINGS, on_step=stop)
    return tmp_path / "run"


def test_only_the_newest_are_kept_and_latest_names_the_last(stopped: Path) -> None:
    folder = stopped / "checkpoints"
    assert sorted(path.name for path in folder.glob("step-*")) == ["step-00000006", "step-00000007"]
    assert (folder / "LATEST").read_text() == "step-00000007\n"


def test_a_folder_without_complete_does_not_exist(stopped: Path, planted_data: Path) -> None:
    (stopped / "checkpoints" / "step-00000007" / "COMPLETE").unlink()
    latest = Checkpoints(stopped, keep=2).latest()
    assert latest is not None
    assert latest.state["position"]["step"] == 6
    api.train(planted_data, stopped, resume=True)
    assert (stopped / "run.json").exists()
    assert not (stopped / "checkpoints").exists()


@pytest.mark.parametrize("file", ["dense.safetensors", "rows-00000-of-00001.safetensors", "optimizer.safetensors"])
def test_a_damaged_file_is_named(stopped: Path, planted_data: Path, file: str) -> None:
    path = stopped / "checkpoints" / "step-00000007" / file
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match=f"step-00000007/{file}: damaged: its sha256"):
        api.train(planted_data, stopped, resume=True)


def test_another_dataset_is_refused(stopped: Path, tmp_path: Path) -> None:
    from tests.planted import write_logs

    write_logs(tmp_path / "logs", users=30, seed=1)
    api.prepare(tmp_path / "logs", tmp_path / "data")
    with pytest.raises(RunError, match="was trained on another dataset"):
        api.train(tmp_path / "data", stopped, resume=True)
