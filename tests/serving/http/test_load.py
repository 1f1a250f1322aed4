"""More than a server can do, clients that go, and the end: nothing hangs, nothing is mixed up,
nothing in work is lost.
"""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import socket
import threading
import time
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hemix.serving.http.service import BoundedExecutor, ClientGone
from tests.serving.http.process import Server, fake_server


def slow(server: Server, seconds: float, number: int = 0) -> tuple[int, object]:
    answer = server.rank([f"i{number}"], id=f"r{number}", context={"sleep": seconds})
    return answer.status, (
        answer.json.get("id"),
        answer.json["items"][0]["id"],
    ) if answer.status == 200 else answer.headers


def test_a_full_queue_refuses_at_once_and_answers_are_never_mixed_up(tmp_path: Path) -> None:
    with (
        fake_server(tmp_path, limits={"workers": 2, "queue": 2}) as server,
        ThreadPoolExecutor(12) as many,
    ):
        began = time.monotonic()
        responses = list(many.map(lambda n: slow(server, 0.6, n), range(12)))
        assert Counter(status for status, _ in responses) == {200: 4, 503: 8}
        for n, (status, response) in enumerate(responses):
            if status == 200:
                assert response == (f"r{n}", f"i{n}")
            else:
                assert response["retry-after"] == "1"  # type: ignore[index]
        assert time.monotonic() - began < 10
        assert server.ask("GET", "/readyz").status == 200, "probes have a place of their own"
        assert server.metric('hemix_refused_total{code="overloaded"}') == 8
        assert server.rank().status == 200
        assert server.metric('hemix_queue{gate="rank"}') == 0
        answers = list(
            many.map(
                lambda n: slow(server, 0.001 * (n % 3), n) if n % 3 else slow(server, 0, n),
                range(200),
            )
        )
        assert all(
            response == (f"r{n}", f"i{n}")
            for n, (status, response) in enumerate(answers)
            if status == 200
        )
        assert Counter(status for status, _ in answers)[200] > 0


def test_many_large_bodies_do_not_fill_the_memory(tmp_path: Path) -> None:
    with fake_server(tmp_path, limits={"all_bodies_bytes": 300_000, "body_seconds": 5.0}) as server:
        callers = [socket.create_connection(("127.0.0.1", server.port), 10) for _ in range(6)]
        for caller in callers:
            caller.sendall(
                b"POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 200000\r\n\r\n"
                + b" " * 100_000
            )
        refused = [caller for caller in callers[3:] if b"503" in caller.recv(1000)]
        assert len(refused) >= 2, "three fill the budget"
        for caller in callers:
            caller.close()
        server.until(lambda: server.rank(["i1"], id="x" * 200).status == 200)
        server.until(lambda: server.metric('hemix_queue{gate="all"}') == 0)


def test_a_deadline_holds_and_the_worker_comes_back(tmp_path: Path) -> None:
    with fake_server(
        tmp_path, limits={"workers": 1, "queue": 5, "deadline_seconds": 0.5}
    ) as server:
        status, _ = slow(server, 1.5)
        assert status == 504
        server.until(lambda: server.rank().status == 200)
        server.until(lambda: server.metric('hemix_queue{gate="all"}') == 0)


def test_a_disconnected_clients_request_is_not_started(tmp_path: Path) -> None:
    with fake_server(tmp_path, limits={"workers": 1, "queue": 50}) as server:
        body = json.dumps(
            {"user": "u1", "items": [{"id": "i1"}], "context": {"sleep": 1.0}}
        ).encode()
        head = f"POST /v1/rank HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        callers = [socket.create_connection(("127.0.0.1", server.port), 10) for _ in range(20)]
        for caller in callers:
            caller.sendall(head + body)
        server.until(lambda: server.metric('hemix_queue{gate="rank"}') == 20)
        for caller in callers:
            caller.close()
        began = time.monotonic()
        assert server.rank().status == 200
        assert time.monotonic() - began < 6, "one was running; the other nineteen were dropped"
        assert server.metric('hemix_rankings_total{model="fake",version="1"}') <= 2
        server.until(lambda: server.metric('hemix_queue{gate="all"}') == 0)


@pytest.mark.slow
def test_a_client_that_never_sends_a_whole_head(server: Server) -> None:
    caller = socket.create_connection(("127.0.0.1", server.port), 30)
    caller.sendall(b"POST /v1/ra")
    assert server.rank().status == 200
    assert caller.recv(100) == b"", "hung up on"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_end_finishes_what_is_in_work(tmp_path: Path, number: signal.Signals) -> None:
    with fake_server(tmp_path) as server:
        responses: list[object] = []
        asking = threading.Thread(target=lambda: responses.append(slow(server, 1.0, 5)))
        asking.start()
        server.until(lambda: server.metric('hemix_queue{gate="rank"}') == 1)
        server.process.send_signal(number)
        assert server.process.wait(30) == 0
        asking.join()
        assert responses == [(200, ("r5", "i5"))]


