"""Real processes, killed: what they leave behind is usable, and going on gives the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hemix.run.weights import DENSE_FILE, TABLES_FILE

pytestmark = pytest.mark.slow

SETTINGS = [
    "train.epochs=3",
    "train.batch_impressions=64",
    "train.checkpoint_every_steps=3",
    "train.threads=1",
    "train.log_every_steps=1",
    "model.dropout=0.1",
]


def command(data: Path, out: Path, *flags: str) -> list[str]:
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    return [sys.executable, "-m", "hemix", "train", "--data", str(data), "--out", str(out), *settings, *flags]


def steps_done(run: Path) -> int:
    log = run / "log.jsonl"
    return len([line for line in log.read_text().splitlines() if '"loss"' in line]) if log.exists() else 0


def test_kill_9_again_and_again_and_the_weights_are_those_of_an_undisturbed_run(planted_data: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(planted_data, whole), check=True, capture_output=True)
    total = steps_done(whole)
    assert total == 69
    for goal in (2, 15, 24, 50):  # before the first checkpoint, in epochs 1, 2 and 3
        process = subprocess.Popen(command(planted_data, killed, "--resume"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 120
        while steps_done(killed) < goal and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert process.poll() is None, process.communicate()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not (killed / "run.json").exists()
    subprocess.run(command(planted_data, killed, "--resume"), check=True, capture_output=True)
    for file in (DENSE_FILE, TABLES_FILE):
        assert (whole / file).read_bytes() == (killed / file).read_bytes()
    assert steps_done(killed) == total


def test_ctrl_c_saves_says_how_to_go_on_and_exits_with_130(planted_data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = subprocess.Popen(command(planted_data, run), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while steps_done(run) < 5 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    last = err.strip().splitlines()[-1]
    assert "checkpoint saved; go on with: hemix train --resume" in last
    assert "Traceback" not in err
    resume = last.split("go on with: ")[1].split()
    assert subprocess.run([sys.executable, "-m", *resume], capture_output=True).returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True
    )
    if not mounted or mounted.returncode != 0:
        pytest.skip("CANNOT MOUNT a tmpfs here: the full-disk tests need root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up_while_saving_keeps_the_previous_checkpoint(planted_data: Path, small_disk: Path) -> None:
    run = small_disk / "run"
    settings = ["--set", "model.token_width=64", "--set", "train.checkpoint_every_steps=1", "--set", "train.keep_checkpoints=50"]
    done = subprocess.run([*command(planted_data, run), *settings], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].endswith(": the disk is full")
    assert "Traceback" not in done.stderr
    for folder in (run / "checkpoints").glob("*"):
        assert folder.name == "LATEST" or (folder / "COMPLETE").exists(), "no half-written checkpoint"
    assert not list(run.rglob(".*.part"))


def test_a_full_disk_ends_every_writing_command_in_one_line(planted_logs: Path, small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(b"\0" * (3 * 2**20 - 40_000))
    for arguments in (
        ["prepare", str(planted_logs), "--out", str(small_disk / "data")],
        ["simulate", "--out", str(small_disk / "city"), "--users", "50", "--days", "3"],
    ):
        done = subprocess.run([sys.executable, "-m", "hemix", *arguments], capture_output=True, text=True)
        assert done.returncode == 2, done
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert "the disk is full" in done.stderr
        assert [path.name for path in small_disk.iterdir()] == ["ballast"]
