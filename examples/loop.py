"""The whole loop in the simulated city: serve, log what was served, learn from it, serve and
measure again. Into ./example_loop.

    python examples/loop.py      # small
    python examples/loop.py --users 3230 --days 8 --live 1000 --measured 1000

A model that learnt from the city's logs serves `--live` users for five days; what it served is
logged. Three models then learn from the old logs and

    own      what the first one served those users in those days
    blind    the same, with every position, old and new, said to be the top: what position as a bias
             feature is worth
    policy   what the city's own logging policy showed the same users in the same days, so that more
             data alone is accounted for

(three of the five days train; the last two validate and test) and four servers, with the first
model's, meet other users for two days. loop.json has the effects, and for every arm how its
probabilities of a click compare with the clicks (PCOC: their ratio) and how varied the pages are.
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
    asked = argparse.ArgumentParser()
    for name, small in (
        ("users", 150),
        ("days", 4),
        ("live", 60),
        ("measured", 40),
        ("threads", 1),
    ):
        asked.add_argument(f"--{name}", type=int, default=small)
    given = asked.parse_args()
    folder = Path("example_loop")
    size = ["--users", given.users, "--seed", 0]
    hemix("simulate", "--out", folder / "logs", *size, "--days", given.days)
    hemix("simulate", "--out", folder / "longer", *size, "--days", given.days + LIVE_DAYS)
    train(folder / "logs", folder / "first", given.threads)

    live = [
        "--logs",
        folder / "logs",
        "--users",
        given.live,
        "--days",
        LIVE_DAYS,
        "--out",
        folder / "live",
    ]
    serve_and_measure({"first": folder / "first"}, folder / "logs", live)
    hemix(
        "served",
        "rows",
        served_log(folder / "first"),
        "--run",
        folder / "first",
        "--out",
        folder / "served",
    )

    new = {"own": rows_of(folder / "served"), "policy": policy_rows(folder, given.days, given.live)}
    new["blind"] = new["own"]
    for name, tables in new.items():
        joined(folder, name, tables, position=name != "blind")
        train(folder / f"{name}-logs", folder / name, given.threads)

    runs = {name: folder / name for name in ("first", "own", "blind", "policy")}
    others = [
        "--logs",
        folder / "longer",
        "--first-user",
        given.live,
        "--users",
        given.measured,
        "--days",
        MEASURED_DAYS,
    ]
    arms = ["--arm", "oracle=oracle", "--arm", "popularity=popularity"]
    since_ms = first_live_ms(folder, given.days) + LIVE_DAYS * DAY_MS
    serve_and_measure(runs, folder / "longer", [*others, *arms, "--out", folder / "measured"])

    found = json.loads((folder / "measured" / "experiment.json").read_text())
    result = {
        "asked": vars(given),
        "rows": {
            name: {"impressions": t[0].num_rows, "events": t[1].num_rows} for name, t in new.items()
        },
        "arms": {
            name: {**found["arms"][name], **pages(run, since_ms)} for name, run in runs.items()
        },
        "ceiling_and_floor": {name: found["arms"][name] for name in ("oracle", "popularity")},
        "effects": [e for e in found["effects"] if {e["arm"], e["against"]} <= set(runs)],
        "machine": found["machine"],
    }
    (folder / "loop.json").write_text(json.dumps(result, indent=1) + "\n")
    say(result)


def say(result: Mapping[str, Any]) -> None:
    """What loop.json says, for a person."""
    print(f"{LIVE_DAYS} live days: {LIVE_DAYS - 2} train, the last two validate and test")
    print(
        f"{'arm':<8} {'PV_CTR':>7} {'GMV':>7} {'PCOC':>6} {'at the top':>10} {'items':>6} "
        f"{'distinct':>8} {'new places':>10}"
    )
    for name, arm in result["arms"].items():
        calibration = f"{arm['pcoc']:6.3f} {arm['pcoc_top']:10.3f}"
        fresh = "-" if arm["new_place_share"] is None else f"{arm['new_place_share']:.3f}"
        variety = f"{arm['items']:6.0f} {arm['distinct_share']:8.3f} {fresh:>10}"
        print(f"{name:<8} {arm['pv_ctr']:7.4f} {arm['gmv_per_user']:7.2f} {calibration} {variety}")
    for effect in result["effects"]:
        if effect["metric"] == "pv_ctr":
            low, high = effect["ci95"]
            print(
                f"PV_CTR of {effect['arm']} against {effect['against']}: "
                f"{effect['relative_delta']:+.1%} ({low:+.1%} to {high:+.1%})"
            )


def hemix(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "hemix", *map(str, words)], check=True)


def train(logs: Path, run: Path, threads: int) -> None:
    data = logs.with_name(f"{logs.name}-data")
    hemix("prepare", logs, "--out", data)
    hemix("train", "--data", data, "--out", run, "--set", f"train.threads={threads}")


# -- serving ---------------------------------------------------------------------------------------


def serve_and_measure(runs: Mapping[str, Path], past: Path, words: Sequence[object]) -> None:
    """`hemix experiment` against a server of each run, whose store holds the past and whose log
    begins empty.
    """
    servers = []
    try:
        arms: list[str] = []
        for name, run in runs.items():
            store = f"sqlite:///{past}-{name}.db"
            hemix("store", "load", past, "--store", store, "--history-days", 0)
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
                "--json",
            ]
            with run.with_name(f"{run.name}-server.log").open("a") as log:
                servers.append(
                    subprocess.Popen(
                        [*map(str, command)], stdout=subprocess.PIPE, stderr=log, text=True
                    )
                )
            arms += ["--arm", f"{name}={json.loads(servers[-1].stdout.readline())['url']}"]
        hemix("experiment", *arms, *words)
    finally:
        for server in servers:
            server.send_signal(signal.SIGTERM)
        for server in servers:
            server.wait(timeout=60)


def served_log(run: Path) -> Path:
    (found,) = (run / "served").glob("*/rankings")
    return found.parent


# -- the new rows ----------------------------------------------------------------------------------

Tables = tuple[pa.Table, pa.Table]
"""Impressions and events"""


def rows_of(served: Path) -> Tables:
    impressions = pq.read_table(served / "impressions")
    return impressions.filter(pc.is_valid(impressions["click"])), pq.read_table(served / "events")


def policy_rows(folder: Path, days: int, live: int) -> Tables:
    """What the longer logs have of the live users after the first ones' end."""
    since, users = first_live_ms(folder, days), {f"u{user:06d}" for user in range(live)}
    mine = pc.field("user_id").isin(users) & (pc.field("time_ms") >= since)
    return tuple(
        ds.dataset(folder / "longer" / f"{name}.parquet").to_table(filter=mine)
        for name in ("impressions", "events")
    )


