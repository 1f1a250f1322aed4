"""``hemix experiment``: users of a simulated city live with several arms; what came of it, with
intervals.

    OUT/
      plan.json            what was asked for and which models were behind the arms: a second call
                           with the same goes on
      power.json           what differences so many users can show, from a few of them
      cells/ARM-0003.parquet   users of block 3 in an arm, by day; written when the block is over,
                               never run again
      cells/before-0003.parquet   the same users in the last logged days, which one policy served
      experiment.json  report.html

Paired: every user lives in every arm's own copy of the city, from the same past. Split: users are
divided among the arms by a hash.
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
from hemix.lab.abtest.arms import Arm, ArmDown, Oracle, Popularity, make_arm
from hemix.lab.abtest.block import Block, Done, Progress
from hemix.lab.abtest.cells import Cell, cell_path, read_cell, write_cell
from hemix.lab.abtest.checks import same_for_all, shares
from hemix.lab.abtest.living import MEASURES, live, past_lives
from hemix.lab.abtest.meeting import keep_plan, known_models, meet
from hemix.lab.abtest.plan import BEFORE_DAYS, Plan, check_plan, city_of
from hemix.lab.abtest.report import write_experiment_report
from hemix.lab.simulator.city import City
from hemix.lab.simulator.simulation import UserSimulation
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
    """Run or continue an experiment; writes and returns experiment.json.

    An arm that does not answer, refuses what the city sends or serves another model all of a sudden
    is left out from there on and reported under ``paused``; a later call continues with it. An arm
    whose users have all lived is not asked for anything.

    Args:
        plan: Users, days and arms.
        out: The experiment's folder; a second call with the same plan continues it.
        token: For the arms' servers.
        patience_seconds: How long an arm may not answer.
        on_power: Called with the differences that so many users can show.
        on_progress: Called with what is being done and the part of it that is done, 0 to 1.

    Raises:
        UsageError: For a plan that cannot be, another plan in ``out``, arms of different schemas,
            another model behind an arm than before, or no arm that answers.
        DataError: For logs that are not a simulated city's.
    """
    out, city = Path(out), city_of(Path(plan.logs))
    check_plan(plan, city)
    arms = {
        name: make_arm(url, token=token, patience_seconds=patience_seconds)
        for name, url in plan.arms.items()
    }
    users = plan.first_user + np.arange(plan.users)
    blocks = [users[first : first + plan.block] for first in range(0, plan.users, plan.block)]
    models, paused = _meet_arms(plan, out, arms, len(blocks))
    detectable: dict[str, float | None] = {}
    spans: list[tuple[float, float, float]] = []
    for number, block in enumerate(blocks):
        waiting = _waiting_arms(out, arms, paused, number)
        lives = _past_of_block(out, city, number, block, lives_needed=bool(waiting))
        if number == 0:
            detectable = _power(plan, out, lives or past_lives(city, block, 0)[0])
            on_power(detectable)
        width = 1 / max(len(waiting), 1) / len(blocks)
        living = Block(
            plan=plan,
            out=out,
            city=city,
            number=number,
            users=block,
            lives=lives,
            done=Done(on_progress, number / len(blocks), width, _rate(spans)),
        )
        cells, failures = _live_in_arms(living, waiting, arms, models)
        paused |= failures
        spans += _spans(cells)
    on_progress("effects", 1.0)
    content = _content(plan, out, len(blocks), paused, detectable) | _facts(models)
    write_json(out / "experiment.json", content)
    write_experiment_report(out / "report.html", content)
    return content


def _meet_arms(
    plan: Plan, out: Path, arms: Mapping[str, Arm], blocks: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """The models behind the arms, and why an arm is paused; writes plan.json.

    Raises UsageError where no arm answers and none has lived a block.
    """
    known = known_models(plan, out)
    left = {
        name: [n for n in range(blocks) if not cell_path(out, name, n).exists()] for name in arms
    }
    models, paused = meet({name: arm for name, arm in arms.items() if left[name]}, known)
    if len(paused) == len(arms) and all(len(left[name]) == blocks for name in arms):
        reasons = (f"--arm {name}: does not answer: {why}" for name, why in paused.items())
        raise UsageError("; ".join(reasons))
    keep_plan(plan, out, models)
    return models, paused


def _facts(models: Mapping[str, Any]) -> dict[str, Any]:
    """What the experiment ran with."""
    versions = {"hemix": version("hemix"), "torch": version("torch")}
    return {"models": models, "versions": versions, "machine": machine()}


def _waiting_arms(
    out: Path, arms: Mapping[str, Arm], paused: Mapping[str, str], number: int
) -> list[str]:
    """The arms in which a block has not lived yet and that answer."""
    names = (name for name in arms if name not in paused)
    return [name for name in names if not cell_path(out, name, number).exists()]


def _past_of_block(
    out: Path, city: City, number: int, block: Ints, *, lives_needed: bool
) -> UserSimulation | None:
    """The past of a block's users, whose last logged days are kept; None where nobody needs it."""
    earlier = cell_path(out, "before", number)
    if not lives_needed and earlier.exists():
        return None
    lives, outcome = past_lives(city, block, BEFORE_DAYS)
    write_cell(earlier, Cell(users=block, outcome=outcome))
    return lives


