"""``report.html``: one file that says to a person what a model was, what it cost and how good it
is.

It reads what a run folder already holds (metrics.json, log.jsonl, settings, the dataset's manifest)
as plain values, leaves out the sections for which there is nothing, and needs no network. It knows
nothing of models or datasets.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hemix.evaluation import charts, wording
from hemix.files import write_text

__all__ = ["render", "render_report", "write_report"]

_DAY, _MINUTE = "%Y-%m-%d", "%Y-%m-%d %H:%M"
_JOINS = {
    "users": "impressions whose user is in the user table",
    "items": "impressions whose item is in the item table",
    "event_users": "events whose user is in the impressions",
    "event_items": "events whose item is in the impressions or the item table",
}
_MOST_BARS = 25
_LEAST_POSITIVES = 10
"""Slices with fewer positives (or negatives) show no AUC: it would be noise."""

_SETTINGS_OF_INTEREST = (
    ("train", "seed", "seed"),
    ("train", "epochs", "epochs"),
    ("train", "batch_size", "impressions a step"),
    ("train", "table_optimizer", "tables’ optimiser"),
    ("train", "precision", "precision"),
    ("train", "device", "device"),
)


def write_report(
    path: Path,
    *,
    metrics: Mapping[str, Any],
    log: Sequence[Mapping[str, Any]] = (),
    settings: Mapping[str, Any] | None = None,
    manifest: Mapping[str, Any] | None = None,
    info: Mapping[str, Any] | None = None,
    split: str | None = None,
) -> None:
    """Write the report of one run to ``path``, atomically.

    The arguments are those of :func:`render_report`; raises StorageError for a disk that cannot be
    written.
    """
    write_text(
        path,
        render_report(
            metrics=metrics, log=log, settings=settings, manifest=manifest, info=info, split=split
        ),
    )


def render_report(
    *,
    metrics: Mapping[str, Any],
    log: Sequence[Mapping[str, Any]] = (),
    settings: Mapping[str, Any] | None = None,
    manifest: Mapping[str, Any] | None = None,
    info: Mapping[str, Any] | None = None,
    split: str | None = None,
) -> str:
    """The report of one run as HTML.

    ``metrics`` is metrics.json, ``log`` the records of log.jsonl (``step``, ``loss``,
    ``progressive_auc``, ``valid_loss``, ``valid_auc``, ``impressions_per_second``), ``settings``
    and ``manifest`` the run's and the dataset's, ``info`` further short facts such as versions.
    ``split`` is the one to report: by default test, else the last that metrics.json has.
    """
    settings, manifest, info = settings or {}, manifest or {}, info or {}
    splits = metrics.get("split") or {}
    chosen = split or ("test" if "test" in splits else next(reversed(splits), None))
    entry = splits.get(chosen) or {} if chosen else {}
    tasks = entry.get("tasks") or {}
    first = next(iter(tasks.items()), None)
    return render(
        "report.html.j2",
        title=_title(metrics, settings),
        split=chosen,
        rows=entry.get("rows"),
        facts=_facts(metrics, settings, manifest, info),
        data_tables=_data_tables(manifest),
        settings=settings,
        tasks=[_task(name, task) for name, task in tasks.items()],
        headline=_headline(first, chosen),
        tiles=_tiles(first, metrics),
        notes=[note["text"] for of in (metrics, entry) for note in of.get("notes") or ()],
        auc_chart=_auc_chart(tasks),
        curve_charts=_curve_charts(log),
        slices=_slices(entry.get("slices") or {}, list(tasks)),
        importance=_importance(entry.get("importance"), list(tasks)),
        glossary=wording.GLOSSARY,
    )


def render(template: str, *, package: str = "hemix.evaluation", **values: Any) -> str:
    """Fill in a page template; values are escaped unless they are Markup.

    Args:
        template: File name of the template. package: The package whose ``templates`` folder has it;
        it may extend the templates of this one. **values: What the template shows.
    """
    return _environment(package).get_template(template).render(**values)


@cache
def _environment(package: str) -> Environment:
    environment = Environment(
        loader=ChoiceLoader(
            [
                PackageLoader(name, "templates")
                for name in dict.fromkeys((package, "hemix.evaluation"))
            ]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(wording.FILTERS)
    style = Path(__file__).with_name("templates") / "report.css"
    environment.globals["style"] = Markup(style.read_text(encoding="utf-8"))  # our own file
    return environment


# -- what is said ----------------------------------------------------------------------------------


def _title(metrics: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    model = settings.get("model") or {}
    name, size = metrics.get("model") or model.get("name") or "model", model.get("size")
    name = wording.MODEL_NAMES.get(str(name), str(name))
    return f"{name} {size}" if size else name


def _facts(
    metrics: Mapping[str, Any],
    settings: Mapping[str, Any],
    manifest: Mapping[str, Any],
    info: Mapping[str, Any],
) -> list[tuple[str, str]]:
    """(what, value) pairs: what the model was and cost."""
    schema = manifest.get("schema")
    name = manifest.get("name") or (schema.get("name") if isinstance(schema, Mapping) else schema)
    fingerprint = (
        manifest.get("fingerprint") or manifest.get("schema_fingerprint") or info.get("fingerprint")
    )
    found: list[tuple[str, object, Any]] = [
        ("dense parameters", metrics.get("dense_parameters"), wording.count),
        ("embedding parameters", metrics.get("embedding_parameters"), wording.count),
        ("training time", metrics.get("train_seconds"), wording.duration),
        (
            "training speed",
            metrics.get("impressions_per_second"),
            lambda v: f"{wording.count(v)} impressions/s",
        ),
        ("peak memory", metrics.get("peak_bytes"), wording.size),
        ("steps", metrics.get("steps"), wording.count),
        *(
            (text, (settings.get(part) or {}).get(key), str)
            for part, key, text in _SETTINGS_OF_INTEREST
        ),
        ("data", name, str),
        ("schema fingerprint", fingerprint, lambda v: str(v)[:16]),
        *((str(key), value, str) for key, value in info.items() if key != "fingerprint"),
    ]
    return [(what, show(value)) for what, value, show in found if value is not None]


def _data_tables(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the model was trained and judged on: the splits, and the values that the encoders did
    not know. Cells are text.
    """
    tables = []
    splits = manifest.get("splits")
    if isinstance(splits, Mapping) and splits:
        zone, form = (
            _zone(manifest.get("timezone")),
            _time_form(splits, _zone(manifest.get("timezone"))),
        )
        what = "day" if form == _DAY else "time"
        tasks = list(
            dict.fromkeys(task for split in splits.values() for task in split.get("positives", {}))
        )
        columns = [
            f"first {what} ({zone.key})",
            f"last {what} ({zone.key})",
            "impressions",
            "requests",
            "users",
            *(wording.words(task) for task in tasks),
        ]
        rows = [
            (
                name,
                [
                    *(
                        _local(split.get(key), zone, form)
                        for key in ("first_time_ms", "last_time_ms")
                    ),
                    *(
                        wording.count(split[key]) if key in split else "–"
                        for key in ("rows", "requests", "users")
                    ),
                    *(_rate(split, task) for task in tasks),
                ],
            )
            for name, split in splits.items()
        ]
        tables.append({"title": "Splits", "columns": columns, "rows": rows})
    joined = manifest.get("join_rate")
    if isinstance(joined, Mapping) and joined:
        rows = [
            (_JOINS.get(name, wording.words(name)), [wording.percent(rate, 1)])
            for name, rate in joined.items()
        ]
        tables.append(
            {"title": "Ids that the tables have in common", "columns": ["share"], "rows": rows}
        )
    unknown = manifest.get("unknown_rate")
    if isinstance(unknown, Mapping):
        names = dict.fromkeys(
            name for rates in unknown.values() for name, rate in rates.items() if rate
        )
        parts = [part for part in unknown if part != "history"]
        rows = [
            (name, [wording.percent(unknown[part].get(name), 1) for part in parts])
            for name in names
            if name in unknown[parts[-1]]
        ]
        if rows:
            tables.append(
                {"title": "Values that the encoders did not know", "columns": parts, "rows": rows}
            )
    rates = _label_rate_table(manifest.get("label_rates"))
    return tables if rates is None else [*tables, rates]


