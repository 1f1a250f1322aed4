"""Ports for servers that a test may stop and start again on the same port."""

from __future__ import annotations

import random
import socket

__all__ = ["stable_port"]

_FIRST, _LAST = 15_000, 32_000  # below the ports that Linux gives to connections and to port 0


def stable_port() -> int:
    """Return a free port that no other process gets by chance while a test's server is down."""
    choose = random.SystemRandom()  # several test processes must not draw the same numbers
    while True:
        port = choose.randint(_FIRST, _LAST)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
