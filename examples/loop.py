"""Close the loop in the simulated city: serve, log, retrain on the log, serve and measure again.

    python examples/loop.py      # small
    python examples/loop.py --users 3230 --days 8 --live 1000 --measured 1000

A first model, trained on the city's logs, serves `--live` users for five days, and the server logs
its rankings. Three models then train on the old logs and new ones:

- own: rankings of the first model.
- blind: the same, with position 0 for every impression, old and new. It shows the value of the
  position as a bias feature.
- policy: rankings of the city's logging policy for the same users and days. It shows the effect of
  more data alone.

Three of the five days train; the last two validate and test. All four models then serve other users
for two days. example_loop/loop.json holds the effects, and for every arm its calibration (PCOC:
predicted over observed clicks) and the variety of its pages.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

LIVE_DAYS, MEASURED_DAYS = 5, 2
DAY_MS = 86_400_000


def main() -> None:
    arguments = parse_arguments()
    folder = Path("example_loop")
    city = ["--users", arguments.users, "--seed", 0]
    hemix("simulate", "--out", folder / "logs", *city, "--days", arguments.days)
    hemix("simulate", "--out", folder / "longer", *city, "--days", arguments.days + LIVE_DAYS)
    train(folder / "logs", folder / "first", arguments.threads)

    users = ["--users", arguments.live, "--days", LIVE_DAYS]
    options = ["--logs", folder / "logs", *users, "--out", folder / "live"]
    run_experiment({"first": folder / "first"}, folder / "logs", options)
    log, run = ranking_log(folder / "first"), folder / "first"
    hemix("log", "export", log, "--run", run, "--out", folder / "served")

    own = logged_tables(folder / "served")
    policy = policy_tables(folder, arguments.days, arguments.live)
    tables = {"own": own, "policy": policy, "blind": own}
    for name, new_tables in tables.items():
        write_logs(folder, name, new_tables, with_position=name != "blind")
        train(folder / f"{name}-logs", folder / name, arguments.threads)

    runs = {name: folder / name for name in ("first", "own", "blind", "policy")}
    users = ["--first-user", arguments.live, "--users", arguments.measured]
    options = ["--logs", folder / "longer", *users, "--days", MEASURED_DAYS]
    options += ["--arm", "oracle=oracle", "--arm", "popularity=popularity"]
    run_experiment(runs, folder / "longer", [*options, "--out", folder / "measured"])
    since_ms = first_live_ms(folder, arguments.days) + LIVE_DAYS * DAY_MS
    result = {
        "arguments": vars(arguments),
        "rows": {
            name: {"impressions": impressions.num_rows, "events": events.num_rows}
            for name, (impressions, events) in tables.items()
        },
        **summarise(folder / "measured" / "experiment.json", runs, since_ms),
    }
    (folder / "loop.json").write_text(json.dumps(result, indent=1) + "\n")
    print_result(result)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    defaults = {"users": 150, "days": 4, "live": 60, "measured": 40, "threads": 1}
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args()


def summarise(path: Path, runs: Mapping[str, Path], since_ms: int) -> dict[str, Any]:
    """Return the experiment's results of the runs, with the figures of their pages.

    Args:
        path: The experiment's JSON file.
        runs: Run folders by arm.
        since_ms: The start of the experiment, UTC.
    """
    content = json.loads(path.read_text())
    return {
        "arms": {
            name: {**content["arms"][name], **page_figures(run, since_ms)}
            for name, run in runs.items()
        },
        "ceiling_and_floor": {name: content["arms"][name] for name in ("oracle", "popularity")},
        "effects": [
            effect
            for effect in content["effects"]
            if {effect["arm"], effect["against"]} <= set(runs)
        ],
        "machine": content["machine"],
    }


def print_result(result: Mapping[str, Any]) -> None:
    print(f"{LIVE_DAYS} live days: {LIVE_DAYS - 2} train, the last two validate and test")
    print(
        f"{'arm':<8} {'PV_CTR':>7} {'GMV':>7} {'PCOC':>6} {'at the top':>10} {'items':>6} "
        f"{'distinct':>8} {'new venues':>10}"
    )
    for name, arm in result["arms"].items():
        calibration = f"{arm['pcoc']:6.3f} {arm['pcoc_top']:10.3f}"
        novelty = "-" if arm["new_place_share"] is None else f"{arm['new_place_share']:.3f}"
        variety = f"{arm['items']:6.0f} {arm['distinct_share']:8.3f} {novelty:>10}"
        print(f"{name:<8} {arm['pv_ctr']:7.4f} {arm['gmv_per_user']:7.2f} {calibration} {variety}")
    for effect in result["effects"]:
        if effect["metric"] == "pv_ctr":
            low, high = effect["ci95"]
            print(
                f"PV_CTR of {effect['arm']} against {effect['against']}: "
                f"{effect['relative_delta']:+.1%} ({low:+.1%} to {high:+.1%})"
            )


def hemix(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "hemix", *map(str, arguments)], check=True)


def train(logs: Path, run: Path, threads: int) -> None:
    """Prepare logs and train a run.

    Args:
        logs: The folder of logs.
        run: The run folder to create.
        threads: PyTorch threads.
    """
    data = logs.with_name(f"{logs.name}-data")
    hemix("prepare", logs, "--out", data)
    hemix("train", "--data", data, "--out", run, "--set", f"train.threads={threads}")


# -- serving ---------------------------------------------------------------------------------------


def run_experiment(runs: Mapping[str, Path], logs: Path, options: Sequence[object]) -> None:
    """Run `hemix experiment` with a server of each run; the servers' stores hold the logs.

    Args:
        runs: Run folders by arm.
        logs: The folder of logs.
        options: Further options of the command.
    """
    servers: list[subprocess.Popen[str]] = []
    try:
        arms: list[str] = []
        for name, run in runs.items():
            servers.append(serve(run, logs, f"sqlite:///{logs}-{name}.db"))
            arms += ["--arm", f"{name}={json.loads(servers[-1].stdout.readline())['url']}"]
        hemix("experiment", *arms, *options)
    finally:
        for server in servers:
            server.send_signal(signal.SIGTERM)
        for server in servers:
            server.wait(timeout=60)


def serve(run: Path, logs: Path, store: str) -> subprocess.Popen[str]:
    """Start a server of a run after loading logs into its store.

    Args:
        run: The run folder.
        logs: The folder of logs.
        store: URL of the store.
    """
    hemix("store", "load", logs, "--store", store, "--history-ttl-days", 0)
    command = [sys.executable, "-m", "hemix", "serve", run, "--port", 0, "--store", store]
    command += ["--history-ttl-days", 0, "--json"]
    with run.with_name(f"{run.name}-server.log").open("a") as log:
        return subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=log, text=True)


def ranking_log(run: Path) -> Path:
    """The folder in which the run's server logged its rankings."""
    (rankings,) = (run / "served").glob("*/rankings")
    return rankings.parent


