"""Run a simulated A/B test of four models: the experiment of docs/project/evidence.md.

    python examples/experiment.py [--out FOLDER] [--logs LOGS --data DATA] [--points FILE]
        [--users 3230 --days 2]

HeMix, HeMix without the real-time history, DLRM and RankMixer train on the same logs. FILE is a
search file of `hemix compare` with the settings of each model. The models serve on ports of this
machine, and the same users meet each of them, the oracle and popularity.

Without --logs, a small city is simulated. A second call continues: finished runs and finished
blocks of users stay. FOLDER is ./example_experiment by default.
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
"""Model and own settings by arm."""


def main() -> None:
    arguments = parse_arguments()
    out = arguments.out
    logs = arguments.logs or out / "logs"
    data = arguments.data or out / "data"
    if not logs.exists():
        hemix("simulate", "--out", logs, "--users", 80, "--days", 3, "--seed", 0)
    if not data.exists():
        hemix("prepare", logs, "--out", data)
    points = yaml.safe_load(arguments.points.read_text()) if arguments.points else {"all": [{}]}
    for arm, (model, own_settings) in ARMS.items():
        (settings,) = points.get(model, points["all"])
        threads = {"train.threads": arguments.threads}
        train(data, out / arm, model, {**settings, **own_settings, **threads})
    options = ["--logs", logs, "--users", arguments.users, "--days", arguments.days]
    options += ["--out", out / "experiment"]
    servers: list[subprocess.Popen[str]] = []
    try:
        for arm in ARMS:
            servers.append(serve(out / arm, logs))
            options += ["--arm", f"{arm}={server_url(servers[-1])}"]
        hemix("experiment", *options, "--arm", "oracle=oracle", "--arm", "popularity=popularity")
    finally:
        for server in servers:
            server.send_signal(signal.SIGTERM)
        for server in servers:
            server.wait(timeout=60)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("example_experiment"))
    for name in ("logs", "data", "points"):
        parser.add_argument(f"--{name}", type=Path)
    for name, default in (("users", 30), ("days", 1), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args()


def hemix(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "hemix", *map(str, arguments)], check=True)


def train(data: Path, run: Path, model: str, settings: Mapping[str, Any]) -> None:
    """Train a run, or resume it with its own settings; a finished run stays unchanged.

    Args:
        data: The dataset.
        run: The run folder.
        model: The model's name.
        settings: Values by setting, for ``--set``.
    """
    if run.exists():
        hemix("train", "--data", data, "--out", run, "--resume")
        return
    options = ["--model", model]
    for key, value in settings.items():
        options += ["--set", f"{key}={json.dumps(value)}"]
    hemix("train", "--data", data, "--out", run, *options)


def serve(run: Path, logs: Path) -> subprocess.Popen[str]:
    """Start a server of a run; its own store holds the city's past.

    Args:
        run: The run folder.
        logs: The city's logs, which are loaded into the store.
    """
    store = f"sqlite:///{run}-events.db"
    hemix("store", "load", logs, "--store", store, "--history-ttl-days", 0)
    command = [sys.executable, "-m", "hemix", "serve", run, "--port", 0, "--store", store]
    command += ["--history-ttl-days", 0, "--no-log", "--json"]
    with run.with_name(f"{run.name}-server.log").open("a") as log:
        return subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=log, text=True)


def server_url(server: subprocess.Popen[str]) -> str:
    line = server.stdout.readline() if server.stdout else ""
    if not line:
        raise SystemExit("a server did not start: see the -server.log files in the output folder")
    return str(json.loads(line)["url"])


if __name__ == "__main__":
    main()
