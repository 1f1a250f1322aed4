"""Executors and drivers that are killed in the middle of a preparation."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hemix.errors import ProcessLost
from hemix.preparation import prepare
from hemix.preparation.spark.engine import SparkEngine
from tests.preparation.same_bytes import file_hashes
from tests.preparation.spark.sessions import require_spark, spark_session, write_defaults

pytestmark = pytest.mark.slow

_SECONDS = 120.0


def parent_of(pid: int) -> int:
    """The parent's pid; 0 if there is no such process."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return 0
    return int(status.rpartition(")")[2].split()[1])


def is_running(pid: int) -> bool:
    """Whether the process runs; a zombie has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition: Callable[[], Any]) -> Any:
    """The first value of the condition that is true."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError("waited in vain")


# -- executors -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stalled:
    """A stage's function whose first attempt waits, half done, until its executor is killed."""

    function: Callable[[Any, Path], Any]
    folder: Path
    """Receives the pid of the executor"""

    def __call__(self, argument: Any, out: Path) -> Any:
        try:
            (self.folder / "first").touch(exist_ok=False)
        except FileExistsError:
            return self.function(argument, out)
        (out / "half.npy").write_bytes(b"half")
        fork_server = os.getppid()
        (self.folder / "part").write_text(str(parent_of(fork_server)))
        (self.folder / "part").rename(self.folder / "executor")
        while is_running(fork_server):
            time.sleep(0.05)
        raise SystemExit(1)


class KilledExecutors(SparkEngine):
    """Kills the executor of the first task of some stages."""

    def __init__(self, session: Any, stages: Sequence[str], folder: Path) -> None:
        super().__init__(session, progress=self.kill)
        self.stages, self.folder, self.killed = stages, folder, dict[str, int]()

    def map(
        self,
        stage: str,
        function: Callable[[Any, Path], Any],
        arguments: Sequence[Any],
        folder: Path,
    ) -> list[Any]:
        if stage in self.stages:
            (self.folder / stage).mkdir(parents=True)
            function = Stalled(function, self.folder / stage)
        return super().map(stage, function, arguments, folder)

    def kill(self, stage: str, _fraction: float) -> None:
        pid = self.folder / stage / "executor"
        if stage not in self.killed and pid.exists():
            self.killed[stage] = int(pid.read_text())
            assert "Executor" in Path(f"/proc/{self.killed[stage]}/cmdline").read_text()
            os.kill(self.killed[stage], signal.SIGKILL)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A master, two workers and two executors, each a process of its own."""
    folder = tmp_path_factory.mktemp("cluster")
    settings = {"spark__task__maxFailures": "2"}
    with spark_session("local-cluster[2,1,1024]", folder, **settings) as session:
        yield session


def test_two_executors_killed_in_two_stages(cluster: Any, rich_logs: Path, tmp_path: Path) -> None:
    prepare(rich_logs, tmp_path / "undisturbed", partitions=4)
    engine = KilledExecutors(cluster, ["reading events", "writing"], tmp_path / "kills")
    prepare(rich_logs, tmp_path / "data", partitions=4, memory_rows=70, engine=engine)
    assert len(set(engine.killed.values())) == 2
    assert file_hashes(tmp_path / "data") == file_hashes(tmp_path / "undisturbed")


def kill_own_executor(_number: int, _out: Path) -> None:
    executor = parent_of(os.getppid())
    assert "Executor" in Path(f"/proc/{executor}/cmdline").read_text()
    os.kill(executor, signal.SIGKILL)
    time.sleep(_SECONDS)


def test_executors_that_are_lost_again_and_again(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(ProcessLost) as lost:
        SparkEngine(cluster).map("reading", kill_own_executor, [0], tmp_path / "out")
    assert lost.value.exit_code == 75
    assert lost.value.hint is not None
    assert "spark.task.maxFailures" in lost.value.hint
    assert not list((tmp_path / "out").iterdir())


# -- driver ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Started:
    """A preparation in a process of its own, in the middle of its stages."""

    process: subprocess.Popen[str]
    java: int
    out: Path


@pytest.fixture
def started(rich_logs: Path, tmp_path: Path) -> Iterator[Started]:
    require_spark(tmp_path)
    out = tmp_path / "data"
    command = [sys.executable, "-m", "hemix", "prepare", str(rich_logs), "--out", str(out)]
    process = subprocess.Popen(
        [*command, "--engine", "spark", "--spark-master", "local[2]"],
        env={**os.environ, "SPARK_CONF_DIR": str(write_defaults(tmp_path))},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(lambda: list(tmp_path.glob(".data.*.part/temporary/blocks")))
        yield Started(process, java_of(process.pid), out)
    finally:
        process.kill()
        process.communicate()


def java_of(driver: int) -> int:
    """The pid of the driver's JVM."""
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    (java,) = [
        pid
        for pid in pids
        if parent_of(pid) == driver and "java" in Path(f"/proc/{pid}/comm").read_text()
    ]
    return java


def test_the_driver_is_killed(started: Started) -> None:
    """Nothing is at --out, and Spark ends as well."""
    started.process.kill()
    started.process.wait()
    wait_for(lambda: not is_running(started.java))
    assert not started.out.exists()


def test_the_jvm_of_the_driver_is_killed(started: Started) -> None:
    os.kill(started.java, signal.SIGKILL)
    _, errors = started.process.communicate(timeout=_SECONDS)
    assert started.process.returncode == ProcessLost.exit_code
    assert errors.splitlines()[-1].startswith("hemix: ")
    assert not started.out.exists()
    assert not list(started.out.parent.glob(".data.*"))
