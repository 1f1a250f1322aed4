"""Progress of a command: live bars on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from hemix.display.studies import StudyDisplay
from hemix.display.training import TrainingDisplay

__all__ = ["Display"]

_SECONDS_BETWEEN_LINES = 10.0


class Display:
    """Live progress bars on a terminal, a line every 10 seconds elsewhere.

    Give it a console on stderr, so that stdout stays for results.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = console.is_terminal
        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
        )
        self._last_line = time.monotonic()

    def __enter__(self) -> Display:
        if self._live:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._progress.stop()

    def progress(self, activity: str, fraction: float, note: str = "") -> None:
        """Show how far an activity is.

        Args:
            activity: Name of the activity, such as ``train``.
            fraction: How much of it is done, from 0 to 1.
            note: Text after the bar.
        """
        if self._live:
            if activity not in self._bars:
                for bar in self._bars.values():
                    self._progress.remove_task(bar)
                self._bars = {activity: self._progress.add_task(activity, total=1.0, note=note)}
            self._progress.update(self._bars[activity], completed=fraction, note=note)
        elif time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self._console.print(f"{activity}: {fraction:.0%} {note}".rstrip())

    def print(self, text: str) -> None:
        """Print a line above the progress bars."""
        self._console.print(text)

    def training(self) -> TrainingDisplay:
        """The :class:`~hemix.training.callbacks.Callback` that shows a run while it trains."""
        return TrainingDisplay(self)

    def study(self) -> StudyDisplay:
        """The :class:`~hemix.lab.studies.options.StudyCallback` that shows a study."""
        return StudyDisplay(self)
