"""The engine of one machine: the order of answers, and processes that are killed or fail."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hemix.errors import DataError, ProcessLost, UsageError
from hemix.preparation import prepare
from hemix.preparation.engine import task_folder
from hemix.preparation.local_engine import LocalEngine
from tests.data.small import PLAIN, at, shown, write
from tests.refusals import raises


def _slow_first(number: int, folder: Path) -> int:
    """The first task ends last."""
    time.sleep(0.3 if number == 0 else 0.0)
    (folder / "pid").write_text(str(os.getpid()))
    return number * number


def _killed(number: int, _folder: Path) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def _refused(number: int, _folder: Path) -> int:
    time.sleep(0.3 if number == 1 else 0.0)
    if number in (1, 2):
        raise DataError(f"row {number}", code="no_rows", field="x", hint="try")
    return number


@pytest.mark.parametrize("processes", [1, 2])
def test_answers_and_folders_are_in_the_order_of_the_arguments(
    tmp_path: Path, processes: int
) -> None:
    reports: list[tuple[str, float]] = []
    engine = LocalEngine(processes=processes, progress=lambda *report: reports.append(report))
    with engine:
        assert engine.map("squares", _slow_first, [0, 1, 2, 3], tmp_path / "out") == [0, 1, 4, 9]
        assert engine.map("none", _slow_first, [], tmp_path / "none") == []
    pids = {(task_folder(tmp_path / "out", n) / "pid").read_text() for n in range(4)}
    assert (str(os.getpid()) in pids) == (processes == 1)
    assert [report for report in reports if report[0] == "squares"] == [
        ("squares", n / 4) for n in range(5)
    ]
    assert multiprocessing.active_children() == []


def _memory_pool(_number: int, _folder: Path) -> str:
    return str(pa.default_memory_pool().backend_name)


def test_arrow_takes_memory_from_malloc_in_tasks_only(tmp_path: Path) -> None:
    earlier = pa.default_memory_pool().backend_name
    with LocalEngine() as engine:
        assert engine.map("stage", _memory_pool, [0], tmp_path) == ["system"]
    assert pa.default_memory_pool().backend_name == earlier


@pytest.mark.parametrize("processes", [1, 2])
def test_the_error_is_that_of_the_first_argument(tmp_path: Path, processes: int) -> None:
    with (
        LocalEngine(processes=processes) as engine,
        raises(DataError, "row 1", code="no_rows", field="x") as caught,
    ):
        engine.map("stage", _refused, [0, 1, 2, 3], tmp_path / "out")
    assert caught.value.hint == "try"


def test_a_killed_process_ends_the_stage(tmp_path: Path) -> None:
    with raises(ProcessLost, "stage"), LocalEngine(processes=2) as engine:
        engine.map("stage", _killed, [0, 1, 2, 3], tmp_path / "out")
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("processes", [0, -1])
def test_a_number_of_processes_out_of_range_is_refused(processes: int) -> None:
    with raises(UsageError, processes, field="--processes"):
        LocalEngine(processes=processes)


# -- whole preparations ----------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["counting", "writing"])
def test_kill_9_of_the_processes_of_a_stage(rich_logs: Path, tmp_path: Path, stage: str) -> None:
    killed: list[int] = []

    def progress(name: str, fraction: float) -> None:
        if name == stage and fraction == 0:
            killed.extend(p.pid for p in multiprocessing.active_children() if p.pid)
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    logs = tmp_path / "logs"
    logs.symlink_to(rich_logs)
    with raises(ProcessLost, stage):
        prepare(logs, tmp_path / "data", processes=2, memory_rows=70, progress=progress)
    assert killed and multiprocessing.active_children() == []
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _wait_for(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def test_kill_9_of_the_command_leaves_no_process_and_no_dataset(
    rich_logs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "data"
    arguments = ["prepare", str(rich_logs), "--out", str(out), "--processes", "2"]
    with subprocess.Popen([sys.executable, "-m", "hemix", *arguments]) as command:
        _wait_for(lambda: list(tmp_path.glob(".data.*.part/temporary/clean/00000")))
        children = _children(command.pid)
        command.kill()
    assert len(children) >= 2
    _wait_for(lambda: not any(map(_runs, children)))
    assert not out.exists()
    [left] = tmp_path.iterdir()
    assert left.name == f".data.{command.pid}.part"
    prepare(rich_logs, out)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]  # the next one removes it


@pytest.mark.parametrize("processes", [1, 2])
def test_the_first_wrong_row_of_the_log_is_named_whoever_finds_it(
    tmp_path: Path, processes: int
) -> None:
    """Two files in several row groups, each read by a task; the later ones are wrong too."""
    logs = write(tmp_path / "logs", PLAIN + "tables: {impressions: days}")
    (logs / "days").mkdir()
    rows = [(f"u{n % 7}", "i", at(n // 40, n % 20), 1) for n in range(120)]
    for name, wrong in (("a", [33, 50]), ("b", [5, 99])):
        values = shown(rows)
        values["click"] = [7 if n in wrong else 1 for n in range(120)]
        pq.write_table(pa.table(values), logs / "days" / f"{name}.parquet", row_group_size=20)
    with raises(DataError, "a.parquet", "row 33", "click", 7):
        prepare(logs, tmp_path / "data", processes=processes, memory_rows=20, partitions=4)
    assert not (tmp_path / "data").exists()
