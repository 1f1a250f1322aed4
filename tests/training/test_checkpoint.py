"""Checkpoints: complete or not there, damage named."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import hemix.training.checkpoint as module
from hemix import api
from hemix.errors import Interrupted, RunError, StorageError
from hemix.training.callbacks import function_callback
from hemix.training.checkpoint import Checkpoints
from tests.planted import SCHEMA, SMALL_MODEL, write_logs
from tests.refusals import raises

SETTINGS = {
    "train.epochs": 1,
    "train.batch_size": 128,
    "train.checkpoint_every_steps": 2,
    "train.keep_checkpoints": 2,
    "train.threads": 1,
    **SMALL_MODEL,
}


@pytest.fixture(scope="module")
def stopped_once(planted_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run stopped at step 7, with checkpoints of steps 6 and 7; read only."""
    run = tmp_path_factory.mktemp("stopped") / "run"

    def stop(step: int, _total: int) -> None:
        if step == 7:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        api.train(planted_data, run, settings=SETTINGS, callback=function_callback(on_step=stop))
    return run


@pytest.fixture
def stopped(stopped_once: Path, tmp_path: Path) -> Path:
    """A copy of that run."""
    return Path(shutil.copytree(stopped_once, tmp_path / "run"))


def test_only_the_newest_remain_and_latest_names_the_last(stopped: Path) -> None:
    folder = stopped / "checkpoints"
    assert sorted(path.name for path in folder.glob("step-*")) == ["step-00000006", "step-00000007"]
    assert (folder / "LATEST").read_text() == "step-00000007\n"


def test_a_folder_without_complete_does_not_exist(stopped: Path, planted_data: Path) -> None:
    (stopped / "checkpoints" / "step-00000007" / "COMPLETE").unlink()
    latest = Checkpoints(stopped, keep=2).latest()
    assert latest is not None
    assert latest.state["position"]["step"] == 6
    headers = list[dict[str, object]]()
    api.train(
        planted_data, stopped, resume=True, callback=function_callback(on_start=headers.append)
    )
    assert headers[0]["half_written"] == ["step-00000007"]
    assert (stopped / "run.json").exists()
    assert not (stopped / "checkpoints").exists()


def flip(path: Path) -> None:
    """Change the last letter or digit that becomes another one: JSON stays JSON, and a second call
    changes it back.
    """
    content = bytearray(path.read_bytes())
    both = (at for at, byte in enumerate(content) if bytes([byte, byte ^ 1]).isalnum())
    content[max(both)] ^= 1
    path.write_bytes(content)


FILES = [
    "dense.safetensors",
    "rows-00000-of-00001.safetensors",
    "optimizer.safetensors",
    "state.json",
]


@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_is_named_and_the_newest_complete_checkpoint_offered(
    stopped: Path, planted_data: Path, file: str
) -> None:
    newest, older = (stopped / "checkpoints" / f"step-0000000{step}" for step in (7, 6))
    flip(newest / file)
    offer = (
        f"; the newest complete checkpoint is step-00000006: remove {newest} and --resume "
        "continues from there"
    )
    with raises(RunError, code="damaged_file", field=newest / file) as error:
        api.train(planted_data, stopped, resume=True)
    assert str(error.value).endswith(offer)
    (newest / file).unlink()
    with raises(RunError, code="missing_file", field=newest / file) as error:
        api.train(planted_data, stopped, resume=True)
    assert str(error.value).endswith(offer)
    flip(older / file)
    with raises(RunError, stopped / "checkpoints", code="missing_file", field=newest / file):
        api.train(planted_data, stopped, resume=True)
    flip(older / file)
    shutil.rmtree(newest)
    api.train(planted_data, stopped, resume=True)
    assert (stopped / "run.json").exists()


def test_a_checkpoint_of_another_schema_is_named_with_what_differs(
    stopped: Path, tmp_path: Path
) -> None:
    write_logs(
        tmp_path / "logs",
        schema=SCHEMA.replace(
            "age: {type: numeric, buckets: 4}", "age: {type: numeric, buckets: 3}"
        ),
    )
    api.prepare(tmp_path / "logs", tmp_path / "data")
    values = ("step-00000007", tmp_path / "data", "features.user.age.buckets", 4, 3)
    with raises(RunError, *values, code="other_schema"):
        api.train(tmp_path / "data", stopped, resume=True)


def test_another_dataset_is_refused(stopped: Path, tmp_path: Path) -> None:
    write_logs(tmp_path / "logs", users=30, seed=1)
    api.prepare(tmp_path / "logs", tmp_path / "data")
    with raises(RunError, ".npy", code="other_data"):
        api.train(tmp_path / "data", stopped, resume=True)


def test_written_in_the_background_they_hold_what_the_step_left(
    planted_data: Path, tmp_path: Path
) -> None:
    """A slow disk: training is steps ahead when the file is written, and the file says what was
    true at its step.
    """
    every_checkpoint = {**SETTINGS, "train.checkpoint_every_steps": 5, "train.keep_checkpoints": 9}
    ahead, steps, save = [], [0], module.save_tensors

    def slow(path: Path, tensors: dict[str, torch.Tensor]) -> str:
        before = steps[0]
        time.sleep(0.1)
        ahead.append(steps[0] - before)
        return save(path, tensors)

    def run(out: Path, *, background: bool) -> Path:
        def stop(step: int, _total: int) -> None:
            steps[0] = step
            if step == 11:
                os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(Interrupted):
            api.train(
                planted_data,
                out,
                settings={**every_checkpoint, "train.async_checkpoint": background},
                callback=function_callback(on_step=stop),
            )
        return out / "checkpoints"

    plain = run(tmp_path / "plain", background=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "save_tensors", slow)
        ours = run(tmp_path / "ours", background=True)
    assert max(ahead) > 0, "training went on meanwhile"
    for step in ("step-00000005", "step-00000010", "step-00000011"):
        for file in (
            "dense.safetensors",
            "rows-00000-of-00001.safetensors",
            "optimizer.safetensors",
        ):
            saved, expected = load_file(ours / step / file), load_file(plain / step / file)
            assert saved.keys() == expected.keys() and all(
                torch.equal(saved[name], expected[name]) for name in expected
            )


def test_what_goes_wrong_in_the_background_ends_the_run(
    planted_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, _tensors: dict[str, torch.Tensor]) -> str:
        raise StorageError(f"{path}: the disk is full", code="disk_full")

    monkeypatch.setattr(module, "save_tensors", full)
    with raises(StorageError, "rows-00000-of-00001.safetensors", code="disk_full"):
        api.train(planted_data, tmp_path / "run", settings=SETTINGS)
    assert not (tmp_path / "run" / "run.json").exists()