def _label_rate_table(label_rates: Any) -> dict[str, Any] | None:
    """Label rates of rows with an unknown value beside those of rows with a known one, where train
    holds both.
    """
    if not isinstance(label_rates, Mapping) or not label_rates.get("train"):
        return None
    columns = [f"{split}, {group}" for split in label_rates for group in ("unknown", "known")]
    rows = []
    for name, tasks in label_rates["train"].items():
        for task, entry in tasks.items():
            of_splits = [split.get(name, {}).get(task) for split in label_rates.values()]
            cells = [
                _group_rate(found, group) for found in of_splits for group in ("unknown", "known")
            ]
            suspect = entry.get("beyond_chance") and not entry["agrees_with_valid"]
            rows.append(
                (f"{name}, {wording.words(task)}{' (look for a leak)' if suspect else ''}", cells)
            )
    return {
        "title": "Label rate of rows whose value the encoders know, and of others",
        "columns": columns,
        "rows": rows,
    }


def _group_rate(entry: Mapping[str, Any] | None, group: str) -> str:
    if entry is None or not entry[group]["rows"]:
        return "–"
    return wording.percent(entry[group]["positives"] / entry[group]["rows"], 1)


def _zone(name: Any) -> ZoneInfo:
    """The schema's zone, in which days begin; UTC for datasets that do not say it."""
    try:
        return ZoneInfo(str(name or "UTC"))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo("UTC")


