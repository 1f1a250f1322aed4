"""One writer a run folder: a lock that the kernel gives back when its process ends, however that
ended.
"""

from __future__ import annotations

import fcntl
from pathlib import Path
from types import TracebackType
from typing import IO

from hemix.errors import UsageError

__all__ = ["Writer"]


class Writer:
    """The right to write into a run folder: an flock on its log.jsonl, kept until the ``with``
    block ends.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._file: IO[str] | None = None

    def take(self) -> None:
        """Take the right, where this one has not got it yet.

        Raises UsageError while another process has it.

        The folder must exist. A file system that has no locks lets everybody write.
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
                "end it"
            ) from error
        except OSError:
            pass
        self._file = file

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
