"""The exception classes of the package.

HemixError
├── UsageError        wrong flag or argument of a command or function
├── SchemaError       wrong schema file, or a schema that does not fit the data or the run
├── SettingsError     wrong setting of a model, of training or of serving
├── DataError         wrong content of a log, a table or a dataset folder
├── RunError          run folder or checkpoint missing, damaged or of another schema
├── StorageError      disk full, read-only or not permitted
├── RequestError      wrong field of a request to the server
├── StoreError        store of live events not reachable, too slow or damaged
├── ProcessLost       another process of a distributed run has ended
├── ServerError       refusal of a server, or no answer
└── MissingExtra      optional package not installed

Every message is one line: file, row and column or key, what was expected, what was found, and what
to do next. The command line prints it and exits with code 2.
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
    """Base class of errors that the input or the environment causes."""


class UsageError(HemixError):
    """A flag or an argument cannot be used."""


class SchemaError(HemixError):
    """The schema is wrong, or does not fit the data or the run."""


class SettingsError(HemixError):
    """A setting is unknown, of the wrong type or out of range."""


class DataError(HemixError):
    """A log, a table or a dataset folder has content that cannot be used."""


class RunError(HemixError):
    """A run folder or a checkpoint is missing, incomplete, damaged or of another schema."""


class StorageError(HemixError):
    """The disk is full, read-only or not permitted."""


class RequestError(HemixError):
    """A field of a request to the server cannot be used."""

    def __init__(self, field: str, problem: str) -> None:
        """Make the error.

        Args:
            field: Path in the request, such as ``items[3].fields.price``.
            problem: What was expected and what was found.
        """
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class StoreError(HemixError):
    """The store of live events cannot be reached, is too slow, or is damaged."""


class ProcessLost(HemixError):
    """Another process of a distributed run has ended or does not answer."""


class ServerError(HemixError):
    """A server refused a request, or did not answer."""

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
        """Make the error.

        Args:
            message: One line for people.
            status: HTTP status; None without an answer.
            code: The server's code of the error.
            field: The field of the request that cannot be used.
            request_id: Id of the request in the server's log.
            retry_after: Seconds after which the client can try again.
        """
        super().__init__(message)
        self.status = status
        self.code = code
        self.field = field
        self.request_id = request_id
        self.retry_after = retry_after


class MissingExtra(HemixError):
    """An optional package is needed and not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        """Make the error.

        Args:
            package: The missing package.
            extra: The extra of hemix that installs it.
            purpose: What needs it, the subject of the message.
        """
        super().__init__(
            f"{purpose} needs {package}, which is not installed: pip install 'hemix[{extra}]'"
        )
