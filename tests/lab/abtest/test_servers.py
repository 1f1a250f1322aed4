"""hemix experiment against real servers: a live user's events come back in the next ranking, and an
arm that dies spoils nothing.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from hemix import api
from hemix.client import Client
from hemix.errors import UsageError
from hemix.lab.abtest import Plan, experiment
from hemix.lab.simulator.city import build_city

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

TINY = {"train.threads": 1, "train.checkpoint_every_steps": 0, "model.token_width": 16}
OWN = {"hemix": {"model.mix_rank": 8, "model.tokenizer_hidden": 32}, "dlrm": {}}


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logs, data and two runs of a small city."""
    folder = tmp_path_factory.mktemp("city")
    api.simulate(folder / "logs", users=80, days=3, seed=7)
    api.prepare(folder / "logs", folder / "data")
    for model, own in OWN.items():
        api.train(folder / "data", folder / model, model=model, settings={**TINY, **own})
    return folder


def users_of(found: dict[str, Any]) -> dict[str, int]:
    return {name: arm["users"] for name, arm in found["arms"].items()}


class Serving:
    """A server with the city's past in its store."""

    def __init__(self, city: Path, model: str, folder: Path) -> None:
        store = f"sqlite:///{folder / model}.db"
        api.store_load(city / "logs", store)
        command = [
            sys.executable,
            "-m",
            "hemix",
            "serve",
            str(city / model),
            "--port",
            "0",
            "--store",
            store,
            "--no-log",
            "--history-days",
            "0",
            "--json",
        ]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        assert self.process.stdout is not None
        self.url = json.loads(self.process.stdout.readline())["url"]

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(timeout=60)


@pytest.fixture
def servers(city: Path, tmp_path: Path) -> Iterator[dict[str, Serving]]:
    found = {model: Serving(city, model, tmp_path) for model in ("hemix", "dlrm")}
    yield found
    for server in found.values():
        if server.process.poll() is None:
            server.stop()


def test_a_paired_experiment_over_http(
    city: Path, servers: dict[str, Serving], tmp_path: Path
) -> None:
    arms = [f"--arm={name}={server.url}" for name, server in servers.items()]
    out = tmp_path / "out"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "hemix",
            "experiment",
            *arms,
            "--arm=oracle=oracle",
            "--arm=popularity=popularity",
            "--logs",
            str(city / "logs"),
            "--users",
            "40",
            "--days",
            "2",
            "--out",
            str(out),
        ],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert (
        "80 % power for relative differences of: PV_CTR" in done.stderr
        and "rankings a second" in done.stdout
    )
    found = json.loads((out / "experiment.json").read_text())
    assert {(e["arm"], e["against"]) for e in found["effects"]} >= {
        ("hemix", "dlrm"),
        ("hemix", "oracle"),
        ("dlrm", "popularity"),
    }
    assert (
        users_of(found) == dict.fromkeys(("hemix", "dlrm", "oracle", "popularity"), 40)
        and found["paused"] == {}
    )
    # What a user did in the experiment stands in the history of their arm's server.
    rows = pq.read_table(out / "cells" / "hemix-0000.parquet").to_pylist()
    clicked = next(row["user"] for row in rows if sum(row["clicks"]))
    history = Client(servers["hemix"].url)._call("GET", f"/v1/users/u{clicked:06d}/history")
    newest = max(
        event["timestamp"] for part in history.values() if isinstance(part, list) for event in part
    )
    assert newest >= build_city(80, 3, 7).day_start_ms(3)


def test_an_arm_that_dies_is_reported_and_a_later_call_goes_on(
    city: Path, servers: dict[str, Serving], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arms = {"hemix": servers["hemix"].url, "dlrm": servers["dlrm"].url}

    def plan(**urls: str) -> Plan:
        return Plan(arms={**arms, **urls}, logs=str(city / "logs"), users=40, days=1, block=20)

    def kill(what: str, _share: float) -> None:
        if what.startswith("dlrm, users 20") and servers["dlrm"].process.poll() is None:
            servers["dlrm"].stop(signal.SIGKILL)
            time.sleep(0.1)

    found = experiment(plan(), out, patience_seconds=0.5, on_progress=kill)
    assert users_of(found) == {"hemix": 40, "dlrm": 20}
    assert "no answer" in found["paused"]["dlrm"]
    assert {e["users"] for e in found["effects"]} == {20}
    (tmp_path / "again").mkdir()
    again = Serving(city, "dlrm", tmp_path / "again")
    try:
        found = experiment(plan(dlrm=again.url), out, patience_seconds=5)
    finally:
        again.stop()
    assert users_of(found) == {"hemix": 40, "dlrm": 40} and found["paused"] == {}


def test_arms_of_different_schemas_are_refused(
    city: Path, servers: dict[str, Serving], planted_data: Path, tmp_path: Path
) -> None:
    api.train(planted_data, tmp_path / "planted" / "run", settings=TINY)
    command = [
        sys.executable,
        "-m",
        "hemix",
        "serve",
        str(tmp_path / "planted" / "run"),
        "--port",
        "0",
        "--store",
        "memory://",
        "--no-log",
        "--json",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        with pytest.raises(UsageError, match=r"--arm other: serves another schema"):
            api.experiment(
                {"hemix": servers["hemix"].url, "other": url},
                tmp_path / "out",
                logs=city / "logs",
                users=10,
                days=1,
            )
        assert not (tmp_path / "out").exists()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
