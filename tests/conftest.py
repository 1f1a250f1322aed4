"""What several rooms' tests share."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
import torch

from hemix import api
from hemix.cli import main
from hemix.preparation import prepare
from tests.cli.run import Command
from tests.made_once import make_once
from tests.planted import write_logs
from tests.rich import write_rich

# Small tensors: one thread is faster, and two processes do not wait for each other's barriers.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

KUAIRAND = Path(__file__).parent.parent.parent / "shared" / "data" / "kuairand_pure"


@pytest.hookimpl(tryfirst=True)  # before pytest selects by markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave every n-th case of a sweep marked ``sampled(n)`` in the fast lane: the others are
    slow.
    """
    cases = Counter[str]()
    for item in items:
        marker = item.get_closest_marker("sampled")
        if marker is not None:
            test = item.nodeid.partition("[")[0]
            if cases[test] % marker.args[0]:
                item.add_marker(pytest.mark.slow)
            cases[test] += 1


@pytest.fixture(scope="session")
def planted_logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small logs with a planted rule; read only."""
    return make_once(tmp_path_factory, "planted/logs", write_logs)


@pytest.fixture(scope="session")
def planted_data(planted_logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those logs, prepared; read only."""
    return make_once(tmp_path_factory, "planted/data", lambda out: prepare(planted_logs, out))


@pytest.fixture(scope="session")
def planted_run(planted_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps on the planted logs; read only."""
    settings = {
        "train.batch_size": 512,
        "train.warmup_steps": 1,
        "model.embedding_init_std": 0.5,
    }
    return make_once(
        tmp_path_factory,
        "planted/run",
        lambda out: api.train(planted_data, out, settings=settings),
    )


@pytest.fixture
def kuairand() -> Path:
    """Folder of the KuaiRand-Pure slice."""
    if not KUAIRAND.is_dir():
        pytest.skip(f"REAL DATA ABSENT: no KuaiRand-Pure slice at {KUAIRAND}")
    return KUAIRAND


@pytest.fixture
def deterministic() -> object:
    """torch refuses whatever is not deterministic."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def rich_logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small logs with every type of feature; read only."""
    return make_once(tmp_path_factory, "rich/logs", write_rich)


@pytest.fixture(scope="session")
def rich_data(rich_logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those logs, prepared; read only."""
    return make_once(tmp_path_factory, "rich/data", lambda out: prepare(rich_logs, out))


@pytest.fixture(scope="session")
def rich_partitions(rich_logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in five partitions; read only."""

    def write(out: Path) -> None:
        prepare(rich_logs, out, partitions=5)

    return make_once(tmp_path_factory, "rich/partitions", write)


@pytest.fixture(scope="session")
def rich_run(rich_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on them of a few steps; read only."""
    settings = {
        "train.batch_size": 32,
        "train.warmup_steps": 1,
        "train.epochs": 2,
        "model.embedding_init_std": 0.5,
    }
    return make_once(
        tmp_path_factory, "rich/run", lambda out: api.train(rich_data, out, settings=settings)
    )


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
