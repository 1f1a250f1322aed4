"""The exception classes of the package.

HemixError
├── UsageError          wrong flag or argument of a command or function
├── SchemaError         wrong schema file, or a schema that does not fit the data or the run
├── SettingsError       wrong setting of a model, of training or of serving
├── DataError           wrong content of a log, a table or a dataset folder
├── RunError            run folder or checkpoint missing, damaged or of another schema
│   └── UnknownVersion  no such version of a model in a server's registry
├── StorageError        disk full, read-only or not permitted
├── RequestError        wrong field of a request to the server
├── StoreError          store of live events not reachable, too slow or damaged
├── ProcessLost         another process of a distributed run has ended
├── SparkError          Spark cannot start, or has failed
├── ServerError         refusal of a server, or no answer
├── MissingExtra        optional package not installed
└── Interrupted         a signal stopped the command

A message is one line: file, row and column or key, what was expected, what was found, and what to
do next. Programs decide by ``code``, ``field`` and the class attributes, never by the message;
docs/reference/errors.md lists the codes.
"""

from __future__ import annotations

__all__ = [
    "DataError",
    "HemixError",
    "Interrupted",
    "MissingExtra",
    "ProcessLost",
    "RequestError",
    "RunError",
    "SchemaError",
    "ServerError",
    "SettingsError",
    "SparkError",
    "StorageError",
    "StoreError",
    "UnknownVersion",
    "UsageError",
]

_TOO_MANY_REQUESTS = 429


class HemixError(Exception):
    """Base class of errors that the input or the environment causes."""

    code: str = "failed"
    """Stable name of the problem; a class has a default, and some errors a finer one"""
    field: str | None = None
    """The setting, schema key, column, file or flag that is wrong"""
    hint: str | None = None
    """What to do; the end of the message"""
    exit_code: int = 2
    """Exit code of a command that ends with this error"""
    http_status: int = 500
    """Status of a server's response to a request that ends with this error"""
    is_retryable: bool = False
    """Whether the same call may succeed later"""

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        field: str | None = None,
        hint: str | None = None,
    ) -> None:
        """Make the error.

        Args:
            message: What people read: where, what was expected, and what was found. White space
                and line breaks, as messages of libraries have them, become single spaces.
            code: A finer code than that of the class.
            field: The setting, schema key, column, file or flag that is wrong.
            hint: What to do; appended to the message.
        """
        super().__init__(" ".join((f"{message}; {hint}" if hint else message).split()))
        if code is not None:
            self.code = code
        self.field = field
        self.hint = hint


class UsageError(HemixError):
    """A flag or an argument cannot be used."""

    code = "invalid_argument"
    http_status = 422


class SchemaError(HemixError):
    """The schema is wrong, or does not fit the data or the run."""

    code = "invalid_schema"


class SettingsError(HemixError):
    """A setting is unknown, of the wrong type or out of range."""

    code = "invalid_setting"


class DataError(HemixError):
    """A log, a table or a dataset folder has content that cannot be used."""

    code = "invalid_data"
    http_status = 422


class RunError(HemixError):
    """A run folder or a checkpoint is missing, incomplete, damaged or of another schema."""

    code = "unusable_run"
    http_status = 422


class UnknownVersion(RunError):
    """A server's registry has no such version of a model."""

    code = "unknown_version"
    http_status = 404


class StorageError(HemixError):
    """The disk is full, read-only or not permitted."""

    code = "not_writable"


class RequestError(HemixError):
    """A field of a request to the server cannot be used."""

    code = "invalid"
    http_status = 422

    def __init__(self, field: str, problem: str) -> None:
        """Make the error.

        Args:
            field: Path in the request, such as ``items[3].fields.price``.
            problem: What was expected and what was found.
        """
        super().__init__(f"{field}: {problem}", field=field)
        self.problem = problem


class StoreError(HemixError):
    """The store of live events cannot be reached, is too slow, or is damaged."""

    code = "store_unavailable"
    http_status = 503
    is_retryable = True


class ProcessLost(HemixError):
    """Another process of a distributed run has ended or does not answer."""

    code = "process_lost"
    exit_code = 75  # EX_TEMPFAIL of sysexits.h: run it again


class SparkError(HemixError):
    """Spark cannot start, or has failed for another reason than a lost executor."""

    code = "spark_failed"


class ServerError(HemixError):
    """A server refused a request, or did not answer."""

    code = "server_error"

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
        super().__init__(message, code=code, field=field)
        self.status = status
        self.request_id = request_id
        self.retry_after = retry_after
        self.is_retryable = (
            status is None or not 400 <= status < 500 or status == _TOO_MANY_REQUESTS
        )


class MissingExtra(HemixError):
    """An optional package is needed and not installed."""

    code = "missing_extra"

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        """Make the error.

        Args:
            package: The missing package.
            extra: The extra of hemix that installs it.
            purpose: What needs it, the subject of the message.
        """
        hint = f"pip install 'hemix[{extra}]'"
        super().__init__(
            f"{purpose} needs {package}, which is not installed: {hint}", field=package
        )
        self.hint = hint


class Interrupted(HemixError):
    """Ctrl-C or SIGTERM stopped the command."""

    code = "interrupted"
    exit_code = 130
