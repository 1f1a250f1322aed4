"""Functions that compare models: studies of many trainings, and simulated A/B tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hemix.api.types import PathLike, Progress, ignore_progress

if TYPE_CHECKING:
    from hemix.lab.abtest import ExperimentPlan
    from hemix.lab.studies.ablate import AblateConfig
    from hemix.lab.studies.compare import CompareConfig
    from hemix.lab.studies.options import StudyOptions
    from hemix.lab.studies.scale import ScaleConfig
    from hemix.lab.studies.suite import SuiteConfig

__all__ = ["ablate", "compare", "experiment", "scale", "suite"]


def compare(
    data: PathLike | Sequence[PathLike],
    out: PathLike,
    config: CompareConfig | None = None,
    *,
    options: StudyOptions | None = None,
) -> dict[str, Any]:
    """Compare models on the same data, with the same search and seeds, by paired differences.

    Writes compare.json and report.html.

    Args:
        data: A dataset folder, or several: other test periods of the same logs.
        out: The study's folder; a second call continues it.
        config: The models and their training; None: the defaults.
        options: How the trials run; None: the defaults.

    Returns:
        The content of compare.json.

    Raises:
        UsageError, SettingsError, DataError: Before anything is written.
        RunError: No trial finished.
    """
    from hemix.lab.studies.compare import compare as run_compare

    return run_compare(_paths(data), Path(out), config, options)


def suite(
    data: Sequence[PathLike],
    out: PathLike,
    config: SuiteConfig | None = None,
    *,
    options: StudyOptions | None = None,
) -> dict[str, Any]:
    """Compare models on several logs of different kinds, each model with its defaults.

    Writes suite.json and report.html.

    Args:
        data: Dataset folders, of any schemas.
        out: The study's folder; a second call continues it.
        config: The models and their training; None: the defaults.
        options: How the trials run; None: the defaults.

    Returns:
        The content of suite.json.

    Raises:
        UsageError, SettingsError, DataError: Before anything is written.
        RunError: No trial finished.
    """
    from hemix.lab.studies.suite import suite as run_suite

    return run_suite(_paths(data), Path(out), config, options)


def ablate(
    data: PathLike | Sequence[PathLike],
    out: PathLike,
    config: AblateConfig | None = None,
    *,
    options: StudyOptions | None = None,
) -> dict[str, Any]:
    """Compare HeMix with variants that lack or change one component.

    Writes ablate.json and report.html.

    Args:
        data: A dataset folder, or several: other test periods of the same logs.
        out: The study's folder; a second call continues it.
        config: The variants and their training; None: the defaults.
        options: How the trials run; None: the defaults.

    Returns:
        The content of ablate.json.

    Raises:
        UsageError, SettingsError, DataError: Before anything is written.
        RunError: No trial finished.
    """
    from hemix.lab.studies.ablate import ablate as run_ablate

    return run_ablate(_paths(data), Path(out), config, options)


def scale(
    data: PathLike,
    out: PathLike,
    config: ScaleConfig | None = None,
    *,
    options: StudyOptions | None = None,
) -> dict[str, Any]:
    """Train several sizes and history lengths, and fit scaling laws.

    Writes scale.json and report.html.

    Args:
        data: The dataset folder.
        out: The study's folder; a second call continues it.
        config: The sizes and lengths; None: the defaults.
        options: How the trials run; None: the defaults.

    Returns:
        The content of scale.json.

    Raises:
        UsageError, SettingsError, DataError: Before anything is written.
        RunError: No trial finished.
    """
    from hemix.lab.studies.scale import scale as run_scale

    return run_scale(Path(data), Path(out), config, options)


def _paths(data: PathLike | Sequence[PathLike]) -> list[PathLike]:
    return [data] if isinstance(data, str | Path) else list(data)


def experiment(
    plan: ExperimentPlan,
    out: PathLike,
    *,
    token: str | None = None,
    arm_timeout: float = 30.0,
    on_power: Callable[[Mapping[str, float | None]], None] = lambda _: None,
    on_progress: Progress = ignore_progress,
) -> dict[str, Any]:
    """Run or continue a simulated A/B test; writes experiment.json and report.html.

    Args:
        plan: The arms, users and days.
        out: Folder of the experiment; a second call with the same plan continues it.
        token: Token of the servers.
        arm_timeout: Seconds after which a server without an answer is paused.
        on_power: Called with the detectable relative difference by metric.
        on_progress: Called with the stage and its completed fraction.

    Returns:
        The content of experiment.json.

    Raises:
        UsageError: For an invalid plan, or arms that cannot be compared.
        DataError: If the logs are not those of a simulated city, or a result is damaged.
    """
    from hemix.lab.abtest import experiment as run_experiment

    return run_experiment(
        plan,
        out,
        token=token,
        arm_timeout=arm_timeout,
        on_power=on_power,
        on_progress=on_progress,
    )
