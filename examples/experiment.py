"""Live users of the simulated city, four models and two ends: the experiment of docs/evidence.md.

Into ./example_experiment.

    python examples/experiment.py [--out FOLDER] [--logs LOGS --data DATA] [--points FILE] [--users
    3230 --days 2]

HeMix, HeMix without the real-time history, DLRM and RankMixer learn from the same logs, each with
the settings that a study has chosen for it (a search file of `hemix compare` with one point a
model), serve on ports of this machine, and the same users live with each of them, with the oracle
and with popularity. Called again it goes on: finished runs and finished blocks of users are kept.
Without --logs a small city is made.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "hemix": ("hemix", {}),
    "hemix_no_realtime": ("hemix", {"model.use_realtime": False}),
    "dlrm": ("dlrm", {}),
    "rankmixer": ("rankmixer", {}),
}
"""Model and settings of its own by arm"""


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--out", type=Path, default=Path("example_experiment"))
    for name in ("logs", "data", "points"):
        asked.add_argument(f"--{name}", type=Path)
    for name, small in (("users", 30), ("days", 1), ("threads", 1)):
        asked.add_argument(f"--{name}", type=int, default=small)
    given = asked.parse_args()
    logs = given.logs or given.out / "logs"
    data = given.data or given.out / "data"
    if not logs.exists():
        hemix("simulate", "--out", logs, "--users", 80, "--days", 3, "--seed", 0)
    if not data.exists():
        hemix("prepare", logs, "--out", data)
    points = yaml.safe_load(given.points.read_text()) if given.points else {"all": [{}]}
    for arm, (model, own) in ARMS.items():
        (point,) = points.get(model, points["all"])
        train(data, given.out / arm, model, {**point, **own, "train.threads": given.threads})
    words = [
        "--logs",
        logs,
        "--users",
        given.users,
        "--days",
        given.days,
        "--out",
        given.out / "experiment",
    ]
    servers: list[subprocess.Popen[str]] = []
    try:
        for arm in ARMS:
            servers.append(serve(given.out / arm, logs))
            words += ["--arm", f"{arm}={address(servers[-1])}"]
        hemix("experiment", *words, "--arm", "oracle=oracle", "--arm", "popularity=popularity")
    finally:
        for server in servers:
            server.send_signal(signal.SIGTERM)
        for server in servers:
            server.wait(timeout=60)


def hemix(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "hemix", *map(str, words)], check=True)


def train(data: Path, run: Path, model: str, settings: Mapping[str, Any]) -> None:
    """A run that is finished stays as it is; one that was stopped goes on with the settings that it
    has.
    """
    chosen = [
        word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")
    ]
    hemix(
        "train",
        "--data",
        data,
        "--out",
        run,
        *(["--resume"] if run.exists() else ["--model", model, *chosen]),
    )


def serve(run: Path, logs: Path) -> subprocess.Popen[str]:
    """A server with the city's past in a store of its own."""
    store = f"sqlite:///{run}-events.db"
    hemix("store", "load", logs, "--store", store, "--history-days", 0)
    command = [
        sys.executable,
        "-m",
        "hemix",
        "serve",
        run,
        "--port",
        0,
        "--store",
        store,
        "--history-days",
        0,
        "--no-log",
        "--json",
    ]
    with run.with_name(f"{run.name}-server.log").open("a") as log:
        return subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=log, text=True)


def address(server: subprocess.Popen[str]) -> str:
    line = server.stdout.readline() if server.stdout else ""
    if not line:
        raise SystemExit("a server did not start; its .log file beside the runs says why")
    return str(json.loads(line)["url"])


if __name__ == "__main__":
    main()
