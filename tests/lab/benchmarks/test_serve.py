"""The load tool: a server and a driver, for a moment."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from hemix.errors import UsageError
from hemix.lab.benchmarks import run_benchmark
from hemix.lab.benchmarks.drive import Plan, Stream, drive


@pytest.mark.slow
def test_every_load_is_answered_and_counted(rich_run: Path) -> None:
    figures = run_benchmark("serve", scale=0.03, run=rich_run)
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
def test_seconds_drive_the_mix_alone(rich_run: Path) -> None:
    figures = run_benchmark("serve", scale=0.03, run=rich_run, seconds=2)
    assert {case["name"] for case in figures["cases"]} == {"serve mix"}
    assert {case["stream"] for case in figures["cases"]} == {"rank 500", "rank 50", "events 10"}


def test_other_benchmarks_take_no_run(rich_run: Path) -> None:
    with pytest.raises(UsageError, match="--run: hemix bench mfu has no such option"):
        run_benchmark("mfu", run=rich_run)


@pytest.mark.parametrize("answers", [200, 503])
def test_a_ranking_counts_from_when_it_was_due_however_long_its_event_takes(answers: int) -> None:
    class StandsStill(BaseHTTPRequestHandler):
        """One at a time: whoever comes while an event is taken waits."""

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            events = self.path == "/v1/events"
            time.sleep(0.6 if events else 0)
            self.send_response(answers if events else 200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), StandsStill)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stream = Stream(kind="rank", per_second=1, size=3, users=("u1",), fresh=True)
    plan = Plan(
        port=server.server_port,
        seconds=2,
        warm_up_seconds=0,
        streams=(stream,),
        items=("i1",),
        actions=("click",),
        context={},
    )
    [seen] = drive(plan)
    server.shutdown()
    server.server_close()
    assert (seen["requests"], seen["errors"]) == (2, {} if answers == 200 else {"event 503": 2})
    assert seen["latency_ms"][0] > 300, "it stood in line behind its event"
