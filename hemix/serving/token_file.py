"""Files that hold a token, for servers and for clients."""

from __future__ import annotations

from pathlib import Path

from hemix.errors import UsageError

__all__ = ["read_token"]

_MIN_LENGTH = 16


def read_token(path: Path | None, flag: str) -> str | None:
    """Read the token in a file.

    Args:
        path: The file; None: there is no token.
        flag: The flag that names the file, for messages.

    Returns:
        The token; None without a file.

    Raises:
        UsageError: The file has no token of at least 16 characters in one line.
    """
    if path is None:
        return None
    try:
        # some editors write a byte order mark
        token = path.read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise UsageError(
            f"{flag} {path}: cannot be read: {reason}", code="unreadable_file", field=flag
        ) from error
    if len(token) < _MIN_LENGTH or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(
            f"{flag} {path}: expected one line of at least {_MIN_LENGTH} ASCII characters "
            "without spaces",
            field=flag,
        )
    return token
