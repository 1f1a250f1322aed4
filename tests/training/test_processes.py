"""Training over several real processes: the numbers of one, and one clear line where something is
wrong with one of them.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hemix import api
from hemix.data.dataset import Dataset
from hemix.errors import HemixError, ProcessLost, SettingsError
from hemix.runs.weights import DENSE_FILE, TABLES_FILE
from hemix.settings import build_settings
from hemix.training.checks import check_memory, process_bytes
from hemix.training.launch import free_port, launch
from tests.batches import make_spec
from tests.planted import SMALL_MODEL, write_logs
from tests.refusals import raises

SETTINGS = {
    "train.batch_size": 64,
    "train.gradient_accumulation": 6,
    "train.checkpoint_every_steps": 3,
    "train.threads": 1,
    "train.log_every_steps": 1,
    **SMALL_MODEL,
}


def settings_with(more: dict[str, object]) -> dict[str, object]:
    """The settings of these tests with others; another model has none of HeMix's."""
    own = {} if more.get("model.name", "hemix") == "hemix" else SMALL_MODEL
    return {name: value for name, value in SETTINGS.items() if name not in own} | more


def command(data: Path, out: Path, *flags: str, **more: object) -> list[str]:
    settings = [
        part for name, value in settings_with(more).items() for part in ("--set", f"{name}={value}")
    ]
    return [
        sys.executable,
        "-m",
        "hemix",
        "train",
        "--data",
        str(data),
        "--out",
        str(out),
        *settings,
        *flags,
    ]


def done(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, capture_output=True, text=True, timeout=240, env={**os.environ, **environment}
    )


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def assert_close(one: Path, other: Path, tolerance: float) -> None:
    for file in (DENSE_FILE, TABLES_FILE):
        tensors, expected = load_file(one / file), load_file(other / file)
        assert list(tensors) == list(expected)
        for name, tensor in expected.items():
            torch.testing.assert_close(
                tensors[name], tensor, rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
            )


@pytest.fixture(scope="module")
def alone(planted_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    return api.train(planted_data, out, settings=SETTINGS)


@pytest.mark.slow
def test_three_processes_train_what_one_does_within_rounding(
    planted_data: Path, alone: Path, tmp_path: Path
) -> None:
    together = tmp_path / "run"
    ended = done(command(planted_data, together, "--processes", "3"), OMP_NUM_THREADS="1")
    assert ended.returncode == 0, ended.stderr
    assert losses(together) == pytest.approx(losses(alone), abs=1e-4) and len(losses(alone)) == 23
    assert_close(together, alone, 1e-4)
    ours, theirs = (
        json.loads((run / "log.jsonl").read_text().splitlines()[-1]) for run in (together, alone)
    )
    assert ours["valid_auc"] == pytest.approx(theirs["valid_auc"], abs=1e-4)
    assert ours["valid_loss"] == pytest.approx(theirs["valid_loss"], abs=1e-5)
    assert sorted(path.name for path in together.iterdir()) == sorted(
        path.name for path in alone.iterdir()
    )
    assert (together / TABLES_FILE).stat().st_size == (alone / TABLES_FILE).stat().st_size
    auc = api.evaluate(together, planted_data)["tasks"]["click"]["auc"]
    assert auc == pytest.approx(
        api.evaluate(alone, planted_data)["tasks"]["click"]["auc"], abs=1e-3
    )


def assert_same_run(one: Path, other: Path, steps: int = 23) -> None:
    assert losses(other) == losses(one) and len(losses(one)) == steps
    for file in (DENSE_FILE, TABLES_FILE):
        assert (other / file).read_bytes() == (one / file).read_bytes()


def test_one_process_and_two_give_the_same_bytes(planted_data: Path, tmp_path: Path) -> None:
    """Also when a run goes on with another number of processes; dropout is drawn by slot."""
    more = {"train.gradient_accumulation": 2, "model.dropout": 0.1}
    one, two = tmp_path / "one", tmp_path / "two"
    api.train(planted_data, one, settings={**SETTINGS, **more})
    process = begun(command(planted_data, two, "--processes", "2", **more), two, 7)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130
    api.train(planted_data, two, resume=True)
    assert_same_run(one, two)


@pytest.mark.slow
def test_one_two_and_four_processes_give_the_same_bytes(planted_data: Path, tmp_path: Path) -> None:
    more = {"train.gradient_accumulation": 4, "model.dropout": 0.1}
    one = api.train(planted_data, tmp_path / "one", settings={**SETTINGS, **more})
    for processes in ("2", "4"):
        several = tmp_path / processes
        ended = done(
            command(planted_data, several, "--processes", processes, **more), OMP_NUM_THREADS="1"
        )
        assert ended.returncode == 0, ended.stderr
        assert_same_run(one, several)


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        {"train.table_optimizer": "rowwise_adagrad", "train.embedding_backend": "fbgemm"},
        {"train.table_optimizer": "rowwise_adagrad", "train.embedding_backend": "torch"},
        {"train.ema_decay": 0.9, "model.name": "sim"},
        {
            "train.dense_optimizer": "adamw",
            "train.weight_decay": 0.01,
            "train.batch_size": 4,
            "train.log_every_steps": 50,
        },
        {"train.deduplicate": False, "train.precision": "bf16"},
        {"train.shuffle": "users"},
        {"train.shuffle": "time"},
    ],
)
def test_the_same_bytes_with_other_settings_and_slots_without_a_user(
    planted_data: Path, tmp_path: Path, more: dict[str, object]
) -> None:
    more = {"train.gradient_accumulation": 2, "train.checkpoint_every_steps": 0, **more}
    one, two = tmp_path / "one", tmp_path / "two"
    api.train(planted_data, one, settings=settings_with(more))
    ended = done(command(planted_data, two, "--processes", "2", **more), OMP_NUM_THREADS="1")
    assert ended.returncode == 0, ended.stderr
    assert_same_run(one, two, steps=len(losses(one)))


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def begun(arguments: list[str], run: Path, steps: int) -> subprocess.Popen[str]:
    """A launcher whose run has done so many steps."""
    process = subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while not ((run / "log.jsonl").exists() and len(losses(run)) >= steps):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)
    return process