def test_a_store_that_fails_degrades_and_says_so(tmp_path: Path) -> None:
    with fake_server(tmp_path, store="redis://127.0.0.1:1/0") as server:
        assert server.rank().json["degraded"] == ["history", "features"]
        ready = server.ask("GET", "/readyz")
        assert (ready.status, ready.json["ready"], ready.json["checks"]["store"]) == (
            503,
            False,
            False,
        )
        assert server.ask("GET", "/healthz").status == 200
        answer = server.ask(
            "POST", "/v1/events", [{"event": "user", "id": "e", "user": "u", "fields": {}}]
        )
        assert (answer.status, answer.error["code"], answer.headers["retry-after"]) == (
            503,
            "store_unavailable",
            "1",
        )
        assert server.metric('hemix_store_errors_total{during="events"}') == 1
        assert server.metric('hemix_store_errors_total{during="rank"}') == 1, (
            "one failure, two things missing"
        )


def head(path: str, length: int) -> bytes:
    return f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n".encode()


def files(server: Server) -> int:
    return sum(1 for _ in Path(f"/proc/{server.process.pid}/fd").iterdir())


def test_a_client_that_does_not_read_its_answers_is_hung_up_on(tmp_path: Path) -> None:
    with fake_server(tmp_path, server={"client_seconds": 1.0}) as server:
        item = "x" * 250
        events = [
            {
                "event": "interaction",
                "id": f"e{n}",
                "user": "u1",
                "item": item,
                "timestamp": 1_770_000_000_000,
            }
            for n in range(5)
        ]
        assert server.ask("POST", "/v1/events", events).json["accepted"] == 5
        body = json.dumps({"user": "u1", "items": [{"id": "i1"}] * 2000, "explain": True}).encode()
        before = files(server)
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.settimeout(10)
        with deaf:
            deaf.connect(("127.0.0.1", server.port))
            for _ in range(4):  # three MiB each, more than the kernel takes
                deaf.sendall(head("/v1/rank", len(body)) + body)
            server.until(
                lambda: (
                    {"connection closed": "answer"}
                    in [{line["message"]: line.get("why")} for line in server.logs()]
                )
            )
            server.until(lambda: files(server) <= before)
        assert server.rank().status == 200


def test_a_client_that_goes_on_with_a_body_that_nobody_reads_is_hung_up_on(tmp_path: Path) -> None:
    with fake_server(
        tmp_path, server={"client_seconds": 1.0}, token="a-token-of-the-tests"
    ) as server:
        for path, status in (("/v1/rank", b"401"), ("/v1/nothing", b"404")):
            with socket.create_connection(("127.0.0.1", server.port), 10) as caller:
                caller.sendall(head(path, 1_000_000))
                assert status in caller.recv(4096).split(b"\r\n")[0]
                end = time.monotonic() + 20
                with pytest.raises(OSError):
                    while time.monotonic() < end:
                        caller.sendall(b" ")
                        time.sleep(0.05)


def test_past_the_request_limit_probes_answer_and_others_get_retry_after(
    tmp_path: Path,
) -> None:
    with fake_server(tmp_path, limits={"requests": 3}) as server:
        callers = [socket.create_connection(("127.0.0.1", server.port), 10) for _ in range(3)]
        for caller in callers:
            caller.sendall(head("/v1/rank", 100) + b"{")
        server.until(lambda: server.ask("GET", "/v1/models").status == 503)
        answer = server.rank()
        assert (answer.status, answer.error["code"], answer.headers["retry-after"]) == (
            503,
            "overloaded",
            "1",
        )
        assert answer.error["request_id"] == answer.headers["x-request-id"]
        for path in ("/healthz", "/readyz", "/metrics"):
            assert server.ask("GET", path).status == 200
        for caller in callers:
            caller.close()
        server.until(lambda: server.rank().status == 200)


def alive(caller: socket.socket) -> None:
    caller.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
    answer = b""
    while not answer.endswith(b"}"):
        chunk = caller.recv(4096)
        assert chunk, "hung up on"
        answer += chunk
    assert answer.startswith(b"HTTP/1.1 200")


def test_idle_connections_make_room_for_new_ones(tmp_path: Path) -> None:
    with fake_server(tmp_path, server={"max_connections": 8}) as server:
        callers = [socket.create_connection(("127.0.0.1", server.port), 10) for _ in range(8)]
        alive(callers[0])  # so the second is idle for longer
        assert server.ask("GET", "/healthz").status == 200
        assert callers[1].recv(1) == b"", "hung up on"
        alive(callers[0])
        for caller in callers:
            caller.close()


def test_work_that_is_never_begun_is_let_go_of() -> None:
    class Body:
        def work(self) -> None:
            pass

    async def scene() -> None:
        gate = BoundedExecutor("rank", workers=1, queue=5, deadline_seconds=30)
        stop = threading.Event()
        running = asyncio.ensure_future(gate.run(stop.wait))
        await asyncio.sleep(0)

        async def gone() -> None:
            return

        body = Body()
        held = weakref.ref(body)
        with pytest.raises(ClientGone):
            await gate.run(body.work, gone)
        del body
        while gate.in_use > 1:
            await asyncio.sleep(0.01)
        gc.collect()
        assert held() is None, "the thread is busy, and the queue holds no body"
        stop.set()
        await running
        gate.close()

    asyncio.run(scene())
