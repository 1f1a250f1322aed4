"""Studies: their plan and trials while they run, then models and differences as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hemix.display.tables import (
    format_metric,
    render_table,
    text_table,
    undefined_difference_lines,
)
from hemix.evaluation.wording import BASELINE_NAMES, size

if TYPE_CHECKING:
    from hemix.display.progress import Display
    from hemix.lab.studies.options import StudyPlan

__all__ = ["StudyDisplay", "laws_table", "study_table", "suite_table"]

_METRICS = (
    ("AUC", "auc", ".4f"),
    ("GAUC", "gauc", ".4f"),
    ("log loss", "logloss", ".4f"),
    ("PCOC", "pcoc", ".3f"),
    ("ECE", "ece", ".4f"),
    ("floor", "ece_floor", ".4f"),
)
"""(title, key, format) of every column of metrics."""


class StudyDisplay:
    """Shows the plan of a study, then a line for every trial that starts or ends."""

    def __init__(self, display: Display) -> None:
        self._display = display

    def on_plan(self, plan: StudyPlan) -> None:
        """Print the stages with their estimated cost."""
        for stage in plan.stages:
            unknown = f"; cost unknown: {', '.join(stage.unknown)}" if stage.unknown else ""
            self._display.print(
                f"{stage.stage}: {stage.trials} trials, {stage.finished} finished; "
                f"about {stage.seconds / 3600:.2f} core hours{unknown}"
            )
        self._display.print(
            f"{plan.jobs} at a time with {plan.threads} threads each: about {plan.hours:.2f} hours"
        )

    def on_trial(self, message: str, done: int, total: int) -> None:
        """Print the start, end or failure of a trial.

        Args:
            message: What happened.
            done: How many trials are done.
            total: How many trials the study has.
        """
        self._display.print(f"{done} of {total}: {message}")


def study_table(content: Mapping[str, Any]) -> str:
    """A comparison: the metrics of every model, then the differences, the primary pair first.

    ``content`` is compare.json.
    """
    tasks = list(next(iter(content["models"].values()))["tasks"])
    undefined = [pair for pair in content.get("absent_pairs", ()) if pair["task"] == tasks[0]]
    return "\n".join(
        [
            *(_models_table(content, task) for task in tasks),
            *_differences_table(content["pairs"], tasks[0]),
            *undefined_difference_lines(undefined, "a", "b"),
            *_failure_lines(content),
        ]
    )


def suite_table(content: Mapping[str, Any]) -> str:
    """A suite: a metric a table, rows logs; then the differences. ``content`` is suite.json."""
    from hemix.lab.studies.suite_report import METRIC_TITLES, metric_rows, suite_headline

    tables = []
    for metric, title in METRIC_TITLES.items():
        labels, rows = metric_rows(content, metric)
        names = [BASELINE_NAMES.get(label, label) for label in labels]
        table = text_table(f"{content['split']}: {title}", ["log", *names], left=["log"])
        for name, *values in rows:
            table.add_row(name, *(format_metric(value, ".4f") for value in values))
        tables.append(render_table(table))
    pairs = text_table(
        f"differences from {content['reference']}",
        ["log", "a - b", "metric", "difference", "95 % interval", "p (Holm)"],
        left=["log", "a - b"],
    )
    for name, log in content["logs"].items():
        for pair in log["pairs"]:
            low, high = pair["ci95"]
            pairs.add_row(
                name,
                f"{pair['a']} - {pair['b']}",
                pair["metric"],
                f"{pair['delta']:+.4f}",
                f"{low:+.4f} to {high:+.4f}",
                f"{pair['p_holm']:.2g}",
            )
    return "\n".join(
        [*tables, render_table(pairs), suite_headline(content), *_failure_lines(content)]
    )


def laws_table(content: Mapping[str, Any]) -> str:
    """A scaling study: every size and length, then the fitted laws. ``content`` is scale.json."""
    first = next(iter(next(iter(content["models"].values()))["tasks"]))
    columns = ["", "dense parameters", "FLOPs an impression", f"AUC {first}", "log loss"]
    table = text_table(f"{content['split']}: sizes and lengths", columns, left=[""])
    for label, model in content["models"].items():
        means = (model["tasks"][first].get(key, {}).get("mean") for key in ("auc", "logloss"))
        table.add_row(
            label,
            f"{model['dense_parameters']:,}",
            f"{model['flops_per_impression']:,.0f}",
            *(format_metric(mean, ".4f") for mean in means),
        )
    fits = [
        f"{fit['task']}, {fit['fitted']} against {fit['axis'].replace('_', ' ')}: {fit['reading']}"
        for fit in content["fits"]
    ]
    return "\n".join([render_table(table), *fits, *_failure_lines(content)])


def _models_table(content: Mapping[str, Any], task: str) -> str:
    titles = [title for title, _, _ in _METRICS]
    table = text_table(
        f"{content['split']}: {task.replace('_', ' ')}",
        ["", *titles, "seconds", "peak memory", "dense parameters"],
        left=[""],
    )
    for label, model in content["models"].items():
        means = {name: metric["mean"] for name, metric in model["tasks"][task].items()}
        table.add_row(
            label,
            *(format_metric(means.get(key), form) for _, key, form in _METRICS),
            f"{model['train_seconds']:,.0f}",
            size(model["peak_bytes"]),
            f"{model['dense_parameters']:,}",
        )
    return render_table(table)


def _differences_table(pairs: Sequence[Mapping[str, Any]], task: str) -> list[str]:
    """The table of AUC and log loss differences; none without a pair."""
    shown = [p for p in pairs if p["task"] == task and p["metric"] in ("auc", "logloss")]
    if not shown:
        return []
    columns = ["a - b", "metric", "difference", "95 % interval", "p (Holm)"]
    table = text_table(f"differences of {task.replace('_', ' ')}", columns, left=["a - b"])
    for pair in shown:
        low, high = pair["ci95"]
        table.add_row(
            f"{pair['a']} - {pair['b']}",
            pair["metric"],
            f"{pair['delta']:+.5f}",
            f"{low:+.5f} to {high:+.5f}",
            f"{pair['p']:.2g} primary" if pair["primary"] else f"{pair['p_holm']:.2g}",
        )
    return [render_table(table)]


def _failure_lines(content: Mapping[str, Any]) -> list[str]:
    return [f"failed: {failure['trial']}: {failure['error']}" for failure in content["failed"]]