def first_live_ms(folder: Path, days: int) -> int:
    """Midnight after the logs' last day: `days` after the midnight before their first
    impression.
    """
    first = pc.min(
        pq.read_table(folder / "logs" / "impressions.parquet", columns=["time_ms"])["time_ms"]
    )
    shanghai_ms = 8 * 3_600_000
    return (
        (first.cast(pa.int64()).as_py() + shanghai_ms) // DAY_MS * DAY_MS
        - shanghai_ms
        + days * DAY_MS
    )


def top(impressions: pa.Table) -> pa.Table:
    place = impressions.column_names.index("position")
    zeros = pa.array(np.zeros(impressions.num_rows, np.int64)).cast(
        impressions.schema.field(place).type
    )
    return impressions.set_column(place, "position", zeros)


def joined(folder: Path, name: str, tables: Tables, *, position: bool) -> None:
    """The old logs with new rows beside them; the last of the live days tests, the one before
    validates. Without ``position`` every impression, old or new, is said to have been at the top: a
    model that sees some positions would still correct for them.
    """
    logs = folder / f"{name}-logs"
    for table, rows in zip(("impressions", "events"), tables, strict=True):
        (logs / table).mkdir(parents=True)
        old = folder / "logs" / f"{table}.parquet"
        if table == "events" or position:
            os.link(old, logs / table / "0.parquet")
            pq.write_table(rows, logs / table / "1.parquet")
        else:
            pq.write_table(top(pq.read_table(old)), logs / table / "0.parquet")
            pq.write_table(top(rows), logs / table / "1.parquet")
    for table in ("items", "users"):
        os.link(folder / "logs" / f"{table}.parquet", logs / f"{table}.parquet")
    lines = (folder / "longer" / "schema.yaml").read_text().splitlines()
    kept = [line for line in lines if not line.strip().startswith("truth:")]
    text = (
        "\n".join(kept)
        .replace("impressions.parquet", "impressions")
        .replace("events.parquet", "events")
    )
    (logs / "schema.yaml").write_text(text + "\n")


# -- what was shown --------------------------------------------------------------------------------


def pages(run: Path, since_ms: int) -> dict[str, Any]:
    """Of what a run served since then and users saw: predicted over observed clicks, at all places
    and at the top; the number of items that pages as varied as these would have, were all shown
    alike often (the exponential of their entropy); and the share of the city's items that were
    shown at all.
    """
    log = served_log(run)
    rows = log.with_name("rows")
    hemix("served", "rows", log, "--run", run, "--out", rows)
    files = sorted((log / "rankings").glob("*.parquet"))
    ranked = pa.concat_tables([pq.read_table(file, columns=["served_click"]) for file in files])
    labelled = pa.concat_tables([pq.read_table(rows / "impressions" / file.name) for file in files])
    then = pc.greater_equal(labelled["time_ms"], pa.scalar(since_ms, pa.timestamp("ms", tz="UTC")))
    seen = pc.and_(then, pc.is_valid(labelled["click"]))
    shown = labelled.append_column("predicted", ranked["served_click"]).filter(seen)
    first = shown.filter(pc.equal(shown["position"], 0))
    counts = np.array(pc.value_counts(shown["item_id"]).field("counts"))
    share = counts / counts.sum()
    return {
        "shown": shown.num_rows,
        "pcoc": pc.sum(shown["predicted"]).as_py() / pc.sum(shown["click"]).as_py(),
        "pcoc_top": pc.sum(first["predicted"]).as_py() / pc.sum(first["click"]).as_py(),
        "items": float(np.exp(-(share * np.log(share)).sum())),
        "distinct_share": len(counts)
        / pq.read_metadata(run.parent / "logs" / "items.parquet").num_rows,
    }


if __name__ == "__main__":
    main()