def _live_in_arms(
    living: Block, waiting: list[str], arms: Mapping[str, Arm], models: Mapping[str, Any]
) -> tuple[list[Cell], dict[str, str]]:
    """The results of the arms in which a block has lived, and why others are down."""
    cells, failures = list[Cell](), dict[str, str]()
    # a server answers few requests at a time: one arm after another would leave cores idle
    with ThreadPoolExecutor(_ARMS_AT_ONCE, thread_name_prefix="hemix-lives") as pool:
        try:
            answers = {
                name: pool.submit(living.lived, name, arms[name], models[name]) for name in waiting
            }
            for name, answer in answers.items():
                try:
                    cells.append(answer.result())
                except ArmDown as error:
                    failures[name] = str(error)
        except BaseException:  # Ctrl-C does not wait for the end of the block
            pool.shutdown(wait=False, cancel_futures=True)
            for arm in arms.values():
                arm.stop()
            raise
    return cells, failures


def _spans(cells: Collection[Cell]) -> list[tuple[float, float, float]]:
    """(began, ended, rankings) of every cell that a server has served."""
    return [
        (*cell.span, float(cell.outcome["requests"].sum()))
        for cell in cells
        if cell.span is not None
    ]


def _rate(spans: Collection[tuple[float, float, float]]) -> float | None:
    """Rankings a second of (began, ended, rankings), which overlap; time in which nobody lived does
    not count.
    """
    seconds = until = 0.0
    for began, ended, _ in sorted(spans):
        seconds += max(ended - max(began, until), 0.0)
        until = max(until, ended)
    return sum(rankings for *_, rankings in spans) / seconds if seconds else None


def _power(plan: Plan, out: Path, past: UserSimulation) -> dict[str, float | None]:
    """Kept in power.json: what a block of users does with the oracle and with popularity, for as
    many days as planned.
    """
    path = out / "power.json"
    if path.exists():
        kept: dict[str, float | None] = read_json(path, DataError)
        return kept
    pilots = [live(past, arm, plan.days, draws=plan.draws) for arm in (Oracle(), Popularity())]
    found = power(
        pilots[0], pilots[1], plan.users, None if plan.design == "paired" else len(plan.arms)
    )
    write_json(path, found)
    return found


def _content(
    plan: Plan,
    out: Path,
    blocks: int,
    paused: Mapping[str, str],
    visible: Mapping[str, float | None],
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
        earlier[name] = {
            m: np.concatenate([before[number].outcome[m][of] for number, of in rows.items()])
            for m in MEASURES
        }
        spans += _spans(cells.values())
    if not lived:
        raise HemixError(
            "no arm answered: " + "; ".join(f"{name}: {why}" for name, why in paused.items())
        )
    split = plan.design == "split"
    found = analyse(lived, paired=not split, before=earlier if split else None, expected=visible)
    # Split: no arm has all users, so the last of the days before stand for one; the first of them
    # are what was before.
    users, then = _joined(list(before.values()))
    one = None if split else next(iter(lived))
    aa = (
        same_for_all(
            users, {m: v[:, 1:] for m, v in then.items()}, {m: v[:, :1] for m, v in then.items()}
        )
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
            "sample_ratio": shares(counts, complete=not paused)
            if split and len(counts) > 1
            else None,
            "aa": {"of": one or "the days before", **aa},
        },
        "rankings_per_second": _rate(spans),
    }


def _joined(cells: list[Cell]) -> tuple[Ints, Outcome]:
    return (
        np.concatenate([cell.users for cell in cells]),
        {m: np.concatenate([cell.outcome[m] for cell in cells]) for m in MEASURES},
    )
