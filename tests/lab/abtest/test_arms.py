"""Arms that are away, refuse, or have become another model: each is paused or refused by name, and
spoils no other.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hemix import api
from hemix.errors import UsageError
from hemix.lab.abtest import Plan, experiment
from hemix.lab.abtest.arms import ArmDown, Server
from hemix.lab.abtest.living import past_lives
from hemix.lab.simulator.city import build_city
from tests.lab.abtest.stand_in import StandIn


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("city") / "logs"
    api.simulate(folder, users=24, days=3, seed=2)
    return folder


@pytest.fixture
def dead() -> Iterator[str]:
    """The URL of a port on which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


def run(arms: dict[str, str], logs: Path, out: Path, **more: Any) -> dict[str, Any]:
    plan = Plan(arms=arms, logs=str(logs), users=24, days=1, block=12)
    return experiment(plan, out, **{"patience_seconds": 0.3, **more})


def users_of(found: dict[str, Any]) -> dict[str, int]:
    return {name: arm["users"] for name, arm in found["arms"].items()}


def test_a_candidate_without_a_score_is_last() -> None:
    city = build_city(200, 1, 2)
    lives, _ = past_lives(city, np.arange(4), 0)
    lives.begin_day(1)
    requests, _ = lives.begin_session(0)
    server = Server("http://127.0.0.1:1")
    server.client.rank = lambda _user, names, **_: {  # type: ignore[method-assign]
        "items": [{"id": name, "score": -5.0 if n else None} for n, name in enumerate(names)]
    }
    candidates = lives.candidates(requests)
    shown = candidates >= 0
    scores = np.where(shown, server.scores(lives, requests, candidates), 0.0)
    assert np.isfinite(scores).all() and len(scores) > 1
    assert (scores.argmin(axis=1) == shown.argmax(axis=1)).all(), (
        "the first of each request has none"
    )


def test_rankings_that_wait_for_a_dead_server_give_up_together(dead: str) -> None:
    """One waits out the patience; the others who stand in the queue never ask."""
    city = build_city(200, 1, 2)
    lives, _ = past_lives(city, np.arange(40), 0)
    lives.begin_day(1)
    requests, _ = lives.begin_session(0)
    server, asked = Server(dead, patience_seconds=0.3), set[str]()
    rank = server.client.rank
    server.client.rank = lambda *args, **more: (asked.add(more["id"]), rank(*args, **more))[1]  # type: ignore[method-assign]
    assert len(requests) > 8
    with pytest.raises(ArmDown, match="no answer"):
        server.scores(lives, requests, lives.candidates(requests))
    assert 1 <= len(asked) <= 4


def test_connections_stay_open_and_one_that_the_server_closed_is_made_anew() -> None:
    with StandIn() as other:
        server = Server(other.url)
        for _ in range(20):
            server.client.rank("u1", ["a", "b"])
        assert other.connections == 1
        server.client._own.connection.sock.shutdown(socket.SHUT_RDWR)
        assert server.client.rank("u1", ["a"])["items"] == [{"id": "a", "score": 0.0}]
        assert other.connections == 2


def test_an_arm_that_is_down_at_the_start_waits_and_the_others_live(
    logs: Path, dead: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with StandIn() as up:
        found = run({"up": up.url, "down": dead, "popularity": "popularity"}, logs, out)
        assert users_of(found) == {"up": 24, "popularity": 24}
        assert "no answer" in found["paused"]["down"] and found["rankings_per_second"] > 0
    with StandIn() as later:  # the first server is gone, and nothing is wanted of it any more
        found = run({"up": dead, "down": later.url, "popularity": "popularity"}, logs, out)
    assert users_of(found) == {"up": 24, "down": 24, "popularity": 24} and found["paused"] == {}
    again = run({"up": dead, "down": dead + "0", "popularity": "popularity"}, logs, out)
    assert (
        again["effects"] == found["effects"]
        and again["rankings_per_second"] == found["rankings_per_second"]
    )


def test_one_who_stops_the_whole_waits_for_no_block_and_goes_on_later(
    logs: Path, tmp_path: Path
) -> None:
    """Two arms live at the same time; what is stopped in the middle is lived again, and nothing
    else.
    """

    def stop(what: str, _share: float) -> None:
        if what.startswith("b, users 0"):
            raise KeyboardInterrupt

    with StandIn() as a, StandIn() as b:
        arms = {"a": a.url, "b": b.url, "oracle": "oracle"}
        with pytest.raises(KeyboardInterrupt):
            run(arms, logs, tmp_path / "out", on_progress=stop)
        assert not list((tmp_path / "out" / "cells").glob("b-*"))
        found, undisturbed = (run(arms, logs, tmp_path / out) for out in ("out", "other"))
    assert found["effects"] == undisturbed["effects"] and users_of(found) == {
        "a": 24,
        "b": 24,
        "oracle": 24,
    }


def test_arms_none_of_which_answers_are_refused(logs: Path, dead: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--arm a: does not answer: .*; --arm b: does not answer"):
        run({"a": dead, "b": dead + "/other"}, logs, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("how", ["a refused ranking", "a rejected event"])
def test_an_arm_that_refuses_the_city_is_left_out_with_the_reason(
    how: str, logs: Path, tmp_path: Path
) -> None:
    with StandIn() as good, StandIn() as bad:

        def turn(what: str, _share: float) -> None:
            if what.startswith("bad, users 12"):
                if how == "a refused ranking":
                    bad.refuse["/v1/rank"] = 422, "no column weather"
                else:
                    bad.rejected = [{"index": 0, "message": "no item p00001"}]

        found = run({"good": good.url, "bad": bad.url}, logs, tmp_path / "out", on_progress=turn)
    assert users_of(found) == {"good": 24, "bad": 12}
    assert ("no column weather" if how == "a refused ranking" else "no item p00001") in found[
        "paused"
    ]["bad"]


def test_another_model_behind_an_arm_is_not_mixed_in(logs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with StandIn("first") as one, StandIn("second") as two:

        def swap(what: str, _share: float) -> None:
            if what.startswith("a, users 12"):
                one.facts = {**one.facts, "version": "2"}

        found = run({"a": one.url, "b": two.url}, logs, out, on_progress=swap)
        assert users_of(found) == {"a": 12, "b": 24}
        assert (
            "its users began with first (1, first1), and it is first (2, first1) now"
            in found["paused"]["a"]
        )
        with pytest.raises(
            UsageError,
            match=r"--arm a: its users began with first \(1, .*, and it is first \(2, .*\) now",
        ):
            run({"a": one.url, "b": two.url}, logs, out)
        with pytest.raises(
            UsageError, match=r"--arm a: its users began with first .*, and it is oracle now"
        ):
            run({"a": "oracle", "b": two.url}, logs, out)
    with StandIn("first") as restarted:
        found = run({"a": restarted.url, "b": "http://127.0.0.1:1"}, logs, out)
    assert users_of(found) == {"a": 24, "b": 24} and found["models"]["a"]["version"] == "1"


def test_another_schema_than_that_of_an_arm_met_before_is_refused(
    logs: Path, dead: str, tmp_path: Path
) -> None:
    with StandIn(schema="s") as one, StandIn(schema="t") as two:
        run({"a": one.url, "b": dead}, logs, tmp_path / "out")
        with pytest.raises(UsageError, match=r"--arm b: serves another schema \(t\) than a \(s\)"):
            run({"a": one.url, "b": two.url}, logs, tmp_path / "out")
