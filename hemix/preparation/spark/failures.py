"""Failures of Spark as errors of this package: one line with what went wrong and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from hemix.errors import HemixError, ProcessLost, SparkError, StorageError

__all__ = ["spark_errors"]

_FULL_DISK = ("No space left on device", "Disk quota exceeded")
_LOST_EXECUTOR = re.compile(r"ExecutorLostFailure|Master removed our application|SparkContext was")
_PYTHON_ERROR = re.compile(r"^(?:[\w.]+\.)?(\w*(?:Error|Exception|Exit)\w*): (.*)$", re.MULTILINE)
_HINTS = {
    "No module named 'hemix'": "install hemix in the Python of the executors (PYSPARK_PYTHON)",
    "No module named": "install it in the Python of the executors (PYSPARK_PYTHON)",
    "PYTHON_VERSION_MISMATCH": "set PYSPARK_PYTHON to the driver's version of Python",
    "MemoryError": "raise spark.executor.memoryOverhead, which Python's memory is part of",
}


@contextmanager
def spark_errors(stage: str) -> Iterator[None]:
    """Turn a failure of Spark into an error of this package.

    Args:
        stage: Name of the stage, for the message.
    """
    from py4j.protocol import Py4JError, Py4JNetworkError
    from pyspark.errors import PySparkException

    try:
        yield
    except (ConnectionError, Py4JNetworkError) as error:
        raise _driver_lost(stage) from error
    except (Py4JError, PySparkException) as error:
        if type(error) is Py4JError and "Trace:" not in str(error):  # a call without an answer
            raise _driver_lost(stage) from error
        raise _explain(stage, str(error)) from error


def _driver_lost(stage: str) -> ProcessLost:
    return ProcessLost(
        f"{stage}: Spark's driver process has ended",
        hint="it was killed, perhaps for memory: raise spark.driver.memory",
    )


def _explain(stage: str, text: str) -> HemixError:
    reason = next((reason for reason in _FULL_DISK if reason in text), None)
    if reason is not None:
        return StorageError(
            f"{stage}: a disk of Spark is full ({reason})",
            code="disk_full",
            field="spark.local.dir",
            hint="make room in --out's file system and in the folders of spark.local.dir",
        )
    python = _PYTHON_ERROR.findall(text.partition("Traceback (most recent call last)")[2])
    if python:
        kind, problem = python[-1]
        message = f"{kind}: {problem}"
    else:
        message = text.strip().partition("\n")[0]
    if _LOST_EXECUTOR.search(text):
        return ProcessLost(
            f"{stage}: Spark gave up a task whose executors were lost: {message}",
            hint="executors may need more memory (spark.executor.memory, "
            "spark.executor.memoryOverhead) or more attempts (spark.task.maxFailures)",
        )
    hint = next((hint for sign, hint in _HINTS.items() if sign in message), None)
    return SparkError(f"{stage}: Spark failed: {message}", hint=hint)
