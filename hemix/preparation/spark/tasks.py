"""What executors run: a stage's function in a folder of the attempt, and its answer or error.

Spark runs a task again where an executor is lost, and may run two attempts at once. Each attempt
has a folder of its own, so the driver alone decides which files count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from hemix.errors import HemixError
from hemix.files import storage_errors
from hemix.preparation.allocation import arrow_on_malloc

__all__ = ["Attempt", "Task"]

Argument = TypeVar("Argument")
Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class Attempt(Generic[Answer]):
    """The result of one attempt of a task."""

    number: int
    """Position of the task's argument"""
    folder: Path
    """The files of the attempt"""
    answer: Answer | None = None
    error: HemixError | None = None
    """Error of the input or of the disk: another attempt would fail as well"""


@dataclass(frozen=True, kw_only=True)
class Task(Generic[Argument, Answer]):
    """A stage's function, for the arguments of a Spark partition."""

    function: Callable[[Argument, Path], Answer]
    attempts: Path
    """Receives the folders of all attempts"""

    def __call__(self, arguments: Iterable[tuple[int, Argument]]) -> Iterator[Attempt[Answer]]:
        """Run the function for every argument with its number."""
        from pyspark import TaskContext

        context = TaskContext.get()
        assert context is not None
        for number, argument in arguments:
            folder = self.attempts / f"{number:05d}.attempt-{context.taskAttemptId()}"
            if self._earlier_failed(number):
                yield Attempt(number=number, folder=folder)
                continue
            try:
                with storage_errors(folder), arrow_on_malloc():
                    folder.mkdir(parents=True)
                    answer = self.function(argument, folder)
            except HemixError as error:
                self._mark_failed(number)
                yield Attempt(number=number, folder=folder, error=error)
            else:
                yield Attempt(number=number, folder=folder, answer=answer)

    def _earlier_failed(self, number: int) -> bool:
        """Whether the task of an earlier argument failed, so that the stage ends with its error."""
        failed = self.attempts.glob("*.failed")
        return any(int(path.stem) < number for path in failed)

    def _mark_failed(self, number: int) -> None:
        try:
            (self.attempts / f"{number:05d}.failed").touch()
        except OSError:
            return  # later tasks run in vain
