"""Arms that are unavailable, refuse calls or change their model."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hemix import api
from hemix.errors import ServerError, UsageError
from hemix.lab.abtest import ExperimentPlan, experiment
from hemix.lab.abtest.arm_simulation import simulate_past
from hemix.lab.abtest.arms import ArmUnavailable
from hemix.lab.abtest.server_arm import ServerArm
from hemix.lab.simulator.city import build_city
from hemix.lab.simulator.simulation import UserSimulation
from hemix.lab.simulator.state import Requests
from tests.lab.abtest.fake_server import FakeServer
from tests.refusals import raises

pytestmark = pytest.mark.usefixtures("short_past")


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("city") / "logs"
    api.simulate(folder, users=24, days=3, seed=2)
    return folder


@pytest.fixture
def closed_url() -> Iterator[str]:
    """The URL of a port on which no server listens."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{reserved.getsockname()[1]}"


def run_experiment(arms: dict[str, str], logs: Path, out: Path, **options: Any) -> dict[str, Any]:
    """Two blocks of 12 users, one day."""
    plan = ExperimentPlan(arms=arms, logs=str(logs), users=24, days=1, block=12)
    return experiment(plan, out, **{"arm_timeout": 0.3, **options})


def users_by_arm(content: dict[str, Any]) -> dict[str, int]:
    return {name: arm["users"] for name, arm in content["arms"].items()}


def first_requests(users: int) -> tuple[UserSimulation, Requests]:
    """Simulated users after one logged day, with the first requests of the next day."""
    simulation, _ = simulate_past(build_city(200, 1, 2), np.arange(users), 0)
    simulation.begin_day(1)
    return simulation, simulation.begin_session(0)[0]


def test_a_candidate_without_a_score_has_the_lowest_score() -> None:
    simulation, requests = first_requests(4)
    arm = ServerArm("http://127.0.0.1:1")
    arm.client.rank = lambda _user, items, **_: {  # type: ignore[method-assign]
        "items": [{"id": item, "score": -5.0 if n else None} for n, item in enumerate(items)]
    }
    candidates = simulation.candidates(requests)
    exists = candidates >= 0
    scores = np.where(exists, arm.score(simulation, requests, candidates), 0.0)
    assert np.isfinite(scores).all() and len(scores) > 1
    first_candidate = exists.argmax(axis=1)
    assert (scores.argmin(axis=1) == first_candidate).all()


def test_queued_rankings_are_cancelled_when_the_server_is_unavailable(closed_url: str) -> None:
    simulation, requests = first_requests(40)
    arm, sent_ids = ServerArm(closed_url, timeout_seconds=0.3), set[str]()
    rank = arm.client.rank

    def recorded_rank(*args: Any, **options: Any) -> Any:
        sent_ids.add(options["id"])
        return rank(*args, **options)

    arm.client.rank = recorded_rank  # type: ignore[method-assign]
    assert len(requests) > 8
    with pytest.raises(ArmUnavailable) as caught:
        arm.score(simulation, requests, simulation.candidates(requests))
    cause = caught.value.__cause__
    assert isinstance(cause, ServerError) and cause.code == "no_answer"
    assert 1 <= len(sent_ids) <= 4