@pytest.mark.slow
def test_a_process_that_dies_ends_the_others_and_the_run_goes_on_with_any_number(
    planted_data: Path, alone: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = begun(command(planted_data, run, "--processes", "2"), run, 5)
    workers = children(process.pid)
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 2
    last_line = stderr.strip().splitlines()[-1]
    assert last_line.startswith("hemix: process 1 of 2 was killed by SIGKILL")
    assert "--resume" in last_line
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    process = begun(command(planted_data, run, "--processes", "3", "--resume"), run, 12)
    os.kill(process.pid, signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130 and "checkpoint saved" in stderr
    api.train(planted_data, run, resume=True)
    assert len(losses(run)) == 23
    assert_close(run, alone, 1e-4)


@pytest.mark.slow
def test_kill_9_of_all_and_the_same_number_goes_on_to_the_same_bytes(
    planted_data: Path, tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    more = {"model.dropout": 0.1}
    assert (
        done(
            command(planted_data, whole, "--processes", "2", **more), OMP_NUM_THREADS="1"
        ).returncode
        == 0
    )
    for goal in (5, 14):
        process = begun(
            command(planted_data, killed, "--processes", "2", "--resume", **more), killed, goal
        )
        for pid in (*children(process.pid), process.pid):
            os.kill(pid, signal.SIGKILL)
        process.communicate()
    assert (
        done(
            command(planted_data, killed, "--processes", "2", "--resume", **more),
            OMP_NUM_THREADS="1",
        ).returncode
        == 0
    )
    for file in (DENSE_FILE, TABLES_FILE):
        assert (killed / file).read_bytes() == (whole / file).read_bytes()


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_a_run_has_one_writer_and_its_processes_end_with_their_launcher(
    planted_data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = begun(command(planted_data, run, "--processes", "2"), run, 4)
    workers = children(process.pid)
    for worker in workers:  # they shall not be done before they are killed
        os.kill(worker, signal.SIGSTOP)
    refused = done(command(planted_data, run, "--resume"))
    assert refused.returncode == 2
    assert (
        refused.stderr.strip()
        == f"hemix: --out {run}: another process is training into it: wait for its end, or end it"
    )
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 30
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, workers))
    api.train(planted_data, run, resume=True)
    assert len(losses(run)) == 23


@pytest.mark.slow
def test_a_missing_rank_file_is_named_and_the_newest_complete_checkpoint_offered(
    planted_data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = begun(command(planted_data, run, "--processes", "2"), run, 7)
    process.send_signal(signal.SIGTERM)
    _, printed = process.communicate(timeout=60)
    resume = f"hemix train --resume --processes 2 --data {planted_data} --out {run}"
    assert f"checkpoint saved; continue with: {resume}\n" in printed
    older, newest = sorted((run / "checkpoints").glob("step-*"))
    gone = newest / "rows-00001-of-00002.safetensors"
    gone.unlink()
    ended = done([sys.executable, "-m", *resume.split()], OMP_NUM_THREADS="1")
    assert ended.returncode == 2
    assert ended.stderr.strip() == (
        f"hemix: {gone}: missing; the newest complete checkpoint is {older.name}: remove {newest} "
        "and --resume continues from there"
    )
    shutil.rmtree(newest)
    damaged = older / "rows-00001-of-00002.safetensors"
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    ended = done([sys.executable, "-m", *resume.split()], OMP_NUM_THREADS="1")
    assert (
        f"hemix: process 1 of 2 could not read {older}: {damaged}: damaged: its sha256 begins with"
        in ended.stderr
    )
    damaged.write_bytes(content)
    assert done([sys.executable, "-m", *resume.split()], OMP_NUM_THREADS="1").returncode == 0
    assert len(losses(run)) == 23


def both_of(*commands: list[str]) -> list[subprocess.Popen[str]]:
    """Processes of one run, as torchrun would start them."""
    world = {
        **os.environ,
        "WORLD_SIZE": str(len(commands)),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    return [
        subprocess.Popen(
            each,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**world, "OMP_NUM_THREADS": "1", "RANK": str(rank)},
        )
        for rank, each in enumerate(commands)
    ]


@pytest.fixture(scope="module")
def other_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("other")
    write_logs(folder / "logs", users=90, seed=2)
    api.prepare(folder / "logs", folder / "data")
    return folder / "data"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("settings", "settings than process 0: model.dropout is 0.1, not 0.0"),
        ("data", "data than process 0: encoders/000.ids.npy is "),
        ("flags", "flags than process 0: --resume is true, not false"),
    ],
)
def test_processes_that_would_begin_differently_refuse_and_say_which(
    planted_data: Path, other_data: Path, tmp_path: Path, what: str, says: str
) -> None:
    first = command(planted_data, tmp_path / "run")
    second = {
        "settings": command(planted_data, tmp_path / "run", **{"model.dropout": 0.1}),
        "data": command(other_data, tmp_path / "run"),
        "flags": [*first, "--resume"],
    }[what]
    for process in both_of(first, second):
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 2
        assert stderr.startswith(f"hemix: process 1 of 2 has other {says}") and stderr.endswith(
            "; start all with the same\n"
        )
    assert not (tmp_path / "run").exists()


def two_that_save(arguments: list[str], saving: str) -> list[subprocess.Popen[str]]:
    """Two processes of one run; the second does ``saving`` before it writes its rows the ``call``th
    time.
    """
    code = (
        "import sys, time\nfrom hemix.errors import StorageError\nimport "
        "hemix.training.checkpoint as checkpoint\n"
        "call, save = 0, checkpoint.save_tensors\n"
        "def save_tensors(path, tensors):\n    global call\n    call += 1\n"
        f"    {saving}\n    return save(path, tensors)\n"
        "checkpoint.save_tensors = save_tensors\nfrom hemix.cli import main\nmain()\n"
    )
    return both_of(arguments, [sys.executable, "-c", code, *arguments[3:]])


@pytest.mark.slow
def test_several_processes_go_on_while_one_still_saves(
    planted_data: Path, alone: Path, tmp_path: Path
) -> None:
    run, steps = tmp_path / "run", 0
    both = two_that_save(command(planted_data, run), "time.sleep(3 if call == 1 else 0)")
    while not (run / "checkpoints" / "LATEST").exists():
        assert all(process.poll() is None for process in both), [
            process.communicate() for process in both
        ]
        steps = len(losses(run)) if (run / "log.jsonl").exists() else 0
        time.sleep(0.01)
    assert steps >= 5, "the first checkpoint is of step 3"
    assert [process.wait(120) for process in both] == [0, 0]
    for process in both:
        process.communicate()
    assert_close(run, alone, 1e-4)


@pytest.mark.slow
def test_a_failed_background_save_ends_all_and_the_checkpoint_before_resumes(
    planted_data: Path, alone: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    first, second = two_that_save(
        command(planted_data, run), "if call == 2: raise StorageError('the disk is full')"
    )
    last_lines = [
        process.communicate(timeout=120)[1].strip().splitlines()[-1] for process in (first, second)
    ]
    assert (first.returncode, second.returncode) == (2, 2)
    assert last_lines == [
        f"hemix: process 1 of 2 could not save its rows in {run / 'checkpoints'}: the disk is full",
        "hemix: the disk is full",
    ]
    assert (run / "checkpoints" / "LATEST").read_text() == "step-00000003\n"
    api.train(planted_data, run, resume=True)
    assert len(losses(run)) == 23
    assert_close(run, alone, 1e-4)


def test_processes_that_only_lost_each_other_are_not_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = tmp_path / "lost"
    lost.write_text(f"#!/bin/sh\nexit {ProcessLost.exit_code}\n")
    lost.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(lost))
    with raises(HemixError, "0, 1 of 2", "--resume", code="process_lost"):
        launch(2, ["train"])


@pytest.mark.parametrize("rows", [1, 1_000, 10_000_000])
@pytest.mark.parametrize("copy", [False, True])
def test_the_number_of_processes_that_would_do_is_the_least(rows: int, copy: bool) -> None:
    spec = make_spec()
    spec = dataclasses.replace(
        spec, tables={**dict.fromkeys(spec.tables, 0), next(iter(spec.tables)): rows}
    )
    _, dense, copied = process_bytes(spec, build_settings(), 1)
    tables = rows * 16 * 12
    budget = dense + (copied - tables if copy else 0) + max(tables // 5, 16 * 12 * 3)
    settings = build_settings(
        overrides={"train.memory_budget_bytes": budget, "train.async_checkpoint": copy}
    )
    if sum(process_bytes(spec, settings, 1)) <= budget:
        check_memory(spec, settings, 1)
        return
    with raises(SettingsError, field="train.memory_budget_bytes") as error:
        check_memory(spec, settings, 1)
    least = int(re.findall(r"\d+", error.value.hint or "")[-1])
    check_memory(spec, settings, least)
    with pytest.raises(SettingsError):
        check_memory(spec, settings, least - 1)


def test_a_budget_with_no_room_for_a_single_row_fits_no_number() -> None:
    spec = make_spec()
    _, dense, _ = process_bytes(spec, build_settings(), 1)
    settings = build_settings(
        overrides={"train.memory_budget_bytes": dense + 1, "train.async_checkpoint": False}
    )
    with raises(SettingsError, field="train.memory_budget_bytes"):
        check_memory(spec, settings, 1)


def test_a_budget_that_is_too_small_says_how_many_processes_would_do(
    planted_data: Path, tmp_path: Path
) -> None:
    with raises(SettingsError, "3,000,000", field="train.memory_budget_bytes"):
        api.train(
            planted_data,
            tmp_path / "run",
            settings={"train.memory_budget_bytes": 3_000_000},
        )
    assert not (tmp_path / "run").exists()


def test_100_million_rows_of_16_do_not_fit_5_gib_in_one_process_and_do_in_two_without_a_copy() -> (
    None
):
    """Row-wise Adagrad: 17 values of 4 bytes a row, 6.8 GB in one process, half of it in two; a
    copy for a checkpoint as much again.
    """
    spec = make_spec()
    spec = dataclasses.replace(
        spec, tables={**dict.fromkeys(spec.tables, 0), next(iter(spec.tables)): 100_000_000}
    )
    budget = {"train.table_optimizer": "rowwise_adagrad", "train.memory_budget_bytes": 5 * 2**30}
    settings = build_settings(overrides=budget)
    assert process_bytes(spec, settings, 1)[0] == 100_000_000 * 17 * 4
    assert process_bytes(spec, settings, 2)[0] == 50_000_000 * 17 * 4
    ways = ("2 processes with train.async_checkpoint=false", "3 processes")
    field = "train.memory_budget_bytes"
    with raises(SettingsError, "6,800,000,000", 1, *ways, field=field):
        check_memory(spec, settings, 1)
    with raises(SettingsError, "3,400,000,000", 2, *ways, field=field):
        check_memory(spec, settings, 2)
    check_memory(spec, settings, 3)
    check_memory(spec, build_settings(overrides={**budget, "train.async_checkpoint": False}), 2)


def test_the_copy_for_a_checkpoint_counts() -> None:
    """10 M rows of Adam: 1.92 GB, and as much again while a checkpoint is written."""
    spec = make_spec()
    spec = dataclasses.replace(
        spec, tables={**dict.fromkeys(spec.tables, 0), next(iter(spec.tables)): 10_000_000}
    )
    budget = {"train.memory_budget_bytes": 2_500_000_000}
    tables, dense, copy = process_bytes(spec, build_settings(overrides=budget), 1)
    assert (tables, copy) == (1_920_000_000, tables + dense * 3 // 4)
    ways = ("one process with train.async_checkpoint=false", "2 processes")
    with raises(SettingsError, f"{copy:,}", *ways, field="train.memory_budget_bytes"):
        check_memory(spec, build_settings(overrides=budget), 1)
    for fewer in ({"train.async_checkpoint": False}, {"train.checkpoint_every_steps": 0}):
        check_memory(spec, build_settings(overrides={**budget, **fewer}), 1)
    check_memory(spec, build_settings(overrides=budget), 2)


@pytest.mark.slow
def test_lightgbm_trains_in_one_process(planted_data: Path, tmp_path: Path) -> None:
    ended = done(
        command(planted_data, tmp_path / "run", "--processes", "2", **{"model.name": "lightgbm"}),
        OMP_NUM_THREADS="1",
    )
    assert ended.returncode == 2
    assert "hemix: --processes: lightgbm trains in one process, with train.threads" in ended.stderr
    assert Dataset(planted_data).folder.exists() and not (tmp_path / "run").exists()