def _time_form(splits: Mapping[str, Mapping[str, Any]], zone: ZoneInfo) -> str:
    """Days, or hours and minutes where one split ends on the day on which the next begins."""
    ends = [
        (
            _local(split.get("first_time_ms"), zone, _DAY),
            _local(split.get("last_time_ms"), zone, _DAY),
        )
        for split in splits.values()
    ]
    within = any(last == first != "–" for (_, last), (first, _) in itertools.pairwise(ends))
    return _MINUTE if within else _DAY


def _local(time_ms: Any, zone: ZoneInfo, form: str) -> str:
    return (
        datetime.fromtimestamp(time_ms / 1000, tz=zone).strftime(form)
        if wording.is_number(time_ms)
        else "–"
    )


def _rate(split: Mapping[str, Any], task: str) -> str:
    """Positives among the rows where the label is known."""
    known = split.get("rows", 0) - split.get("unknown", {}).get(task, 0)
    return wording.percent(split.get("positives", {}).get(task, 0) / known, 1) if known else "–"


def _headline(first: tuple[str, Mapping[str, Any]] | None, split: str | None) -> str | None:
    """One sentence on the first task, in plain words."""
    if first is None or "auc" not in first[1]:
        return None
    name, task = first
    return (
        f"Of two impressions of the {split} split, one with {wording.article(name)} and one "
        "without, it ranks the right one "
        f"higher in {wording.percent(task['auc'], 1)} of the cases."
    )


def _tiles(
    first: tuple[str, Mapping[str, Any]] | None, metrics: Mapping[str, Any]
) -> list[tuple[str, str, str]]:
    """(what, value, remark): the figures that a reader looks for first."""
    found = []
    if first is not None:
        name, task = first
        if "auc" in task:
            remark = (
                "95 % interval {:.4f} to {:.4f}".format(*task["auc_ci95"])
                if "auc_ci95" in task
                else ""
            )
            found.append((f"AUC of {wording.words(name)}", f"{task['auc']:.4f}", remark))
        if "popularity_auc" in task:
            found.append(
                (
                    "popularity alone",
                    f"{task['popularity_auc']:.4f}",
                    "ranks by the item’s rate in training",
                )
            )
        if "oracle_auc" in task:
            found.append(
                ("oracle", f"{task['oracle_auc']:.4f}", "knows the simulation’s true probabilities")
            )
    if metrics.get("train_seconds") is not None:
        parameters = [
            v
            for k in ("dense_parameters", "embedding_parameters")
            if (v := metrics.get(k)) is not None
        ]
        remark = f"for {wording.count(sum(parameters))} parameters" if parameters else ""
        found.append(("trained in", wording.duration(metrics["train_seconds"]), remark))
    return found


def _task(name: str, task: Mapping[str, Any]) -> dict[str, Any]:
    label = wording.words(name)
    points = task.get("calibration") or []
    chart = None
    if points:
        alt = (
            f"Calibration of {label}: observed rate against mean prediction in {len(points)} bins "
            "of equal size. "
            + ", ".join(
                f"{wording.percent(p['prediction'])} predicted, {wording.percent(p['rate'])} "
                "observed"
                for p in (points[0], points[-1])
            )
        )
        chart = charts.calibration(
            f"calibration-{_id(name)}",
            alt,
            [(p["prediction"], p["rate"], p.get("standard_error", 0.0)) for p in points],
        )
    return {
        "name": name,
        "label": label,
        "metrics": task,
        "calibration": chart,
        "reading": _calibration_reading(task),
    }


def _calibration_reading(task: Mapping[str, Any]) -> str | None:
    if "pcoc" not in task:
        return None
    pcoc = task["pcoc"]
    total = (
        "In total the model promises what happens"
        if abs(pcoc - 1) < 0.01
        else f"In total the model promises {wording.percent(abs(pcoc - 1), 1)} "
        f"{'more' if pcoc > 1 else 'less'} than happens"
    )
    if "ece" not in task or "ece_floor" not in task:
        return f"{total} (PCOC {pcoc:.3f})."
    return (
        f"{total} (PCOC {pcoc:.3f}). The average bin is off by {wording.points(task['ece'])}; a "
        "perfectly calibrated model would "
        f"show {wording.points(task['ece_floor'])} by chance alone."
    )


