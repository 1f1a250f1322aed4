"""Start a Spark session, or check one; say in one line what is missing."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from hemix.errors import MissingExtra, SparkError, UsageError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["check_session", "start_session"]

_LEAST_JAVA = 17


def start_session(master: str | None) -> SparkSession:
    """Start a session for a preparation.

    Memory, executors and packages come from spark-submit or spark-defaults.conf.

    Args:
        master: A master URL; None: that of spark-submit or spark-defaults.conf, else ``local[*]``.

    Raises:
        MissingExtra: pyspark is not installed.
        UsageError: This process has a session.
        SparkError: There is no Java, an old one, or the master cannot be reached.
    """
    if importlib.util.find_spec("pyspark") is None:
        raise MissingExtra("pyspark", "spark", "--engine spark")
    if "PYSPARK_GATEWAY_PORT" not in os.environ:  # else spark-submit runs Java already
        _check_java()
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    if SparkSession.getActiveSession() is not None:
        raise UsageError(
            "engine='spark': starts a session, but this process has one",
            field="engine",
            hint="hand it over: hemix.prepare(..., engine=session)",
        )
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName("hemix prepare")
    builder = builder.config("spark.ui.showConsoleProgress", "false")
    if master is not None:
        builder = builder.master(master)
    try:
        return builder.getOrCreate()
    except (Py4JError, PySparkException) as error:
        reason = str(error).strip().replace("\n", " ")[:300]
        raise SparkError(
            f"--spark-master {master or 'by default'}: Spark did not start: {reason}",
            field="--spark-master",
        ) from error


def check_session(session: Any) -> SparkSession:
    """Return the session if it can prepare.

    Args:
        session: What a caller gave as the engine.

    Raises:
        UsageError: It is no session, or one of Spark Connect.
    """
    if importlib.util.find_spec("pyspark") is not None:
        from pyspark.sql import SparkSession

        if isinstance(session, SparkSession) and "connect" not in type(session).__module__:
            return session
    raise UsageError(
        f"engine: expected 'local', 'spark' or a SparkSession, got {type(session).__module__}."
        f"{type(session).__qualname__}",
        field="engine",
        hint="a session of Spark Connect cannot run the tasks: use one of the cluster itself",
    )


def _check_java() -> None:
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    advice = (
        f"install a Java runtime of version {_LEAST_JAVA} or later (Debian: apt-get install "
        "openjdk-17-jre-headless) and set JAVA_HOME if it is not on the PATH"
    )
    if java is None:
        where = f"JAVA_HOME={home} has no bin/java" if home else "found no java on the PATH"
        raise SparkError(f"--engine spark: {where}", code="missing_java", hint=advice)
    version = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    match = re.search(r'version "(\d+)', version.stderr)
    if match is not None and int(match[1]) < _LEAST_JAVA:
        raise SparkError(
            f"--engine spark: {java} is version {match[1]}", code="missing_java", hint=advice
        )
