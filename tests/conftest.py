"""What several rooms' tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tests.planted import write_logs

# Small tensors: one thread is faster, and two processes do not wait for each other's barriers.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

KUAIRAND = Path(__file__).parent.parent.parent / "shared" / "data" / "kuairand_pure"


@pytest.fixture(scope="session")
def planted_logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small logs with a planted rule; read only."""
    return write_logs(tmp_path_factory.mktemp("planted") / "logs")


@pytest.fixture(scope="session")
def planted_data(planted_logs: Path) -> Path:
    """Those logs, prepared; read only."""
    from hemix.preparation import prepare

    out = planted_logs.parent / "data"
    prepare(planted_logs, out)
    return out


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
    from tests.rich import write_rich

    return write_rich(tmp_path_factory.mktemp("rich") / "logs")


@pytest.fixture(scope="session")
def rich_data(rich_logs: Path) -> Path:
    """Those logs, prepared; read only."""
    from hemix.preparation import prepare

    prepare(rich_logs, rich_logs.parent / "data")
    return rich_logs.parent / "data"


@pytest.fixture(scope="session")
def rich_partitions(rich_logs: Path) -> Path:
    """The same in five partitions; read only."""
    from hemix.preparation import prepare

    prepare(rich_logs, rich_logs.parent / "partitions", partitions=5)
    return rich_logs.parent / "partitions"


@pytest.fixture(scope="session")
def rich_run(rich_data: Path) -> Path:
    """A run on them of a few steps; read only."""
    from hemix import api

    settings = {
        "train.batch_size": 32,
        "train.warmup_steps": 1,
        "train.epochs": 2,
        "model.embedding_init_std": 0.5,
    }
    return api.train(rich_data, rich_data.parent / "run", settings=settings)
