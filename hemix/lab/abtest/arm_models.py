"""The models behind the arms, as plan.json records them.

All servers must serve one schema, and an arm must keep its model for the whole experiment.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hemix.errors import UsageError
from hemix.files import out_exists, storage_errors
from hemix.lab.abtest.arm_results import RESULTS_FOLDER
from hemix.lab.abtest.arms import Arm, ArmUnavailable
from hemix.lab.abtest.plan import EXPERIMENT_FORMAT, ExperimentPlan

__all__ = ["model_change", "query_models", "read_models", "write_plan"]

Models = dict[str, dict[str, Any]]
"""By arm: the model's name, and of a server its version, schema and hash."""


def read_models(plan: ExperimentPlan, out: Path) -> Models:
    """Read the models of an earlier call.

    Args:
        plan: Plan of this call.
        out: Folder of the experiment.

    Returns:
        Models by arm; none if the experiment is new.

    Raises:
        UsageError: If ``out`` holds another plan or other files.
    """
    path = out / "plan.json"
    if not path.exists():
        if out.exists() and any(out.iterdir()):
            raise out_exists(out)
        return {}
    earlier = EXPERIMENT_FORMAT.read(path)
    for key, value in _plan_content(plan).items():
        if earlier.get(key) != value:
            raise UsageError(
                f"--out {out}: holds an experiment with {key} {earlier.get(key)!r}, not {value!r}",
                code="out_exists",
                field="--out",
                hint="name a new folder",
            )
    models: Models = earlier.get("models", {})
    return models


def query_models(arms: Mapping[str, Arm], known: Models) -> tuple[Models, dict[str, str]]:
    """Ask the arms for their models.

    Args:
        arms: Arms to ask, by name.
        known: Models of earlier calls, by arm.

    Returns:
        The models of all known and answering arms, and the reasons of unavailable ones, by arm.

    Raises:
        UsageError: If an arm has another model than before, or another schema than other arms.
    """
    models, unavailable = dict(known), dict[str, str]()
    for name, arm in arms.items():
        try:
            models[name] = arm.model()
        except ArmUnavailable as error:
            unavailable[name] = str(error)
            continue
        if name in known and models[name] != known[name]:
            raise UsageError(
                f"--arm {name}: {model_change(known[name], models[name])}",
                code="other_model",
                field="--arm",
                hint="serve the first one, or name a new --out",
            )
    _check_schemas(models)
    return models, unavailable


def _check_schemas(models: Models) -> None:
    schemas = {name: model["schema"] for name, model in models.items() if "schema" in model}
    first = next(iter(schemas), None)
    for name, schema in schemas.items():
        if first is not None and schema != schemas[first]:
            raise UsageError(
                f"--arm {name}: serves schema {schema}, but --arm {first} serves {schemas[first]}; "
                "all arms need one schema",
                code="other_schema",
                field="--arm",
            )


def model_change(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Describe the change of an arm's model.

    Args:
        before: Model with which the arm began.
        now: Model that the arm has now.

    Returns:
        A clause that names both.
    """
    return f"the model changed from {_model_name(before)} to {_model_name(now)}"


def _model_name(model: Mapping[str, Any]) -> str:
    if "version" not in model:
        return str(model["name"])
    details = [str(model["version"])]
    if model.get("sha256"):
        details.append(str(model["sha256"])[:8])
    return f"{model['name']} ({', '.join(details)})"


def write_plan(plan: ExperimentPlan, out: Path, models: Models) -> None:
    """Create the experiment's folder and write plan.json.

    Args:
        plan: Plan of the experiment.
        out: Folder of the experiment.
        models: Models by arm.

    Raises:
        StorageError: If the disk cannot be written.
    """
    with storage_errors(out):
        (out / RESULTS_FOLDER).mkdir(parents=True, exist_ok=True)
    EXPERIMENT_FORMAT.write(out / "plan.json", {**_plan_content(plan), "models": models})


def _plan_content(plan: ExperimentPlan) -> dict[str, Any]:
    # servers may move between calls, so URLs are no part of the plan
    return plan.to_json() | {"arms": list(plan.arms)}
