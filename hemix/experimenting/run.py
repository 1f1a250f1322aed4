"""``hemix experiment``: users of a simulated city live with several arms; what came of it, with intervals.

    OUT/
      plan.json            what was asked for: a second call with the same goes on
      cells/ARM-0003.parquet   users of block 3 in an arm, by day; written when the block is over, never run again
      cells/before-0003.parquet   the same users in the last logged days, which one policy served
      experiment.json  report.html

Paired: every user lives in every arm's own copy of the city, from the same past. Split: users are divided among the arms by a hash.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from hemix.errors import DataError, HemixError, UsageError
from hemix.experimenting.analysis import Outcome, analyse, power
from hemix.experimenting.arms import BUILT_IN, Arm, ArmDown, Server, make_arm
from hemix.experimenting.effects import sample_ratio_p
from hemix.experimenting.living import MEASURES, live, past_lives
from hemix.experimenting.report import write_experiment_report
from hemix.files import read_json, storage_errors, write_json
from hemix.measure import machine
from hemix.world import draws
from hemix.world.city import City, build_city

__all__ = ["BEFORE_DAYS", "Plan", "arm_of", "experiment"]

BEFORE_DAYS = 3
"""Logged days that CUPED and the power are made of"""
_MISMATCH_P = 0.001


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is asked for."""

    arms: Mapping[str, str]
    """URL of a server, ``oracle`` or ``popularity``, by name; effects are of earlier arms against later ones"""
    logs: str
    """Folder of `hemix simulate` whose city and users these are"""
    users: int
    days: int
    first_user: int = 0
    """Of the city's users; the next ``users`` live"""
    design: Literal["paired", "split"] = "paired"
    seed: int = 0
    """Of the division into arms"""
    draws: int | None = None
    """Draws of recall a request, by default the city's 56: about 45 candidates"""
    block: int = 200
    """Users who live at a time"""


def experiment(
    plan: Plan,
    out: str | Path,
    *,
    token: str | None = None,
    patience_seconds: float = 30.0,
    on_power: Callable[[Mapping[str, float | None]], None] = lambda _: None,
    on_progress: Callable[[str, float], None] = lambda *_: None,
) -> dict[str, Any]:
    """Run or go on; writes and returns experiment.json. An arm that does not answer for ``patience_seconds`` is left out from there on
    and reported under ``paused``; a later call goes on with it.

    Raises UsageError (a plan that cannot be, another plan in ``out``, arms of different schemas, an arm that refuses the city's
    requests), DataError (logs that are no city's).
    """
    out = Path(out)
    city = _city(Path(plan.logs))
    _check(plan, city)
    arms = {name: make_arm(url, token=token, patience_seconds=patience_seconds) for name, url in plan.arms.items()}
    _same_schemas(arms)
    _same_plan(plan, out)
    users = plan.first_user + np.arange(plan.users)
    blocks = [users[first : first + plan.block] for first in range(0, plan.users, plan.block)]
    before: dict[int, Outcome] = {}
    paused: dict[str, str] = {}
    seconds, requests = 0.0, 0
    for number, block in enumerate(blocks):
        cells = {name: _cell(out, name, number) for name in arms}
        own = {
            name: block if plan.design == "paired" else block[arm_of(block, plan, list(arms)) == i] for i, name in enumerate(arms)
        }
        waiting = [name for name in arms if not cells[name].exists() and name not in paused]
        earlier = _cell(out, "before", number)
        if waiting or not earlier.exists():
            past, then = past_lives(city, block, BEFORE_DAYS)
            _write(earlier, block, then)
        before[number] = _read(earlier)[1]
        if number == 0:
            visible = power(before[0], plan.users, 1 if plan.design == "paired" else len(arms))
            on_power(visible)
        for place, name in enumerate(waiting):
            done = (number + place / len(waiting)) / len(blocks)
            on_progress(f"{name}, users {block[0]} to {block[-1]}", done)
            lives = past if plan.design == "paired" else past_lives(city, own[name], 0)[0]
            began = time.monotonic()
            try:
                found = live(lives, arms[name], plan.days, draws=plan.draws)
            except ArmDown as error:
                paused[name] = str(error)
                continue
            if isinstance(arms[name], Server):
                seconds, requests = seconds + time.monotonic() - began, requests + int(found["requests"].sum())
            _write(cells[name], own[name], found)
    on_progress("effects", 1.0)
    content = _content(plan, out, list(arms), len(blocks), before, paused, visible)
    content["requests_per_second"] = requests / seconds if requests else None
    write_json(out / "experiment.json", content)
    write_experiment_report(out / "report.html", content)
    return content


def arm_of(users: npt.NDArray[np.int64], plan: Plan, names: list[str]) -> npt.NDArray[np.int64]:
    """int64 [users]: the arm of each in the split design, by a hash of seed and user."""
    return np.minimum((draws.uniform(draws.key(plan.seed, "arm", users)) * len(names)).astype(np.int64), len(names) - 1)


