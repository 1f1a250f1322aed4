"""A run that the tests of exports share."""

from __future__ import annotations

from pathlib import Path

import pytest

from hemix import api
from tests.exporting.sizes import SMALL
from tests.made_once import make_once


@pytest.fixture(scope="session")
def run(planted_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run; read only."""
    settings = {f"model.{name}": value for name, value in SMALL.items()}
    settings |= {"train.batch_size": 256, "train.warmup_steps": 1}
    return make_once(
        tmp_path_factory,
        "export/run",
        lambda out: api.train(planted_data, out, settings=settings),
    )