# -- new logs --------------------------------------------------------------------------------------

Tables = tuple[pa.Table, pa.Table]
"""Impressions and events."""


def logged_tables(served: Path) -> Tables:
    """The impressions that users saw, and the events."""
    impressions = pq.read_table(served / "impressions")
    return impressions.filter(pc.is_valid(impressions["click"])), pq.read_table(served / "events")


def policy_tables(folder: Path, days: int, live: int) -> Tables:
    """Return the rows of the live users and days in the logs of the longer city.

    Args:
        folder: The folder of the example.
        days: Days of the logs before the live days.
        live: How many users are live.
    """
    since_ms, users = first_live_ms(folder, days), {f"u{user:06d}" for user in range(live)}
    is_live = pc.field("user_id").isin(users) & (pc.field("time_ms") >= since_ms)
    return tuple(
        ds.dataset(folder / "longer" / f"{name}.parquet").to_table(filter=is_live)
        for name in ("impressions", "events")
    )


def first_live_ms(folder: Path, days: int) -> int:
    """Return midnight in Shanghai after the last day of the logs, in ms UTC.

    Args:
        folder: The folder of the example.
        days: Days of the logs.
    """
    impressions = pq.read_table(folder / "logs" / "impressions.parquet", columns=["time_ms"])
    first_ms = pc.min(impressions["time_ms"]).cast(pa.int64()).as_py()
    shanghai_ms = 8 * 3_600_000
    return (first_ms + shanghai_ms) // DAY_MS * DAY_MS - shanghai_ms + days * DAY_MS


