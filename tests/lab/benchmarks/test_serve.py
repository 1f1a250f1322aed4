"""``hemix bench serve``: short loads on a server, and the load generator."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from hemix.lab.benchmarks import BenchOptions, run_benchmark
from hemix.lab.benchmarks.load_generator import LoadPlan, RequestStream, generate_load


@pytest.mark.slow
def test_every_load_gets_responses(rich_run: Path) -> None:
    figures = run_benchmark("serve", scale=0.03, options=BenchOptions(run=rich_run))
    cases = {(case["name"], case["stream"]): case for case in figures["cases"]}
    assert len(cases) == 7
    for case in cases.values():
        assert case["errors"] == {} and case["degraded"] == 0, case
        assert 0 < case["latency_ms"][0] <= case["latency_ms"][1] <= case["latency_ms"][2]
        assert case["server_peak_bytes"] > 2**20
        assert 0 <= case["stolen_share"] < 1
    assert cases["serve mix", "rank 50"]["score_ms"][0] > 0
    body = cases["serve events 50", "events 50"]
    assert body["accepted_events"] == 50 * body["requests"] > 0
    assert figures["ready_seconds"]["rest"] > 0


@pytest.mark.slow
def test_seconds_run_only_the_mix(rich_run: Path) -> None:
    figures = run_benchmark("serve", scale=0.03, options=BenchOptions(run=rich_run, seconds=2))
    assert {case["name"] for case in figures["cases"]} == {"serve mix"}
    assert {case["stream"] for case in figures["cases"]} == {"rank 500", "rank 50", "events 10"}


@pytest.mark.parametrize("event_status", [200, 503])
def test_latency_counts_from_the_due_time_of_a_ranking(event_status: int) -> None:
    class SequentialHandler(BaseHTTPRequestHandler):
        """Handles one request at a time, so a ranking waits for the event before it."""

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            is_event = self.path == "/v1/events"
            time.sleep(0.6 if is_event else 0)
            self.send_response(event_status if is_event else 200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), SequentialHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stream = RequestStream(kind="rank", per_second=1, size=3, users=("u1",), fresh=True)
    plan = LoadPlan(
        port=server.server_port,
        seconds=2,
        warm_up_seconds=0,
        streams=(stream,),
        items=("i1",),
        actions=("click",),
        context={},
    )
    (results,) = generate_load(plan)
    server.shutdown()
    server.server_close()
    errors = {} if event_status == 200 else {"event 503": 2}
    assert (results["requests"], results["errors"]) == (2, errors)
    assert results["latency_ms"][0] > 300, "the latency includes the wait behind the event"
