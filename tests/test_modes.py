"""Every file that a command writes has the mode that the umask asks for, so that a server of
another user can read a run."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from hemix import api
from hemix.files import copy_folder, umask_mode
from hemix.training.callbacks import function_callback
from tests.planted import write_logs

LIGHT = {
    "train.batch_size": 64,
    "train.checkpoint_every_steps": 2,
    "train.async_checkpoint": False,  # so that a step finds its checkpoint
    "model.layers": 1,
    "train.threads": 1,
}


@pytest.fixture(params=[0o022, 0o027, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def wrong_modes(folder: Path, umask: int) -> dict[str, str]:
    """Files and folders under ``folder`` whose mode is not the umask's."""
    modes = {}
    for path in folder.rglob("*"):
        expected = (0o777 if path.is_dir() else 0o666) & ~umask
        if (mode := stat.S_IMODE(path.stat().st_mode)) != expected:
            modes[str(path.relative_to(folder))] = oct(mode)
    return modes


def test_every_file_of_the_pipeline(tmp_path: Path, umask: int) -> None:
    logs = write_logs(tmp_path / "logs", users=8)
    data, run = tmp_path / "data", tmp_path / "run"
    seen, wrong_while_training = set[str](), dict[str, str]()

    def look(_step: int, _total: int) -> None:
        seen.update(path.name for path in run.rglob("*"))
        wrong_while_training.update(wrong_modes(run, umask))

    api.prepare(logs, data)
    api.train(data, run, settings=LIGHT, callback=function_callback(on_step=look))
    api.evaluate(run, data, importance_impressions=0)
    api.predict(run, data, tmp_path / "scores.parquet")
    api.store_load(logs, f"sqlite:///{tmp_path / 'events.db'}")
    assert "optimizer.safetensors" in seen and any(name.startswith("rows-") for name in seen), (
        "checkpoints were looked at"
    )
    assert wrong_while_training == {}
    assert wrong_modes(tmp_path, umask) == {}
    others = stat.S_IRGRP if umask == 0o027 else stat.S_IROTH
    assert all(path.stat().st_mode & others for path in run.rglob("*")), (
        "another uid, or one of the group, can read the run"
    )


def test_a_file_that_a_library_writes_for_its_owner_alone(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "file"
    path.write_text("left by a kill")
    path.chmod(0o600)
    with umask_mode(path):
        other = tmp_path / "other"
        other.touch(mode=0o600)
        other.replace(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_a_copied_folder_has_modes_of_its_own(tmp_path: Path, umask: int) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_text("x")
    (tmp_path / "a" / "b" / "file").chmod(0o600)
    (tmp_path / "a" / "b").chmod(0o700)
    copy_folder(tmp_path / "a", tmp_path / "c")
    assert (tmp_path / "c" / "b" / "file").read_text() == "x"
    assert wrong_modes(tmp_path / "c", umask) == {}
