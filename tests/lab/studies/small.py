"""Studies of seconds: planted logs, settings that train in a blink, and cells that run in this
process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hemix.lab.studies import cell as cell_process
from hemix.lab.studies import cost, runner
from hemix.lab.studies.cells import Cell

FAST = {
    "train.batch_size": 512,
    "train.warmup_steps": 1,
    "model.layers": 1,
    "model.token_width": 8,
    "model.tokenizer_hidden": 16,
}
HEMIX = {"model.name": "hemix", **FAST}
TWO = {"one": HEMIX, "two": {**HEMIX, "model.token_width": 16}}


class Here:
    """Stands for a cell's process, and does its work at once."""

    began: list[str]

    def __init__(self, cell: Cell, split: str, _threads: int) -> None:
        cell.begin()
        type(self).began.append(cell.folder.name)
        with (cell.folder / "log.txt").open("a") as log, contextlib.redirect_stderr(log):
            arguments = [str(cell.folder), *(["--open-test"] if split == "test" else [])]
            self.returncode = cell_process.main(arguments)

    def poll(self) -> int:
        return self.returncode

    def send_signal(self, _number: int) -> None: ...

    def wait(self, _seconds: float | None = None) -> int:
        return self.returncode


@contextmanager
def cells_here() -> Iterator[list[str]]:
    """Cells run in this process, and nothing is timed; yields the names of those that began."""
    Here.began = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "_start", Here)
        patch.setattr(runner, "_PATIENCE_SECONDS", 0.0)
        patch.setattr(cost, "_timed", lambda *_: 0.001)
        yield Here.began


def stamps(folder: Path) -> dict[str, Any]:
    """When every file of a folder was written, and how large it is."""
    return {
        str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.stat().st_size)
        for p in folder.rglob("*")
        if p.is_file()
    }
