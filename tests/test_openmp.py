"""How idle OpenMP threads wait: asked of the processors, unless the user has said it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from hemix import openmp
from hemix.openmp import busy_processors, choose_wait_policy, idle_ticks

STAT = """\
cpu  30 0 30 900 60 0 0 0 0 0
cpu0 10 0 10 300 20 0 0 0 0 0
cpu1 10 0 10 200 10 0 0 0 0 0
cpu10 10 0 10 400 30 0 0 0 0 0
intr 1 2 3
"""


def test_idle_time_is_that_of_the_named_processors() -> None:
    assert idle_ticks(STAT, {0, 10}) == 300 + 20 + 400 + 30
    assert idle_ticks(STAT, {1}) == 210


def test_busy_loops_of_others_are_seen() -> None:
    loop_forever = [sys.executable, "-c", "while True: pass"]
    loops = [subprocess.Popen(loop_forever) for _ in os.sched_getaffinity(0)]
    try:
        assert busy_processors(0.5) > 0.4
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


@pytest.mark.parametrize(("busy", "policy"), [(0.0, None), (0.3, None), (0.9, "PASSIVE")])
def test_threads_sleep_beside_a_busy_process_only(
    busy: float, policy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openmp, "busy_processors", lambda _seconds: busy)
    environment = dict[str, str]()
    choose_wait_policy(environment)
    assert environment.get("OMP_WAIT_POLICY") == policy


@pytest.mark.parametrize(
    "own",
    [{"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "7"}, {"OMP_NUM_THREADS": "1"}],
)
def test_what_the_user_has_set_stays(own: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openmp, "busy_processors", lambda _seconds: 2.0)
    environment = dict(own)
    choose_wait_policy(environment)
    assert environment == own


def test_torch_is_not_loaded_before_the_choice() -> None:
    code = "import hemix.cli.app, sys; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
