"""The server's socket."""

from __future__ import annotations

import asyncio
import socket

import pytest

from hemix.serving.http.uvicorn_server import bind


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_short_answers_are_sent_at_once(host: str) -> None:
    """Accepted connections have TCP_NODELAY: a head and a short body go out without a wait."""
    if ":" in host and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    bound = bind(host, 0)

    async def accepted_option() -> int:
        accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def on_connect(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = writer.get_extra_info("socket")
            accepted.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        async with await asyncio.start_server(on_connect, sock=bound):
            _, writer = await asyncio.open_connection(*bound.getsockname()[:2])
            result = await asyncio.wait_for(accepted, 10)
            writer.close()
        return result

    assert asyncio.run(accepted_option()) == 1
