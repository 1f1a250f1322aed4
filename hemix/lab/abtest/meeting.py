"""Who stands behind the arms: which of them answer, that all serve one schema, and that a later
call meets the same models again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hemix.errors import UsageError
from hemix.files import storage_errors
from hemix.lab.abtest.arms import Arm, ArmDown
from hemix.lab.abtest.plan import EXPERIMENT_FORMAT, Plan

__all__ = ["keep_plan", "known_models", "meet", "stranger"]

Models = dict[str, dict[str, Any]]
"""By arm what it said of itself: name, and of a server version, schema and hash"""


def known_models(plan: Plan, out: Path) -> Models:
    """The models of an earlier call in ``out``; none where there was none.

    Raises UsageError if that call was of another plan.
    """
    path = out / "plan.json"
    if not path.exists():
        if out.exists() and any(out.iterdir()):
            raise UsageError(f"--out {out}: exists already and is not empty; name a new folder")
        return {}
    found = EXPERIMENT_FORMAT.read(path)
    for key, value in _asked(plan).items():
        if found.get(key) != value:
            raise UsageError(
                f"--out {out}: holds an experiment with {key} {found.get(key)!r}, not {value!r}; "
                "name a new folder"
            )
    models: Models = found.get("models", {})
    return models


def meet(arms: Mapping[str, Arm], known: Models) -> tuple[Models, dict[str, str]]:
    """(models of all arms ever met, why an arm does not answer).

    Raises UsageError for another schema than the other arms', or another model than an arm had
    before.
    """
    models, down = dict(known), dict[str, str]()
    for name, arm in arms.items():
        try:
            models[name] = arm.model()
        except ArmDown as error:
            down[name] = str(error)
            continue
        if name in known and models[name] != known[name]:
            raise UsageError(
                f"--arm {name}: {stranger(models[name], known[name])}; serve that one, or name a "
                "new --out"
            )
    schemas = {name: model["schema"] for name, model in models.items() if "schema" in model}
    first = next(iter(schemas), None)
    for name, schema in schemas.items():
        if first is not None and schema != schemas[first]:
            raise UsageError(
                f"--arm {name}: serves another schema ({schema}) than {first} ({schemas[first]})"
            )
    return models, down


def stranger(found: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """The words for a model that is not the one that an arm's users began with."""
    return f"its users began with {_name(known)}, and it is {_name(found)} now"


def _name(model: Mapping[str, Any]) -> str:
    more = (
        [str(model["version"]), *([str(model["sha256"])[:8]] if model.get("sha256") else [])]
        if "version" in model
        else []
    )
    return f"{model['name']} ({', '.join(more)})" if more else str(model["name"])


def keep_plan(plan: Plan, out: Path, models: Models) -> None:
    """Make ``out`` and write what was asked for and who is behind it. Raises StorageError."""
    with storage_errors(out):
        (out / "cells").mkdir(parents=True, exist_ok=True)
    EXPERIMENT_FORMAT.write(out / "plan.json", {**_asked(plan), "models": models})


def _asked(plan: Plan) -> dict[str, Any]:
    return asdict(plan) | {"arms": list(plan.arms)}
