"""Spark sessions for tests: a real Spark with little memory, skipped loudly without Java."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

__all__ = ["spark_session"]

_ROOT = Path(__file__).parents[3]
_FAST_START = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""Tests end before an optimising compiler has paid for itself"""


@contextmanager
def spark_session(master: str, folder: Path, **settings: str) -> Iterator[Any]:
    """Start a session and stop it at the end; one at a time.

    Args:
        master: A master URL.
        folder: Receives Spark's temporary files and tables.
        settings: Further settings, with ``__`` for dots.
    """
    if shutil.which("java") is None:
        pytest.skip(
            "JAVA ABSENT: no Java runtime (Debian: apt-get install openjdk-17-jre-headless)"
        )
    if importlib.util.find_spec("pyspark") is None:
        pytest.skip("PYSPARK ABSENT: pip install 'hemix[spark]'")
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    paths = [str(_ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, paths)))
    builder = SparkSession.builder.master(master).appName("hemix tests")
    for name, value in {
        "spark.driver.memory": "1g",
        "spark.driver.extraJavaOptions": f"{_FAST_START} -Dderby.system.home={folder}/derby",
        "spark.executor.extraJavaOptions": _FAST_START,
        "spark.executorEnv.PYTHONPATH": os.environ["PYTHONPATH"],
        "spark.local.dir": str(folder / "local"),
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.sql.shuffle.partitions": "2",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
        **{name.replace("__", "."): value for name, value in settings.items()},
    }.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    try:
        yield session
    finally:
        session.stop()
