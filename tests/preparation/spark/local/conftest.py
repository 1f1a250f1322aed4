"""One Spark session for all tests of this folder: its start takes longer than most of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.preparation.spark.sessions import spark_session


@pytest.fixture(scope="package")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two threads; a task has three attempts."""
    with spark_session("local[2,3]", tmp_path_factory.mktemp("spark")) as session:
        yield session