def at_top(impressions: pa.Table) -> pa.Table:
    """The impressions with position 0."""
    column = impressions.column_names.index("position")
    zeros = pa.array(np.zeros(impressions.num_rows, np.int64))
    zeros = zeros.cast(impressions.schema.field(column).type)
    return impressions.set_column(column, "position", zeros)


def write_logs(folder: Path, name: str, tables: Tables, *, with_position: bool) -> None:
    """Write the old logs together with new rows; the last two live days validate and test.

    Without ``with_position`` every impression, old or new, has position 0: a model that sees some
    positions would correct for them.

    Args:
        folder: The folder of the example.
        name: Prefix of the new folder's name.
        tables: New impressions and events.
        with_position: Whether impressions keep their positions.
    """
    logs = folder / f"{name}-logs"
    for table, rows in zip(("impressions", "events"), tables, strict=True):
        (logs / table).mkdir(parents=True)
        old = folder / "logs" / f"{table}.parquet"
        if table == "events" or with_position:
            os.link(old, logs / table / "0.parquet")
            pq.write_table(rows, logs / table / "1.parquet")
        else:
            pq.write_table(at_top(pq.read_table(old)), logs / table / "0.parquet")
            pq.write_table(at_top(rows), logs / table / "1.parquet")
    for table in ("items", "users"):
        os.link(folder / "logs" / f"{table}.parquet", logs / f"{table}.parquet")
    lines = (folder / "longer" / "schema.yaml").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.strip().startswith("truth:"))
    for table in ("impressions", "events"):
        text = text.replace(f"{table}.parquet", table)
    (logs / "schema.yaml").write_text(text + "\n")


# -- served pages ----------------------------------------------------------------------------------


def page_figures(run: Path, since_ms: int) -> dict[str, Any]:
    """Return calibration and variety of the rankings that users saw since a time.

    ``pcoc`` and ``pcoc_top`` are predicted over observed clicks, at all positions and at the top.
    ``items`` is the exponential of the entropy of the shown items: that many equally frequent items
    would be as varied. ``distinct_share`` is the fraction of the city's items that were shown.

    Args:
        run: The run folder of the server.
        since_ms: UTC.
    """
    log = ranking_log(run)
    rows = log.with_name("rows")
    hemix("log", "export", log, "--run", run, "--out", rows)
    files = sorted((log / "rankings").glob("*.parquet"))
    ranked = pa.concat_tables([pq.read_table(file, columns=["served_click"]) for file in files])
    labelled = pa.concat_tables([pq.read_table(rows / "impressions" / file.name) for file in files])
    since = pa.scalar(since_ms, pa.timestamp("ms", tz="UTC"))
    is_recent = pc.greater_equal(labelled["time_ms"], since)
    is_seen = pc.and_(is_recent, pc.is_valid(labelled["click"]))
    shown = labelled.append_column("predicted", ranked["served_click"]).filter(is_seen)
    top = shown.filter(pc.equal(shown["position"], 0))
    counts = np.array(pc.value_counts(shown["item_id"]).field("counts"))
    fraction = counts / counts.sum()
    item_count = pq.read_metadata(run.parent / "logs" / "items.parquet").num_rows
    return {
        "shown": shown.num_rows,
        "pcoc": pc.sum(shown["predicted"]).as_py() / pc.sum(shown["click"]).as_py(),
        "pcoc_top": pc.sum(top["predicted"]).as_py() / pc.sum(top["click"]).as_py(),
        "items": float(np.exp(-(fraction * np.log(fraction)).sum())),
        "distinct_share": len(counts) / item_count,
    }


if __name__ == "__main__":
    main()
