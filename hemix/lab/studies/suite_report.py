"""``report.html`` of a suite: one table a metric, rows logs, columns models and trivial rules."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hemix.evaluation import wording
from hemix.evaluation.report import render
from hemix.files import write_text
from hemix.lab.studies.report import study_conditions

__all__ = ["METRIC_TITLES", "metric_rows", "suite_headline", "write_suite_report"]

METRIC_TITLES = {"auc": "AUC", "logloss": "log loss"}


def write_suite_report(path: Path, content: Mapping[str, Any]) -> None:
    """Write the report of a suite, atomically.

    Args:
        path: The HTML file.
        content: The content of suite.json.

    Raises:
        StorageError: The file cannot be written.
    """
    tables = [_metric_table(content, metric, title) for metric, title in METRIC_TITLES.items()]
    text = (
        f"Means over seeds on the {content['split']} split, of the first label of each log. The "
        "trivial rules are learned from train alone."
    )
    sections = [
        {"title": "All logs", "text": text, "charts": [], "tables": tables},
        {"title": "Differences", "text": "", "charts": [], "tables": [_pair_table(content)]},
    ]
    if content["failed"]:
        rows = [[failure["trial"], failure["error"]] for failure in content["failed"]]
        table = {"title": "", "columns": ["trial", "error"], "rows": rows}
        sections.append({"title": "Failures", "text": "", "charts": [], "tables": [table]})
    trials = [
        trial
        for log in content["logs"].values()
        for model in log["models"].values()
        for trial in model["trials"]
    ]
    page = render(
        "study.html.j2",
        package="hemix.lab",
        kicker=f"Suite · {content['split']} split",
        title="Models on several logs",
        headline=suite_headline(content),
        sections=sections,
        facts=study_conditions(content, trials),
        glossary=(*wording.GLOSSARY, _HOLM),
    )
    write_text(path, page)


_HOLM = (
    "Holm",
    "The p-value adjusted for all models and logs of one metric. With 0.05 as the threshold, the "
    "chance of any false claim in the suite is below 5 %.",
)


def metric_rows(content: Mapping[str, Any], metric: str) -> tuple[list[str], list[list[Any]]]:
    """Arrange a metric of all logs.

    Args:
        content: The content of suite.json.
        metric: ``auc`` or ``logloss``.

    Returns:
        The labels of models and then of trivial rules; and by log its name and their values, None
        where there is none.
    """
    logs: Mapping[str, Any] = content["logs"]
    models = list(dict.fromkeys(label for log in logs.values() for label in log["models"]))
    rules = [
        name
        for name in wording.BASELINE_NAMES
        if any(name in log["baselines"] for log in logs.values())
    ]
    rows: list[list[Any]] = []
    for name, log in logs.items():
        row: list[Any] = [name]
        for label in models:
            tasks = log["models"].get(label, {}).get("tasks", {})
            row.append(tasks.get(log["task"], {}).get(metric, {}).get("mean"))
        row += [log["baselines"].get(rule, {}).get(metric) for rule in rules]
        rows.append(row)
    return [*models, *rules], rows


def suite_headline(content: Mapping[str, Any]) -> str:
    """Summarise on how many logs the reference is first, level and behind, by AUC."""
    reference, logs = content["reference"], content["logs"]
    first = behind = 0
    for log in logs.values():
        means = {
            label: model["tasks"][log["task"]]["auc"]["mean"]
            for label, model in log["models"].items()
            if "auc" in model["tasks"].get(log["task"], {})
        }
        first += bool(means) and max(means, key=lambda label: means[label]) == reference
        behind += any(pair["metric"] == "auc" and pair["ci95"][1] < 0 for pair in log["pairs"])
    name = wording.MODEL_NAMES.get(reference, reference)
    return (
        f"{name} has the highest AUC on {first} of {len(logs)} logs. On {behind} an interval of a "
        "difference is against it."
    )


def _metric_table(content: Mapping[str, Any], metric: str, title: str) -> dict[str, Any]:
    labels, rows = metric_rows(content, metric)
    names = {**wording.MODEL_NAMES, **wording.BASELINE_NAMES}
    return {
        "title": title,
        "columns": ["log", *(names.get(label, label) for label in labels)],
        "rows": [[name, *(wording.fixed(value) for value in values)] for name, *values in rows],
    }


def _pair_table(content: Mapping[str, Any]) -> dict[str, Any]:
    rows = [
        [
            name,
            f"{wording.MODEL_NAMES.get(pair['a'], pair['a'])} − "
            f"{wording.MODEL_NAMES.get(pair['b'], pair['b'])}",
            METRIC_TITLES[pair["metric"]],
            f"{pair['delta']:+.4f}",
            f"{pair['ci95'][0]:+.4f} to {pair['ci95'][1]:+.4f}",
            f"{pair['p_holm']:.2g}",
        ]
        for name, log in content["logs"].items()
        for pair in log["pairs"]
    ]
    columns = ["log", "models", "metric", "difference", "95 % interval", "Holm"]
    return {"title": "", "columns": columns, "rows": rows}
