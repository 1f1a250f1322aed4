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
    from hemix.data.prepare import prepare

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
