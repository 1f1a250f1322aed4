"""Logs of the server: one JSON object a line, on stderr.

They never contain a token, a body or a header. A formatter of twenty lines is no reason for a
package.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

__all__ = ["configure_logging", "log_record"]

_logger = logging.getLogger("hemix.serving")


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        content: dict[str, Any] = {
            "time": moment,
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        content |= getattr(record, "facts", {})
        if record.exc_info:
            content["traceback"] = self.formatException(record.exc_info)
        return json.dumps(content, ensure_ascii=False, default=str)


def configure_logging(level: str = "info") -> None:
    """Write the records of the server and of uvicorn to stderr as JSON lines.

    Args:
        level: Lowest level of the server's records; uvicorn's begin at warning.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter())
    for name in ("hemix.serving", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level.upper() if name == "hemix.serving" else "WARNING")
        logger.propagate = False


def log_record(
    message: str, *, level: int = logging.INFO, error: BaseException | None = None, **facts: Any
) -> None:
    """Log a record.

    Args:
        message: The record's message.
        level: The record's level.
        error: A defect of the server, whose traceback is logged.
        facts: Further keys of the JSON object.
    """
    _logger.log(level, message, extra={"facts": facts}, exc_info=error)
