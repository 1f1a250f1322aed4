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

__all__ = ["require_spark", "spark_session", "write_defaults"]

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
    require_spark(folder)
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master(master).appName("hemix tests")
    own = {name.replace("__", "."): value for name, value in settings.items()}
    for name, value in (_settings(folder) | own).items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    try:
        yield session
    finally:
        session.stop()


def require_spark(folder: Path) -> None:
    """Skip the test loudly without Java or pyspark; executors import this package.

    Args:
        folder: Receives the logs of local clusters, unless this process has a place for them.
    """
    if shutil.which("java") is None:
        pytest.skip(
            "JAVA ABSENT: no Java runtime (Debian: apt-get install openjdk-17-jre-headless)"
        )
    if importlib.util.find_spec("pyspark") is None:
        pytest.skip("PYSPARK ABSENT: pip install 'hemix[spark]'")
    os.environ["PYSPARK_PYTHON"] = sys.executable
    if "SPARK_HOME" not in os.environ:
        os.environ["SPARK_HOME"] = str(_linked_home(folder / "spark"))
    paths = [str(_ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, paths)))


def _linked_home(home: Path) -> Path:
    """A home of Spark with links to pyspark's files: a local cluster writes ``work`` into it."""
    spec = importlib.util.find_spec("pyspark")
    assert spec is not None and spec.origin is not None
    home.mkdir(parents=True)
    for path in Path(spec.origin).parent.iterdir():
        if path.name != "work":
            (home / path.name).symlink_to(path)
    return home


def write_defaults(folder: Path) -> Path:
    """Write spark-defaults.conf for sessions of other processes; return SPARK_CONF_DIR.

    Args:
        folder: As in :func:`spark_session`.
    """
    conf = folder / "conf"
    conf.mkdir()
    lines = [f"{name} {value}\n" for name, value in _settings(folder).items()]
    (conf / "spark-defaults.conf").write_text("".join(lines))
    return conf


def _settings(folder: Path) -> dict[str, str]:
    return {
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
    }
