"""Real processes, killed: what they leave behind is usable, and going on gives the same bytes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hemix import api
from hemix.runs.weights import DENSE_FILE, TABLES_FILE
from tests.cli.run import Command
from tests.forked import fork_hemix
from tests.planted import write_logs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SETTINGS = [
    "train.epochs=3",
    "train.batch_size=64",
    "train.checkpoint_every_steps=3",
    "train.threads=1",
    "train.log_every_steps=1",
    "model.dropout=0.1",
]


def command(data: Path, out: Path, *flags: str) -> list[str]:
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    return [
        "train",
        "--data",
        str(data),
        "--out",
        str(out),
        *settings,
        *flags,
    ]


def complete(*arguments: str) -> None:
    """Run a command to its end."""
    process = fork_hemix(*arguments)
    _, err = process.communicate()
    assert process.returncode == 0, err


def steps_done(run: Path) -> int:
    log = run / "log.jsonl"
    return (
        len([line for line in log.read_text().splitlines() if '"loss"' in line])
        if log.exists()
        else 0
    )


@pytest.fixture(scope="module")
def undisturbed(planted_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to, its batches made as they are by default; read only."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    complete(*command(planted_data, out))
    return out


def assert_same_weights(one: Path, other: Path) -> None:
    for file in (DENSE_FILE, TABLES_FILE):
        assert (one / file).read_bytes() == (other / file).read_bytes()


@pytest.mark.parametrize(("kills", "workers"), [(12, 2), (4, 0)])
def test_kills_at_random_steps_and_the_weights_are_those_of_an_undisturbed_run(
    planted_data: Path, undisturbed: Path, tmp_path: Path, kills: int, workers: int
) -> None:
    killed, total = tmp_path / "killed", steps_done(undisturbed)
    assert total == 69
    go_on = command(planted_data, killed, "--resume", "--set", f"train.loader_workers={workers}")
    goals = sorted(random.Random(7).sample(range(3, total - 1), kills - 1))
    for goal in (2, *goals):  # before the first checkpoint, then anywhere
        process = fork_hemix(*go_on)
        deadline = time.monotonic() + 120
        while steps_done(killed) < goal and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert process.poll() is None, process.communicate()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not (killed / "run.json").exists()
    complete(*go_on)
    assert_same_weights(killed, undisturbed)
    assert steps_done(killed) == total


def test_kills_while_a_checkpoint_is_being_saved(
    planted_data: Path, undisturbed: Path, tmp_path: Path
) -> None:
    killed = tmp_path / "killed"
    for _ in range(2):
        left = parts(killed)  # of the process before
        process = fork_hemix(*command(planted_data, killed, "--resume"))
        half_written = False
        while not half_written:
            assert process.poll() is None, process.communicate()
            time.sleep(0.0005)
            if parts(killed) - left:
                process.send_signal(
                    signal.SIGSTOP
                )  # so that it is still there when the process is killed
                while stopped_state(process.pid) != "T":
                    time.sleep(0.001)
                half_written = bool(parts(killed) - left)
                process.send_signal(signal.SIGKILL if half_written else signal.SIGCONT)
        process.communicate()
    complete(*command(planted_data, killed, "--resume"))
    assert_same_weights(killed, undisturbed)


def parts(run: Path) -> set[tuple[str, int]]:
    """Names and inodes of half-written checkpoints and files of them."""
    folder = run / "checkpoints"
    names = os.scandir(folder) if folder.is_dir() else []
    return {(entry.name, entry.inode()) for entry in names if entry.name.startswith(".step-")}


def stopped_state(pid: int) -> str:
    """The letter of a process's state: T, once all its threads have stopped."""
    states = {
        path.read_text().rpartition(")")[2].split()[0]
        for path in Path(f"/proc/{pid}/task").glob("*/stat")
    }
    return "T" if states == {"T"} else "R"


