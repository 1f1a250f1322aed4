"""An answer other than 200: its status, its code for a program, its sentence for a person, and the
field that is at fault.

Knows nothing of what was asked.
"""

from __future__ import annotations

from typing import Any

import msgspec

from hemix.errors import HemixError

__all__ = ["Refusal", "error_body"]


class Refusal(HemixError):
    """Ends a request with this status; ``retry_after`` in seconds, ``close`` hangs up because the
    rest of the body is not read.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        field: str | None = None,
        retry_after: int | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.field = field
        self.retry_after = retry_after
        self.close = close

    def headers(self) -> dict[str, str]:
        """The headers that belong to it."""
        found = {}
        if self.retry_after is not None:
            found["Retry-After"] = str(self.retry_after)
        if self.status == 401:
            found["WWW-Authenticate"] = "Bearer"
        if self.close:
            found["Connection"] = "close"
        return found


def error_body(code: str, message: str, field: str | None, request_id: str) -> bytes:
    """JSON of an error."""
    content: dict[str, Any] = {
        "code": code,
        "message": message,
        "field": field,
        "request_id": request_id,
    }
    return msgspec.json.encode({"error": content})
