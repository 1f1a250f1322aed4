"""hemix experiment with real servers: live histories, an arm that dies, and schemas."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from hemix import api
from hemix.client import Client
from hemix.errors import UsageError
from hemix.lab.abtest import ExperimentPlan, experiment
from hemix.lab.simulator.city import build_city
from tests.cli.run import Command
from tests.forked import fork_hemix
from tests.refusals import raises

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.usefixtures("short_past"),
]

SETTINGS = {"train.threads": 1, "train.checkpoint_every_steps": 0, "model.token_width": 16}
MODEL_SETTINGS = {"hemix": {"model.mix_rank": 8, "model.tokenizer_hidden": 32}, "dlrm": {}}


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logs, data and two runs of a small city."""
    folder = tmp_path_factory.mktemp("city")
    api.simulate(folder / "logs", users=80, days=3, seed=7)
    api.prepare(folder / "logs", folder / "data")
    for model, settings in MODEL_SETTINGS.items():
        api.train(folder / "data", folder / model, model=model, settings={**SETTINGS, **settings})
    return folder


def users_by_arm(content: dict[str, Any]) -> dict[str, int]:
    return {name: arm["users"] for name, arm in content["arms"].items()}


class ServerProcess:
    """A `hemix serve` process."""

    def __init__(self, run: Path, store: str, *options: str) -> None:
        flags = ["--port", "0", "--store", store, "--no-log", *options, "--json"]
        self.process = fork_hemix("serve", run, *flags)
        self.url = json.loads(self.process.first_line())["url"]

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(timeout=60)


def serve_city(city: Path, model: str, folder: Path) -> ServerProcess:
    """A server of a run with the city's logs in its store."""
    store = f"sqlite:///{folder / model}.db"
    api.store_load(city / "logs", store)
    return ServerProcess(city / model, store, "--history-ttl-days", "0")


@pytest.fixture
def servers(city: Path, tmp_path: Path) -> Iterator[dict[str, ServerProcess]]:
    processes = {model: serve_city(city, model, tmp_path) for model in MODEL_SETTINGS}
    yield processes
    for process in processes.values():
        process.stop()


def test_a_paired_experiment_over_http(
    hemix: Command, city: Path, servers: dict[str, ServerProcess], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ["experiment"]
    command += [f"--arm={name}={server.url}" for name, server in servers.items()]
    command += ["--arm=oracle=oracle", "--arm=popularity=popularity"]
    command += ["--logs", str(city / "logs"), "--users", "40", "--days", "2", "--out", str(out)]
    code, printed, errors = hemix(*command)
    assert code == 0, errors
    assert "80 % power for relative differences of: PV_CTR" in errors
    assert "rankings a second" in printed
    content = json.loads((out / "experiment.json").read_text())
    pairs = {(effect["arm"], effect["against"]) for effect in content["effects"]}
    assert pairs >= {("hemix", "dlrm"), ("hemix", "oracle"), ("dlrm", "popularity")}
    names = ("hemix", "dlrm", "oracle", "popularity")
    assert users_by_arm(content) == dict.fromkeys(names, 40)
    assert content["paused"] == {}
    # the history of an arm's server has the events of the experiment
    results = pq.read_table(out / "arm_results" / "hemix-0000.parquet").to_pylist()
    user = next(row["user"] for row in results if sum(row["clicks"]))
    history = Client(servers["hemix"].url)._call("GET", f"/v1/users/u{user:06d}/history")
    times_ms = [
        event["timestamp"]
        for events in history.values()
        if isinstance(events, list)
        for event in events
    ]
    assert max(times_ms) >= build_city(80, 3, 7).day_start_ms(3)


def test_an_arm_that_dies_is_paused_and_a_later_call_continues(
    city: Path, servers: dict[str, ServerProcess], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    urls = {name: server.url for name, server in servers.items()}

    def plan(**new_urls: str) -> ExperimentPlan:
        arms = {**urls, **new_urls}
        return ExperimentPlan(arms=arms, logs=str(city / "logs"), users=40, days=1, block=20)

    def kill(stage: str, _fraction: float) -> None:
        if stage.startswith("dlrm, users 20") and servers["dlrm"].process.poll() is None:
            servers["dlrm"].stop(signal.SIGKILL)
            time.sleep(0.1)

    content = experiment(plan(), out, arm_timeout=0.5, on_progress=kill)
    assert users_by_arm(content) == {"hemix": 40, "dlrm": 20}
    assert "no answer" in content["paused"]["dlrm"]
    assert {effect["users"] for effect in content["effects"]} == {20}
    (tmp_path / "restarted").mkdir()
    restarted = serve_city(city, "dlrm", tmp_path / "restarted")
    try:
        content = experiment(plan(dlrm=restarted.url), out, arm_timeout=5)
    finally:
        restarted.stop()
    assert users_by_arm(content) == {"hemix": 40, "dlrm": 40} and content["paused"] == {}


def test_arms_of_different_schemas_are_refused(
    city: Path, servers: dict[str, ServerProcess], planted_data: Path, tmp_path: Path
) -> None:
    api.train(planted_data, tmp_path / "planted" / "run", settings=SETTINGS)
    planted = ServerProcess(tmp_path / "planted" / "run", "memory://")
    arms = {"hemix": servers["hemix"].url, "planted": planted.url}
    try:
        arms_of_two_schemas = ("--arm planted", "--arm hemix")
        with raises(UsageError, *arms_of_two_schemas, code="other_schema", field="--arm"):
            plan = ExperimentPlan(arms=arms, logs=city / "logs", users=10, days=1)
            api.experiment(plan, tmp_path / "out")
        assert not (tmp_path / "out").exists()
    finally:
        planted.stop()