def test_an_unavailable_arm_is_paused_and_runs_in_a_later_call(
    logs: Path, closed_url: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with FakeServer() as server:
        arms = {"up": server.url, "down": closed_url, "popularity": "popularity"}
        content = run_experiment(arms, logs, out)
    assert users_by_arm(content) == {"up": 24, "popularity": 24}
    assert content["paused"].keys() == {"down"} and "no answer" in content["paused"]["down"]
    assert content["rankings_per_second"] > 0
    with FakeServer() as server:
        arms = {"up": closed_url, "down": server.url, "popularity": "popularity"}
        content = run_experiment(arms, logs, out)
    assert users_by_arm(content) == {"up": 24, "down": 24, "popularity": 24}
    assert content["paused"] == {}


def test_a_finished_arm_needs_no_server(logs: Path, closed_url: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with FakeServer() as server:
        arms = {"server": server.url, "popularity": "popularity"}
        content = run_experiment(arms, logs, out)
    arms["server"] = closed_url
    repeated = run_experiment(arms, logs, out)
    assert repeated["effects"] == content["effects"]
    assert repeated["rankings_per_second"] == content["rankings_per_second"]


def test_an_interrupted_experiment_stops_at_once_and_continues_later(
    logs: Path, tmp_path: Path
) -> None:
    def interrupt(stage: str, _fraction: float) -> None:
        if stage.startswith("b, users 0"):
            raise KeyboardInterrupt

    with FakeServer() as a, FakeServer() as b:
        arms = {"a": a.url, "b": b.url, "oracle": "oracle"}
        with pytest.raises(KeyboardInterrupt):
            run_experiment(arms, logs, tmp_path / "out", on_progress=interrupt)
        assert not list((tmp_path / "out" / "arm_results").glob("b-*"))
        continued, uninterrupted = (
            run_experiment(arms, logs, tmp_path / out) for out in ("out", "other")
        )
    assert continued["effects"] == uninterrupted["effects"]
    assert users_by_arm(continued) == {"a": 24, "b": 24, "oracle": 24}


def test_an_experiment_without_any_available_arm_is_refused(
    logs: Path, closed_url: str, tmp_path: Path
) -> None:
    with raises(UsageError, "--arm a", "--arm b", code="no_answer", field="--arm"):
        run_experiment({"a": closed_url, "b": closed_url + "/other"}, logs, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("refusal", ["ranking", "event"])
def test_an_arm_that_refuses_a_call_is_paused_with_the_reason(
    refusal: str, logs: Path, tmp_path: Path
) -> None:
    with FakeServer() as good, FakeServer() as bad:

        def refuse(stage: str, _fraction: float) -> None:
            if stage.startswith("bad, users 12"):
                if refusal == "ranking":
                    bad.errors["/v1/rank"] = 422, "no column weather"
                else:
                    bad.rejected = [{"index": 0, "message": "no item p00001"}]

        arms = {"good": good.url, "bad": bad.url}
        content = run_experiment(arms, logs, tmp_path / "out", on_progress=refuse)
    assert users_by_arm(content) == {"good": 24, "bad": 12}
    server_message = {"ranking": "no column weather", "event": "no item p00001"}[refusal]
    assert server_message in content["paused"]["bad"]


def test_an_arm_whose_model_changes_is_paused_until_the_model_is_back(
    logs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with FakeServer("first") as a, FakeServer("second") as b:

        def change_model(stage: str, _fraction: float) -> None:
            if stage.startswith("a, users 12"):
                a.model = {**a.model, "version": "2"}

        content = run_experiment({"a": a.url, "b": b.url}, logs, out, on_progress=change_model)
        assert users_by_arm(content) == {"a": 12, "b": 24}
        assert "from first (1, first1) to first (2, first1)" in content["paused"]["a"]
        models = ("--arm a", "first (1, first1)", "first (2, first1)")
        with raises(UsageError, *models, code="other_model", field="--arm"):
            run_experiment({"a": a.url, "b": b.url}, logs, out)
        models = ("--arm a", "first (1, first1)", "oracle")
        with raises(UsageError, *models, code="other_model", field="--arm"):
            run_experiment({"a": "oracle", "b": b.url}, logs, out)
    with FakeServer("first") as restarted:
        arms = {"a": restarted.url, "b": "http://127.0.0.1:1"}
        content = run_experiment(arms, logs, out)
    assert users_by_arm(content) == {"a": 24, "b": 24}
    assert content["models"]["a"]["version"] == "1"


def test_an_arm_with_another_schema_than_earlier_arms_is_refused(
    logs: Path, closed_url: str, tmp_path: Path
) -> None:
    with FakeServer(schema="first-schema") as a, FakeServer(schema="second-schema") as b:
        run_experiment({"a": a.url, "b": closed_url}, logs, tmp_path / "out")
        schemas = ("--arm b", "second-schema", "--arm a", "first-schema")
        with raises(UsageError, *schemas, code="other_schema", field="--arm"):
            run_experiment({"a": a.url, "b": b.url}, logs, tmp_path / "out")
