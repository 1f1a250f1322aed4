"""The lock of a run folder: one process trains into it at a time."""

from __future__ import annotations

import fcntl
from pathlib import Path
from types import TracebackType
from typing import IO

from hemix.errors import UsageError

__all__ = ["RunLock"]


class RunLock:
    """An flock on log.jsonl, which the kernel releases when the process ends, however it ends."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Lock the folder, which must exist. A second call does nothing.

        A file system without locks lets every process write.

        Raises:
            UsageError: If another process holds the lock.
        """
        if self._file is not None:
            return
        file = (self._run / "log.jsonl").open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise UsageError(
                f"--out {self._run}: another process is training into it: wait for its end, or "
                "end it",
                field="--out",
            ) from error
        except OSError:
            pass
        self._file = file

    def __enter__(self) -> RunLock:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