def _auc_chart(tasks: Mapping[str, Mapping[str, Any]]) -> Markup | None:
    rows = [
        charts.Range(
            name=wording.words(name),
            value=task["auc"],
            interval=tuple(task["auc_ci95"]) if "auc_ci95" in task else None,
            floor=task.get("popularity_auc"),
            ceiling=task.get("oracle_auc"),
        )
        for name, task in tasks.items()
        if "auc" in task
    ]
    if not rows or all(
        row.floor is None and row.ceiling is None and row.interval is None for row in rows
    ):
        return None
    said = [
        f"{row.name}: model {row.value:.4f}"
        + (f", popularity {row.floor:.4f}" if row.floor is not None else "")
        + (f", oracle {row.ceiling:.4f}" if row.ceiling is not None else "")
        for row in rows
    ]
    return charts.ranges("auc", f"AUC by task. {'; '.join(said)}.", rows, x_label="AUC")


def _curve_charts(log: Sequence[Mapping[str, Any]]) -> list[Markup]:
    found = []
    for name, title, line, point in (
        ("loss", "loss", ("loss", "train"), ("valid_loss", "valid")),
        (
            "progressive-auc",
            "AUC",
            ("progressive_auc", "train, before learning"),
            ("valid_auc", "valid"),
        ),
    ):
        drawn = []
        for (key, label), points in ((line, False), (point, True)):
            pairs = [
                (r["step"], r[key])
                for r in log
                if wording.is_number(r.get("step")) and wording.is_number(r.get(key))
            ]
            if pairs:
                x, y = zip(*pairs, strict=True)
                drawn.append(charts.Curve(name=label, x=x, y=y, points=points))
        if drawn:
            ends = "; ".join(f"{c.name} from {c.y[0]:.4f} to {c.y[-1]:.4f}" for c in drawn)
            found.append(
                charts.curves(
                    f"curve-{name}",
                    f"Learning curve, {title}: {ends}.",
                    drawn,
                    x_label="step",
                    y_label=title,
                )
            )
    return found


def _slices(slices: Mapping[str, Mapping[str, Any]], tasks: list[str]) -> list[dict[str, Any]]:
    """Of every task the slices as table rows; cuts with one slice say nothing and are left out."""
    found = []
    for task in tasks:
        groups: list[dict[str, Any]] = []
        for cut, parts in slices.items():
            rows = [
                {"name": wording.slice_name(cut, name), **_slice(part["tasks"][task])}
                for name, part in parts.items()
                if task in part.get("tasks", {})
            ]
            if len(rows) > 1:
                title = wording.SLICE_TITLES.get(cut, wording.words(cut))
                groups.append({"title": title, "rows": rows})
        if groups:
            has_oracle = any(
                row["oracle_auc"] is not None for group in groups for row in group["rows"]
            )
            found.append({"label": wording.words(task), "groups": groups, "has_oracle": has_oracle})
    return found


def _slice(entry: Mapping[str, Any]) -> dict[str, Any]:
    rows, positives = entry.get("rows", 0), entry.get("positives", 0)
    sure = min(positives, rows - positives) >= _LEAST_POSITIVES
    return {
        "rows": rows,
        "rate": positives / rows if rows else None,
        "auc": entry.get("auc") if sure else None,
        "auc_standard_error": entry.get("auc_standard_error") if sure else None,
        "oracle_auc": entry.get("oracle_auc") if sure else None,
        "ne": entry.get("ne") if sure else None,
        "pcoc": entry.get("pcoc") if sure else None,
    }


def _importance(content: Any, tasks: list[str]) -> list[dict[str, Any]]:
    """``content`` is a list of entries of the first task, or ``{task: list}``."""
    if not content:
        return []
    of_task: Mapping[str, Sequence[Mapping[str, Any]]] = (
        content
        if isinstance(content, Mapping)
        else {(tasks[0] if tasks else "first task"): content}
    )
    found: list[dict[str, Any]] = []
    for task, entries in of_task.items():
        if not entries:
            continue
        entries = sorted(entries, key=lambda e: -e["auc_drop"])
        rows = [
            (e["feature"], e["auc_drop"], e.get("auc_drop_deviation", 0.0))
            for e in entries[:_MOST_BARS]
        ]
        alt = f"AUC lost for {wording.words(task)}: " + ", ".join(
            f"{name} {drop:.4f}" for name, drop, _ in rows[:5]
        )
        chart = charts.bars(f"importance-{_id(task)}", alt, rows, x_label="AUC lost")
        found.append(
            {"label": wording.words(task), "chart": chart, "left_out": len(entries) - len(rows)}
        )
    return found


def _id(name: str) -> str:
    return "".join(c if c.isalnum() and c.isascii() else "-" for c in name)