def killed_at(data: Path, run: Path, goal: int) -> None:
    """Train on from where the run is, and kill -9 when ``goal`` steps are done."""
    keep = ["--resume", "--set", "train.keep_checkpoints=100"]
    process = fork_hemix(*command(data, run, *keep))
    while steps_done(run) < goal and process.poll() is None:
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_every_tensor_of_a_resumed_run_is_that_of_an_undisturbed_one_at_the_same_step(
    planted_data: Path, tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    killed_at(planted_data, whole, 60)
    for goal in (8, 31, 55):  # in epochs 1, 2 and 3 of 23 steps each
        killed_at(planted_data, killed, goal)
    ours, theirs = (
        {path.parent.name: path.parent for path in run.glob("checkpoints/step-*/COMPLETE")}
        for run in (killed, whole)
    )
    both = sorted(ours.keys() & theirs.keys())
    assert both[0] == "step-00000003" and int(both[-1].removeprefix("step-")) >= 51
    for step in both:
        for file in sorted(path.name for path in theirs[step].glob("*.safetensors")):
            tensors, expected = load_file(ours[step] / file), load_file(theirs[step] / file)
            assert tensors.keys() == expected.keys(), (step, file)
            for name, tensor in expected.items():
                assert torch.equal(tensors[name], tensor), (step, file, name)
        positions = [
            json.loads((folder[step] / "state.json").read_text())["position"]
            for folder in (ours, theirs)
        ]
        for position in positions:
            del position["seconds"]
        assert positions[0] == positions[1]
    state = load_file(theirs[both[-1]] / "optimizer.safetensors")
    assert "meters.window" in state
    assert any(name.startswith("dense.exp_avg_sq.") for name in state) and any(
        name.startswith("tables.") for name in state
    )


def test_ctrl_c_saves_says_how_to_go_on_and_exits_with_130(
    planted_data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = fork_hemix(*command(planted_data, run))
    while steps_done(run) < 5 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    last = err.strip().splitlines()[-1]
    assert "checkpoint saved; continue with: hemix train --resume" in last
    assert "Traceback" not in err
    resume = last.split("continue with: ")[1].split()
    complete(*resume[1:])  # without "hemix"


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
    subprocess.run(
        ["umount", "--lazy", str(folder)], check=True
    )  # the error may still hold memory maps


def test_a_disk_that_fills_up_while_saving_keeps_the_previous_checkpoint(
    planted_data: Path, small_disk: Path
) -> None:
    run = small_disk / "run"
    settings = [
        "--set",
        "model.token_width=64",
        "--set",
        "train.checkpoint_every_steps=1",
        "--set",
        "train.keep_checkpoints=50",
    ]
    process = fork_hemix(*command(planted_data, run), *settings)
    _, err = process.communicate()
    assert process.returncode == 2
    assert err.strip().splitlines()[-1].endswith(": the disk is full")
    assert "Traceback" not in err
    for folder in (run / "checkpoints").glob("*"):
        assert folder.name == "LATEST" or (folder / "COMPLETE").exists(), (
            "no half-written checkpoint"
        )
    assert not list(run.rglob(".*.part"))


@pytest.fixture(scope="module")
def finished(planted_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; read only."""
    run = tmp_path_factory.mktemp("finished") / "run"
    return api.train(planted_data, run, settings={"train.batch_size": 1000})


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw files of MovieLens with enough ratings to fill a disk."""
    folder = tmp_path_factory.mktemp("ratings") / "raw"
    folder.mkdir()
    lines = [
        f"{n % 97},{n % 89},{1 + n % 5},{1_000_000 + 7919 * n % 1_000_003}\n" for n in range(40_000)
    ]
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + "".join(lines))
    movies = "".join(f"{n},Film {n} (1999),Drama\n" for n in range(89))
    (folder / "movies.csv").write_text("movieId,title,genres\n" + movies)
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("name", ["prepare", "simulate", "import", "train", "evaluate", "predict"])
def test_a_full_disk_ends_every_writing_command_in_one_line(
    name: str,
    hemix: Command,
    planted_logs: Path,
    planted_data: Path,
    finished: Path,
    ratings: Path,
    small_disk: Path,
) -> None:
    run, out = small_disk / "run", str(small_disk / "out")
    if name == "evaluate":
        shutil.copytree(finished, run)
    free = shutil.disk_usage(small_disk).free
    (small_disk / "ballast").write_bytes(
        b"\0" * (free - {"evaluate": 8_192, "predict": 8_192}.get(name, 40_960))
    )
    before = files_of(small_disk)
    arguments = {
        "prepare": ["prepare", planted_logs, "--out", out],
        "simulate": ["simulate", "--out", out, "--users", 50, "--days", 3],
        "import": ["import", "movielens", ratings, "--out", out],
        "train": ["train", "--data", planted_data, "--out", out],
        "evaluate": ["evaluate", run, "--data", planted_data],
        "predict": ["predict", finished, "--data", planted_data, "--out", f"{out}.parquet"],
    }[name]
    code, out_text, err = hemix(*arguments)
    assert code == 2, (out_text, err)
    assert "Traceback" not in err
    assert err.strip().splitlines()[-1].startswith("hemix: ")
    assert err.strip().endswith("the disk is full")
    assert name == "train" or len(err.strip().splitlines()) == 1, err
    after = files_of(small_disk)
    assert not [path for path in after if ".part" in path], "nothing half-written"
    if name == "evaluate":  # each file of the run is the old one or, written whole, the new one
        assert after.keys() - before.keys() <= {"run/report.html"}
        assert (
            "click" in after["run/metrics.json"].decode()
            or after["run/metrics.json"] == before["run/metrics.json"]
        )
        json.loads(after["run/metrics.json"])
        assert {k: v for k, v in after.items() if "metrics" not in k and "report" not in k} == {
            k: v for k, v in before.items() if "metrics" not in k
        }
    elif name == "train":
        assert not (small_disk / "out" / "run.json").exists()
    else:
        assert after == before
        assert [path.name for path in small_disk.iterdir()] == ["ballast"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("stage", ["temporary", "encoders"])
def test_a_stopped_prepare_leaves_nothing(tmp_path: Path, number: int, stage: str) -> None:
    logs = write_logs(tmp_path / "logs", users=2000)
    parent = tmp_path / "new" / "place"
    process = fork_hemix("prepare", logs, "--out", parent / "data")
    while not list(parent.glob(f".data.*.part/{stage}")) and process.poll() is None:
        time.sleep(0.0005)
    process.send_signal(signal.SIGSTOP)  # it must not finish before the signal
    assert list(parent.glob(f".data.*.part/{stage}"))
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert (out, "Traceback" in err) == ("", False)
    assert err.strip().splitlines()[-1] == "hemix: interrupted; nothing half-written was left"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs"]
