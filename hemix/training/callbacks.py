"""What training reports while it runs, and the protocol of who receives it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

__all__ = ["SILENT", "Callback", "Record", "function_callback"]

Record: TypeAlias = dict[str, Any]
"""A line of log.jsonl, the header of a run, or the ``notes`` that metrics.json keeps."""


class Callback(Protocol):
    """Receive what a run reports. Only the process of rank 0 calls these methods."""

    def on_start(self, header: Record, /) -> None:
        """Receive the header before the first step.

        Args:
            header: The model, its size, the steps and the device.
        """

    def on_record(self, record: Record, /) -> None:
        """Receive a line of log.jsonl.

        Args:
            record: The line; the last one holds the ``notes``, if there are any.
        """

    def on_step(self, step: int, total_steps: int, /) -> None:
        """Receive the progress after a step.

        Args:
            step: The number of steps done, from 1.
            total_steps: How many steps the run has.
        """


def _ignore_record(_record: Record) -> None:
    """Do nothing."""


def _ignore_step(_step: int, _total_steps: int) -> None:
    """Do nothing."""


@dataclass(frozen=True, kw_only=True)
class _FunctionCallback:
    on_start: Callable[[Record], None]
    on_record: Callable[[Record], None]
    on_step: Callable[[int, int], None]


def function_callback(
    on_start: Callable[[Record], None] | None = None,
    on_record: Callable[[Record], None] | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Callback:
    """Make a callback of functions.

    Args:
        on_start: As the method of :class:`Callback`; None: do nothing.
        on_record: The same.
        on_step: The same.
    """
    return _FunctionCallback(
        on_start=on_start or _ignore_record,
        on_record=on_record or _ignore_record,
        on_step=on_step or _ignore_step,
    )


SILENT = function_callback()
"""Reports nothing."""
