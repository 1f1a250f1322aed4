"""Runs to serve."""

from __future__ import annotations

from pathlib import Path

import pytest

from hemix import api


@pytest.fixture(scope="session")
def planted_run(planted_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps on the planted logs; read only."""
    settings = {
        "train.batch_size": 512,
        "train.warmup_steps": 1,
        "model.embedding_init_std": 0.5,
    }
    return api.train(
        planted_data, tmp_path_factory.mktemp("planted-run") / "run", settings=settings
    )
