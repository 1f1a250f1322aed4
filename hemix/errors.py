"""The exception tree.

HemixError
├── UsageError        a flag or an argument of a command or function
├── SchemaError       the schema file, or a schema that does not fit what it meets
├── SettingsError     model, training or serving settings
├── DataError         a log, a table, a dataset folder: what is in a file
├── RunError          a run folder or a checkpoint: missing, damaged, of another schema
├── StorageError      the disk: full, read-only, not permitted
├── RequestError      a request to the server: a field of it cannot be used
├── StoreError        the store of live events: not reachable, too slow, damaged
├── ProcessLost       another process of a run over several has ended
├── ServerError       what a server answers its client, or that it does not answer
└── MissingExtra      an optional part that is not installed

Every message is one line for the person who has to mend it: what was expected, what was found, and
where (file, column, row, key). The command line prints it and exits with code 2; a traceback is
always our own defect.
"""

from __future__ import annotations

__all__ = [
    "DataError",
    "HemixError",
    "MissingExtra",
    "ProcessLost",
    "RequestError",
    "RunError",
    "SchemaError",
    "ServerError",
    "SettingsError",
    "StorageError",
    "StoreError",
    "UsageError",
]


class HemixError(Exception):
    """Base of every error that is the input's fault and not ours."""


class UsageError(HemixError):
    """A flag or an argument that cannot be used."""


class SchemaError(HemixError):
    """The schema is wrong, or does not fit the data or the run that it meets."""


class SettingsError(HemixError):
    """A setting that is unknown, of the wrong type or out of range."""


class DataError(HemixError):
    """A log, a table or a dataset folder holds something that cannot be used."""


class RunError(HemixError):
    """A run folder or a checkpoint is missing, incomplete, damaged or of another schema."""


class StorageError(HemixError):
    """The disk is full, read-only or not permitted."""


class RequestError(HemixError):
    """A request to the server that cannot be answered as it is."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        """Where in the request, such as ``items[3].fields.price``"""
        self.problem = problem


class StoreError(HemixError):
    """The store of live events cannot be reached, is too slow, or is damaged."""


class ProcessLost(HemixError):
    """Another process of a run over several has ended or does not answer."""


class ServerError(HemixError):
    """A server refused, or did not answer at all (``status`` None)."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        field: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.field = field
        """Which field of the request was at fault"""
        self.request_id = request_id
        """By which the server's log tells of it"""
        self.retry_after = retry_after
        """Seconds"""


class MissingExtra(HemixError):
    """An optional part is asked for and not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs {package}, which is not installed: pip install 'hemix[{extra}]'"
        )