def _content(
    plan: Plan,
    out: Path,
    names: list[str],
    blocks: int,
    before: Mapping[int, Outcome],
    paused: Mapping[str, str],
    visible: Mapping[str, float | None],
) -> dict[str, Any]:
    lived: dict[str, tuple[npt.NDArray[np.int64], Outcome]] = {}
    earlier: dict[str, Outcome] = {}
    for place, name in enumerate(names):
        files = [(number, _cell(out, name, number)) for number in range(blocks)]
        parts = [(number, *_read(file)) for number, file in files if file.exists()]
        if not parts:
            continue
        users = np.concatenate([part[1] for part in parts])
        lived[name] = users, {m: np.concatenate([part[2][m] for part in parts]) for m in MEASURES}
        if plan.design == "split":
            kept = [(number, _read(_cell(out, "before", number))[0]) for number, *_ in parts]
            mine = [(number, arm_of(block, plan, names) == place) for number, block in kept]
            earlier[name] = {m: np.concatenate([before[number][m][rows] for number, rows in mine]) for m in MEASURES}
    if not lived:
        raise HemixError("no arm answered: " + "; ".join(f"{name}: {why}" for name, why in paused.items()))
    counts = {name: len(users) for name, (users, _) in lived.items()}
    content = {
        "schema_version": 1,
        "plan": asdict(plan),
        "users": counts,
        "paused": dict(paused),
        "power": dict(visible),
        **analyse(lived, paired=plan.design == "paired", before=earlier or None, expected=visible),
        "machine": machine(),
    }
    if plan.design == "split" and len(counts) > 1:
        p = sample_ratio_p(list(counts.values()))
        content["sample_ratio"] = {"p": p, "mismatch": p < _MISMATCH_P and not paused}
    return content


# -- what is checked first -----------------------------------------------------------------------------------------------------


def _city(logs: Path) -> City:
    path = logs / "truth" / "city.json"
    if not path.is_file():
        raise DataError(f"{path}: missing: --logs names a folder of hemix simulate, whose users live on")
    found = read_json(path, DataError)
    city = build_city(found["users"], found["days"], found["seed"])
    if city.parameters.fingerprint() != found["parameters"]:
        raise DataError(f"{path}: was simulated with other parameters than this version has; simulate anew")
    return city


def _check(plan: Plan, city: City) -> None:
    if not plan.arms:
        raise UsageError("--arm: expected at least one")
    if not 0 <= plan.first_user < city.users:
        raise UsageError(f"--first-user {plan.first_user}: expected 0 to {city.users - 1}: {plan.logs} has {city.users} users")
    if not 1 <= plan.users <= city.users - plan.first_user:
        raise UsageError(
            f"--users {plan.users}: expected 1 to {city.users - plan.first_user}, the users of {plan.logs}"
            + (f" from --first-user {plan.first_user} on" if plan.first_user else "")
        )
    if plan.days < 1:
        raise UsageError(f"--days {plan.days}: expected at least 1")
    for name in plan.arms:
        if name == "before" or not name.replace("_", "").replace("-", "").isalnum():
            raise UsageError(f"--arm {name}: expected a name of letters, digits, - and _, and not before")
    urls = [url for url in plan.arms.values() if url not in BUILT_IN]
    if len(set(urls)) < len(urls) and plan.design == "paired":
        raise UsageError("--arm: two arms of one server would share its histories; start one for each")


def _same_schemas(arms: Mapping[str, Arm]) -> None:
    found = dict[str, str]()
    for name, arm in arms.items():
        if isinstance(arm, Server):
            try:
                found[name] = arm.schema()
            except ArmDown as error:
                raise UsageError(f"--arm {name}: does not answer: {error}") from error
    first = next(iter(found), None)
    for name, schema in found.items():
        if first is not None and schema != found[first]:
            raise UsageError(f"--arm {name}: serves another schema ({schema}) than {first} ({found[first]})")


def _same_plan(plan: Plan, out: Path) -> None:
    path, asked = out / "plan.json", {k: v for k, v in asdict(plan).items() if k != "arms"} | {"arms": list(plan.arms)}
    if path.exists():
        found = read_json(path, DataError)
        for key, value in asked.items():
            if found.get(key) != value:
                raise UsageError(
                    f"--out {out}: holds an experiment with {key} {found.get(key)!r}, not {value!r}; name a new folder"
                )
        return
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"--out {out}: exists already and is not empty; name a new folder")
    with storage_errors(out):
        (out / "cells").mkdir(parents=True)
    write_json(path, asked)


# -- cells ---------------------------------------------------------------------------------------------------------------------


def _cell(out: Path, name: str, block: int) -> Path:
    return out / "cells" / f"{name}-{block:04d}.parquet"


def _write(path: Path, users: npt.NDArray[np.int64], outcome: Outcome) -> None:
    days = outcome["shown"].shape[1] if len(users) else 0
    table = pa.table(
        {
            "user": users,
            **{name: pa.array(list(values[: len(users)]), pa.list_(pa.float64())) for name, values in outcome.items()},
        }
    )
    part = path.with_name(f".{path.name}.part")
    with storage_errors(path):
        pq.write_table(table.replace_schema_metadata({"days": str(days)}), part)
        part.replace(path)


def _read(path: Path) -> tuple[npt.NDArray[np.int64], Outcome]:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: damaged: {error}; delete it to live that block again") from error
    days = int((table.schema.metadata or {})[b"days"])
    outcome = {name: np.array(table[name].to_pylist(), dtype=np.float64).reshape(table.num_rows, days) for name in MEASURES}
    return table["user"].to_numpy().astype(np.int64), outcome
