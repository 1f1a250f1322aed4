"""``hemix experiment``: users of a simulated city live with several arms; what came of it, with intervals.

    OUT/
      plan.json            what was asked for and which models were behind the arms: a second call with the same goes on
      power.json           what differences so many users can show, from a few of them
      cells/ARM-0003.parquet   users of block 3 in an arm, by day; written when the block is over, never run again
      cells/before-0003.parquet   the same users in the last logged days, which one policy served
      experiment.json  report.html

Paired: every user lives in every arm's own copy of the city, from the same past. Split: users are divided among the arms by a hash.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hemix.errors import DataError, HemixError, UsageError
from hemix.files import read_json, write_json
from hemix.lab.abtest.analysis import Outcome, analyse, power
from hemix.lab.abtest.arms import ArmDown, Oracle, Popularity, make_arm
from hemix.lab.abtest.block import Block, Done, Progress
from hemix.lab.abtest.cells import Cell, cell_path, read_cell, write_cell
from hemix.lab.abtest.checks import same_for_all, shares
from hemix.lab.abtest.living import MEASURES, live, past_lives
from hemix.lab.abtest.meeting import keep_plan, known_models, meet
from hemix.lab.abtest.plan import BEFORE_DAYS, Plan, check_plan, city_of
from hemix.lab.abtest.report import write_experiment_report
from hemix.lab.simulator.life import Lives
from hemix.measure import machine

__all__ = ["experiment"]

Ints = npt.NDArray[np.int64]

_ARMS_AT_ONCE = 2


def experiment(
    plan: Plan,
    out: str | Path,
    *,
    token: str | None = None,
    patience_seconds: float = 30.0,
    on_power: Callable[[Mapping[str, float | None]], None] = lambda _: None,
    on_progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Run or go on; writes and returns experiment.json. An arm that does not answer for ``patience_seconds``, refuses what the city
    sends or serves another model all of a sudden is left out from there on and reported under ``paused``; a later call goes on with
    it. An arm whose users have all lived is not asked for anything.

    Raises UsageError (a plan that cannot be, another plan in ``out``, arms of different schemas, another model behind an arm than
    before, no arm that answers), DataError (logs that are no city's).
    """
    out = Path(out)
    city = city_of(Path(plan.logs))
    check_plan(plan, city)
    arms = {name: make_arm(url, token=token, patience_seconds=patience_seconds) for name, url in plan.arms.items()}
    users = plan.first_user + np.arange(plan.users)
    blocks = [users[first : first + plan.block] for first in range(0, plan.users, plan.block)]
    known = known_models(plan, out)
    left = {name: [n for n in range(len(blocks)) if not cell_path(out, name, n).exists()] for name in arms}
    models, paused = meet({name: arm for name, arm in arms.items() if left[name]}, known)
    if len(paused) == len(arms) and all(len(left[name]) == len(blocks) for name in arms):
        raise UsageError("; ".join(f"--arm {name}: does not answer: {why}" for name, why in paused.items()))
    keep_plan(plan, out, models)
    visible: dict[str, float | None] = {}
    spans: list[tuple[float, float, float]] = []
    for number, block in enumerate(blocks):
        waiting = [name for name in arms if number in left[name] and name not in paused]
        earlier = cell_path(out, "before", number)
        lives: Lives | None = None
        if waiting or not earlier.exists():
            lives, then = past_lives(city, block, BEFORE_DAYS)
            write_cell(earlier, Cell(users=block, outcome=then))
        if number == 0:
            visible = _power(plan, out, lives or past_lives(city, block, 0)[0])
            on_power(visible)
        done = Done(on_progress, number / len(blocks), 1 / max(len(waiting), 1) / len(blocks), _rate(spans))
        living = Block(plan=plan, out=out, city=city, number=number, users=block, lives=lives, done=done)
        cells = list[Cell]()
        # a server answers few requests at a time: with one arm after another most of the machine would wait
        with ThreadPoolExecutor(_ARMS_AT_ONCE, thread_name_prefix="hemix-lives") as pool:
            try:
                answers = {name: pool.submit(living.lived, name, arms[name], models[name]) for name in waiting}
                for name, answer in answers.items():
                    try:
                        cells.append(answer.result())
                    except ArmDown as error:
                        paused[name] = str(error)
            except BaseException:  # one who stops the whole waits for no block to end
                pool.shutdown(wait=False, cancel_futures=True)
                for arm in arms.values():
                    arm.stop()
                raise
        spans += [(*cell.span, float(cell.outcome["requests"].sum())) for cell in cells if cell.span is not None]
    on_progress("effects", 1.0)
    content = _content(plan, out, len(blocks), paused, visible)
    content |= {"models": models, "versions": {"hemix": version("hemix"), "torch": version("torch")}, "machine": machine()}
    write_json(out / "experiment.json", content)
    write_experiment_report(out / "report.html", content)
    return content


