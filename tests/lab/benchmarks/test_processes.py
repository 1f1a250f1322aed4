"""Processes of the benchmarks that fail, or that shell scripts replace."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hemix.errors import HemixError, UsageError
from hemix.lab.benchmarks import costs, growth, serve, tables
from hemix.lab.benchmarks.common import run_module
from hemix.lab.benchmarks.load_generator import LoadPlan
from hemix.lab.benchmarks.workload import Workload
from tests.refusals import raises

Script = Callable[[str], None]
"""Replaces the interpreter of new processes by shell commands"""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    def install(commands: str) -> None:
        path = tmp_path / "program"
        path.write_text(f"#!/bin/bash\n{commands}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return install


def test_the_last_line_is_the_result(script: Script) -> None:
    script('echo "a warning"; echo "$@"')
    assert run_module("some.module", "1", "2", name="bench x") == "-m some.module 1 2"


FAIL = "echo 'Traceback' >&2; echo 'OutOfMemory: 3 GiB' >&2; exit 1"


def test_the_failed_process_and_its_last_line_are_named(script: Script, tmp_path: Path) -> None:
    script(FAIL)
    last = "OutOfMemory: 3 GiB"
    with raises(HemixError, "bench x", last, code="process_failed"):
        run_module("some.module", name="bench x")
    with raises(HemixError, "bench growth", "hemix prepare", last, code="process_failed"):
        growth.run(scale=1e-4, out=tmp_path / "growth")
    with raises(HemixError, "bench tables", last, code="process_failed"):
        tables.run(scale=1e-3, steps=1, rounds=1, threads=1)
    with raises(HemixError, "bench serve", "load generator", last, code="process_failed"):
        serve._generate_load_in_process(
            LoadPlan(
                port=1,
                seconds=1,
                warm_up_seconds=0,
                streams=(),
                items=(),
                actions=(),
                context={},
            )
        )


def test_the_first_failure_of_several_processes_is_the_cause(script: Script) -> None:
    """Rank 1 fails, and rank 0 would wait for it for ever."""
    script('[ "$RANK" = 0 ] && exec sleep 60; echo "rank $RANK of $WORLD_SIZE is lost" >&2; exit 1')
    point = costs.Point(name="p", load=Workload(users=1, history_length=20), processes=2)
    with raises(HemixError, "bench costs: p", "rank 1 of 2 is lost", code="process_failed"):
        costs._measure_in_processes(point)


def test_the_first_process_prints_the_figures_of_all(script: Script) -> None:
    script('[ "$RANK" = 0 ] || exit 0; echo noise; echo "{\\"seconds\\": 1.5}"')
    point = costs.Point(name="p", load=Workload(users=1, history_length=20), processes=3)
    assert costs._measure_in_processes(point) == {"seconds": 1.5}


def test_a_server_that_does_not_start_is_an_error(
    script: Script, planted_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script("echo 'hemix: --port 1: cannot listen there' >&2; exit 2")
    with raises(HemixError, "bench serve", "--port 1: cannot listen there", code="process_failed"):
        serve.run(scale=0.01, run=planted_run)
    monkeypatch.setattr(serve, "_START_SECONDS_MAX", 0.05)
    script("exec sleep 60")
    with raises(HemixError, "bench serve", code="process_failed"):
        serve.run(scale=0.01, run=planted_run)


def test_a_load_of_no_seconds_is_refused(planted_run: Path) -> None:
    with raises(UsageError, field="--seconds"):
        serve.run(run=planted_run, seconds=0)
