"""Logs of the server: one JSON object a line, on stderr.

Never a token, never a body, never a header.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

__all__ = ["configure", "say"]

_logger = logging.getLogger("hemix.serving")


class _Lines(logging.Formatter):
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


def configure(level: str = "info") -> None:
    """Send the server's and uvicorn's records to stderr as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    for name in ("hemix.serving", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level.upper() if name == "hemix.serving" else "WARNING")
        logger.propagate = False


def say(
    message: str, *, level: int = logging.INFO, error: BaseException | None = None, **facts: Any
) -> None:
    """One record with facts beside its message; with the traceback of ``error``, which is our own
    defect.
    """
    _logger.log(level, message, extra={"facts": facts}, exc_info=error)