def _rate(spans: Collection[tuple[float, float, float]]) -> float | None:
    """Rankings a second of (began, ended, rankings), which overlap; time in which nobody lived does not count."""
    seconds = until = 0.0
    for began, ended, _ in sorted(spans):
        seconds += max(ended - max(began, until), 0.0)
        until = max(until, ended)
    return sum(rankings for *_, rankings in spans) / seconds if seconds else None


def _power(plan: Plan, out: Path, past: Lives) -> dict[str, float | None]:
    """Kept in power.json: what a block of users does with the oracle and with popularity, for as many days as planned."""
    path = out / "power.json"
    if path.exists():
        kept: dict[str, float | None] = read_json(path, DataError)
        return kept
    pilots = [live(past, arm, plan.days, draws=plan.draws) for arm in (Oracle(), Popularity())]
    found = power(pilots[0], pilots[1], plan.users, None if plan.design == "paired" else len(plan.arms))
    write_json(path, found)
    return found


def _content(
    plan: Plan, out: Path, blocks: int, paused: Mapping[str, str], visible: Mapping[str, float | None]
) -> dict[str, Any]:
    before = {number: read_cell(cell_path(out, "before", number)) for number in range(blocks)}
    lived = dict[str, tuple[Ints, Outcome]]()
    earlier = dict[str, Outcome]()
    spans: list[tuple[float, float, float]] = []
    for name in plan.arms:
        files = {number: cell_path(out, name, number) for number in range(blocks)}
        cells = {number: read_cell(file) for number, file in files.items() if file.exists()}
        if not cells:
            continue
        lived[name] = _joined(list(cells.values()))
        rows = {number: np.isin(before[number].users, cell.users) for number, cell in cells.items()}
        earlier[name] = {m: np.concatenate([before[number].outcome[m][of] for number, of in rows.items()]) for m in MEASURES}
        spans += [(*cell.span, float(cell.outcome["requests"].sum())) for cell in cells.values() if cell.span is not None]
    if not lived:
        raise HemixError("no arm answered: " + "; ".join(f"{name}: {why}" for name, why in paused.items()))
    split = plan.design == "split"
    found = analyse(lived, paired=not split, before=earlier if split else None, expected=visible)
    # Split: no arm has all users, so the last of the days before stand for one; the first of them are what was before.
    users, then = _joined(list(before.values()))
    one = None if split else next(iter(lived))
    aa = (
        same_for_all(users, {m: v[:, 1:] for m, v in then.items()}, {m: v[:, :1] for m, v in then.items()})
        if one is None
        else same_for_all(lived[one][0], lived[one][1], earlier[one])
    )
    counts = {name: len(own) for name, (own, _) in lived.items()}
    return {
        "schema_version": 1,
        "plan": asdict(plan),
        "paused": dict(paused),
        "power": dict(visible),
        **found,
        "checks": {
            "sample_ratio": shares(counts, complete=not paused) if split and len(counts) > 1 else None,
            "aa": {"of": one or "the days before", **aa},
        },
        "rankings_per_second": _rate(spans),
    }


def _joined(cells: list[Cell]) -> tuple[Ints, Outcome]:
    return (
        np.concatenate([cell.users for cell in cells]),
        {m: np.concatenate([cell.outcome[m] for cell in cells]) for m in MEASURES},
    )
