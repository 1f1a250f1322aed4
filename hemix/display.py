"""What a person sees: progress while a command works, tables when it is done.

Knows figures, not how they came about.
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from hemix.evaluation.wording import size
from hemix.lab.studies.options import StudyPlan
from hemix.training.callbacks import Record

__all__ = [
    "Display",
    "StudyDisplay",
    "TrainingDisplay",
    "benchmark_table",
    "counts_line",
    "demo_summary",
    "facts",
    "laws_table",
    "manifest_summary",
    "metrics_table",
    "serving_banner",
    "study_table",
    "training_summary",
]

_PLAIN_EVERY_SECONDS = 10.0
_COLUMNS_MAX, _CASES_MAX = 8, 6
_ODD = {
    "duplicates": "were exact duplicates (dropped)",
    "disorder": "were out of time order (sorted)",
    "outside_split": "lie outside start and end",
    "timeless": "have no time (always visible)",
    "requests_of_several_times": "requests had several times (the earliest holds)",
}


class Display:
    """Live progress bars on a terminal, a line now and then elsewhere.

    Written to stderr, so that stdout stays for results.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = console.is_terminal
        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
        )
        self._said = time.monotonic()

    def __enter__(self) -> Display:
        if self._live:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._progress.stop()

    def progress(self, what: str, share: float, note: str = "") -> None:
        """``share`` of ``what`` is done."""
        if self._live:
            if what not in self._bars:
                for bar in self._bars.values():
                    self._progress.remove_task(bar)
                self._bars = {what: self._progress.add_task(what, total=1.0, note=note)}
            self._progress.update(self._bars[what], completed=share, note=note)
        elif time.monotonic() - self._said > _PLAIN_EVERY_SECONDS:
            self._said = time.monotonic()
            self._console.print(f"{what}: {share:.0%} {note}".rstrip())

    def training(self) -> TrainingDisplay:
        """The :class:`~hemix.training.callbacks.Callback` that shows a run while it trains."""
        return TrainingDisplay(self)

    def print(self, text: str) -> None:
        """Print a line above the progress bars."""
        self._console.print(text)

    def study(self) -> StudyDisplay:
        """The :class:`~hemix.lab.studies.options.StudyCallback` that shows a study."""
        return StudyDisplay(self)


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
        """Print the start, end or failure of a trial."""
        self._display.print(f"{done} of {total}: {message}")


class TrainingDisplay:
    """Shows a run while it trains: header, evaluations and notes as lines, the steps as a bar."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._note = ""

    def on_start(self, header: Record) -> None:
        """Print the model, its sizes and the device."""
        for line in _boosting_header(header) if "rounds" in header else _training_header(header):
            self._display.print(line)

    def on_record(self, record: Record) -> None:
        """Print an evaluation, a stop or the notes; keep the meters for the bar."""
        lines = _record_lines(record)
        if lines is None:
            defined = record["progressive_auc"] is not None
            auc = f"{record['progressive_auc']:.4f}" if defined else "-"
            speed = f"{record['impressions_per_second']:,.0f} impressions/s"
            self._note = f"loss {record['loss']:.4f}  AUC {auc}  {speed}"
            return
        for line in lines:
            self._display.print(line)

    def on_step(self, step: int, total_steps: int) -> None:
        """Move the bar."""
        self._display.progress("train", min(step / total_steps, 1.0), self._note)


def _boosting_header(header: Record) -> list[str]:
    return [
        f"train {header['model']}: {header['train_impressions']:,} impressions, "
        f"at most {header['rounds']:,} trees of {header['leaves']} leaves a task",
        f"{header['threads']} threads",
    ]


def _training_header(header: Record) -> list[str]:
    lines = [
        f"checkpoint {name} is half-written (it has no COMPLETE): passed over"
        for name in header["half_written"]
    ]
    if header["nothing_to_resume"]:
        lines.append("no complete checkpoint to resume from: starting afresh")
    resumed = f", resumed at step {header['resumed_at']:,}" if header["resumed_at"] else ""
    return [
        *lines,
        f"train {header['model']} ({header['size']}): {header['dense_parameters']:,} dense and "
        f"{header['embedding_parameters']:,} embedding parameters, "
        f"{header['train_impressions']:,} impressions in {header['steps']:,} steps{resumed}",
        f"{header['device']}, {_processes(header['processes'])}{header['threads']} threads, "
        f"{header['precision']}{_microbatches(header)}; tables: {header['embedding_backend']}",
    ]


def _record_lines(record: Record) -> list[str] | None:
    """The lines of a record of log.jsonl; None for the meters of a step."""
    if "stopped_early" in record:
        return [
            f"stopped at step {record['step']:,}: no better valid loss in "
            f"{record['stopped_early']} evaluations (train.patience); "
            f"the weights of step {record['kept_step']:,} are kept"
        ]
    if "notes" in record:
        return notes_lines(record["notes"])
    if "progressive" in record:
        return [_progressive_line(task, row) for task, row in record["progressive"].items()]
    if "valid_loss" in record:
        loss, auc = _value(record["valid_loss"]), _value(record["valid_auc"])
        return [f"step {record['step']:,}: valid loss {loss}, AUC {auc}"]
    return None


def _progressive_line(task: str, row: Mapping[str, Any]) -> str:
    auc, logloss, pcoc = (_value(row[name]) for name in ("auc", "logloss", "pcoc"))
    return (
        f"not yet trained on: {task} of {row['rows']:,} rows: AUC {auc}, log loss {logloss}, PCOC "
        f"{pcoc}"
    )


def _value(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4f}"


def notes_lines(notes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The notes of training or of a split (:mod:`hemix.evaluation.notes`), one a line."""
    return [f"noted: {note['text']}" for note in notes]


def _render(table: Table) -> str:
    console = Console(file=io.StringIO(), width=110, highlight=False)
    console.print(table)
    output = console.file
    assert isinstance(output, io.StringIO)
    return output.getvalue().rstrip("\n")


def counts_line(counts: Mapping[str, Any]) -> str:
    """``240,123 impressions, 1,034,221 events``: the whole numbers among ``counts``."""
    return ", ".join(
        f"{value:,} {name.replace('_', ' ')}"
        for name, value in counts.items()
        if isinstance(value, int) and value is not True
    )


def manifest_summary(manifest: Mapping[str, Any], out: Path) -> str:
    """What was prepared, and what was odd about it."""
    table = Table(title=f"{out}", title_justify="left")
    for column in ("split", "impressions", "requests", "users", "positives"):
        table.add_column(column, justify="left" if column == "split" else "right")
    for name, split in manifest["splits"].items():
        positives = ", ".join(f"{task} {count:,}" for task, count in split["positives"].items())
        table.add_row(
            name, f"{split['rows']:,}", f"{split['requests']:,}", f"{split['users']:,}", positives
        )
    history = manifest["history"]
    lines = [_render(table), f"{history['events']:,} events in the history store"]
    for name, split in manifest["splits"].items():
        for task, unknown in split["unknown"].items():
            if unknown:
                lines.append(
                    f"noted: {task} is unknown on {unknown:,} of {split['rows']:,} {name} rows "
                    "(null, not yet known or not mature)"
                )
    for task, count in manifest["impressions"]["given_violated"].items():
        if count:
            lines.append(
                f"noted: {task} was 1 on {count:,} rows whose given label is 0; counted as 0"
            )
    for part in ("user", "item"):
        if manifest[f"{part}_table"]["duplicates"]:
            lines.append(
                f"noted: {manifest[f'{part}_table']['duplicates']:,} {part}s have several rows in "
                "their table; the last one holds"
            )
    lines += [
        f"noted: the table {name} has no rows"
        for name, table in manifest.get("tables", {}).items()
        if table["rows"] == 0
    ]
    lines += [
        _join_note(manifest, name, example)
        for name, example in manifest.get("join_example", {}).items()
    ]
    if "columns_without_action" in history and history["events"]:
        columns = ", ".join(history["columns_without_action"])
        lines.append(
            "noted: the events have no column 'action', so all actions are missing; name it in "
            f"history.action, one of: {columns}"
        )
    odd = [
        f"{count:,} {part} {_ODD[name]}"
        for part, found in (("impressions", manifest["impressions"]), ("events", history))
        for name, count in found.items()
        if name in _ODD and isinstance(count, int) and count
    ]
    if odd:
        lines.append("noted: " + ", ".join(odd))
    lines += _rate_warning(manifest["label_rates"])
    lines.append(f"Next: hemix train --data {out} --out RUN")
    return "\n".join(lines)


def _rate_warning(label_rates: Mapping[str, Any]) -> list[str]:
    """Say whether rows with unknown values carry other labels than rows with known ones: a line or
    none.
    """
    train = label_rates["train"]
    found = [
        (name, task)
        for name, tasks in train.items()
        for task, entry in tasks.items()
        if entry.get("beyond_chance")
    ]
    if not found:
        return []
    suspects = [(name, task) for name, task in found if not train[name][task]["agrees_with_valid"]]
    name, task = max(suspects or found, key=lambda key: abs(train[key[0]][key[1]]["z"]))

    def rates(split: str) -> str:
        entry = label_rates[split].get(name, {}).get(task)
        if entry is None:
            return f"no such row on {split}"
        return f"{_rate(entry['unknown'])} on {split} (known: {_rate(entry['known'])})"

    more = "" if len(found) == 1 else f"; {len(found) - 1} more in manifest.json (label_rates)"
    line = f"rows with an unknown {name} have {task} rate {rates('train')}, {rates('valid')}{more}"
    if suspects:
        return [
            f"warning: {line}. Valid does not show what train shows: look for a leak of the label"
        ]
    return [f"noted: {line}"]


def _rate(group: Mapping[str, int]) -> str:
    return f"{group['positives'] / group['rows']:.5f}" if group["rows"] else "no rows"


def _join_note(manifest: Mapping[str, Any], name: str, example: str) -> str:
    rate = manifest["join_rate"][name]
    share = f"{rate:.1%}" if rate else "none"
    where = {
        "users": "impressions are of users in the user table",
        "items": "impressions are of items in the item table",
        "event_users": "events are of users of the impressions",
        "event_items": "events are of items of the impressions or the item table",
    }[name]
    return f"noted: {share} of the {where}; {example!r}, for instance, is not"


def _microbatches(header: Mapping[str, Any]) -> str:
    count = header["gradient_accumulation"]
    return "" if count == header["processes"] else f", {count} microbatches a step"


def _processes(count: int) -> str:
    return "" if count == 1 else f"{count} processes of "


def training_summary(metrics: Mapping[str, Any], data: Path, out: Path) -> str:
    """What a run cost, and the next command."""
    return (
        f"{out}: {metrics['steps']:,} steps in {metrics['train_seconds']:.1f} s, "
        f"{metrics['impressions_per_second']:,.0f} impressions/s, peak memory "
        f"{size(metrics['peak_bytes'])}\n"
        f"Next: hemix evaluate {out} --data {data}"
    )


def metrics_table(figures: Mapping[str, Any], split: str) -> str:
    """The headline metrics of every task."""
    rows = [
        ("AUC", "auc", ".4f"),
        ("  95 % interval", "auc_ci95", "interval"),
        ("  popularity", "popularity_auc", ".4f"),
        ("  oracle", "oracle_auc", ".4f"),
        ("GAUC", "gauc", ".4f"),
        ("NDCG@10", "ndcg_at_10", ".4f"),
        ("log loss", "logloss", ".4f"),
        ("NE", "ne", ".4f"),
        ("PCOC", "pcoc", ".3f"),
        ("ECE", "ece", ".4f"),
        ("  floor", "ece_floor", ".4f"),
        ("positives", "positives", ","),
    ]
    tasks = figures["tasks"]
    table = Table(title=f"{split}: {figures['rows']:,} impressions", title_justify="left")
    table.add_column("")
    for name in tasks:
        table.add_column(name.replace("_", " "), justify="right")
    for title, key, form in rows:
        if any(key in task for task in tasks.values()):
            table.add_row(title, *(_cell(task.get(key), form) for task in tasks.values()))
    return "\n".join(
        [_render(table), *_absent_lines(figures), *notes_lines(figures.get("notes", ()))]
    )


def _absent_lines(figures: Mapping[str, Any]) -> list[str]:
    """Why metrics are not there, one line for all tasks that lack the same ones for the same
    reason.
    """
    tasks = dict[tuple[str, str], list[str]]()
    for task, entry in figures["tasks"].items():
        reasons = dict[str, list[str]]()
        for metric, reason in entry.get("absent", {}).items():
            reasons.setdefault(reason, []).append(metric)
        for reason, metrics in reasons.items():
            tasks.setdefault((", ".join(metrics), reason), []).append(task.replace("_", " "))
    lines = [
        f"absent: {what} of {', '.join(names)}: {reason}" for (what, reason), names in tasks.items()
    ]
    return lines + [
        f"absent: {what}: {reason}" for what, reason in figures.get("absent", {}).items()
    ]


def study_table(content: Mapping[str, Any]) -> str:
    """A comparison: every model's figures of every task, then the differences, the primary pair
    first.
    """
    lines = []
    tasks = list(next(iter(content["models"].values()))["tasks"])
    for task in tasks:
        table = Table(title=f"{content['split']}: {task.replace('_', ' ')}", title_justify="left")
        table.add_column("")
        for title in (
            "AUC",
            "GAUC",
            "log loss",
            "PCOC",
            "ECE",
            "floor",
            "seconds",
            "peak memory",
            "dense parameters",
        ):
            table.add_column(title, justify="right")
        for label, model in content["models"].items():
            metrics = {name: figure["mean"] for name, figure in model["tasks"][task].items()}
            forms = (
                ("auc", ".4f"),
                ("gauc", ".4f"),
                ("logloss", ".4f"),
                ("pcoc", ".3f"),
                ("ece", ".4f"),
                ("ece_floor", ".4f"),
            )
            table.add_row(
                label,
                *(_cell(metrics.get(key), form) for key, form in forms),
                f"{model['train_seconds']:,.0f}",
                size(model["peak_bytes"]),
                f"{model['dense_parameters']:,}",
            )
        lines.append(_render(table))
    shown = [
        pair
        for pair in content["pairs"]
        if pair["task"] == tasks[0] and pair["metric"] in ("auc", "logloss")
    ]
    table = Table(title=f"differences of {tasks[0].replace('_', ' ')}", title_justify="left")
    for title in ("a - b", "metric", "difference", "95 % interval", "p (Holm)"):
        table.add_column(title, justify="left" if title == "a - b" else "right")
    for pair in shown:
        adjusted = f"{pair['p']:.2g} primary" if pair["primary"] else f"{pair['p_holm']:.2g}"
        low, high = pair["ci95"]
        table.add_row(
            f"{pair['a']} - {pair['b']}",
            pair["metric"],
            f"{pair['delta']:+.5f}",
            f"{low:+.5f} to {high:+.5f}",
            adjusted,
        )
    absent = _without_interval(
        [pair for pair in content.get("absent_pairs", ()) if pair["task"] == tasks[0]], "a", "b"
    )
    return "\n".join([*lines, *([_render(table)] if shown else []), *absent, *_failed(content)])


def _without_interval(absent: Sequence[Mapping[str, Any]], first: str, second: str) -> list[str]:
    """Why differences are not there, one line a pair and reason; ``first``, ``second``: the keys of
    the two."""
    metrics = dict[tuple[str, str], list[str]]()
    for entry in absent:
        metrics.setdefault((f"{entry[first]} - {entry[second]}", entry["reason"]), []).append(
            entry["metric"]
        )
    return [
        f"absent: {pair}: {', '.join(names)}: {reason}" for (pair, reason), names in metrics.items()
    ]


def laws_table(content: Mapping[str, Any]) -> str:
    """A scaling study: every size and length, then the fitted laws."""
    table = Table(title=f"{content['split']}: sizes and lengths", title_justify="left")
    tasks = list(next(iter(content["models"].values()))["tasks"])
    for title in ("", "dense parameters", "FLOPs an impression", f"AUC {tasks[0]}", "log loss"):
        table.add_column(title, justify="right" if title else "left")
    for label, model in content["models"].items():
        figures = (model["tasks"][tasks[0]].get(key, {}).get("mean") for key in ("auc", "logloss"))
        table.add_row(
            label,
            f"{model['dense_parameters']:,}",
            f"{model['flops_per_impression']:,.0f}",
            *(_cell(f, ".4f") for f in figures),
        )
    fits = [
        f"{fit['task']}, {fit['fitted']} against {fit['axis'].replace('_', ' ')}: {fit['reading']}"
        for fit in content["fits"]
    ]
    return "\n".join([_render(table), *fits, *_failed(content)])


def _failed(content: Mapping[str, Any]) -> list[str]:
    return [f"failed: {failure['cell']}: {failure['error']}" for failure in content["failed"]]


def _cell(value: Any, form: str) -> str:
    if value is None:
        return "-"
    return f"{value[0]:.4f} - {value[1]:.4f}" if form == "interval" else format(value, form)


def demo_summary(figures: Mapping[str, Any], out: Path) -> str:
    """The demo's last words: how good, against what, and what to do next."""
    task = next(iter(figures["tasks"].values()))
    name = next(iter(figures["tasks"]))
    against = ""
    if {
        "auc",
        "popularity_auc",
        "oracle_auc",
    } <= task.keys():  # not where a tiny city's test day has one class
        against = (
            f"test {name} AUC {task['auc']:.4f}: popularity alone reaches "
            f"{task['popularity_auc']:.4f}, the truth itself "
            f"{task['oracle_auc']:.4f} (distance {task['oracle_auc'] - task['auc']:.4f})\n"
        )
    return (
        f"{metrics_table(figures, 'test')}\n\n{against}"
        f"Report: {out / 'report.html'}\n"
        f"Scores of every impression: hemix predict {out} --data {out / 'data'} --out "
        "scores.parquet\n"
        f"Serve it, with its logs as the past and a playground: hemix store load {out / 'logs'} "
        f"--store sqlite:///{out / 'events.db'}\n"
        f"                                                      hemix serve {out}"
    )


def serving_banner(url: str, run: Path, seconds: Mapping[str, float]) -> str:
    """Where a server listens, and what to try."""
    events = '[{"event": "interaction", "id": "e1", "user": "u1", "item": "i1", "type": "click"}]'
    ranking = '{"user": "u1", "items": [{"id": "i1"}, {"id": "i2"}], "explain": true}'
    return (
        f"{run}: serving at {url} ({seconds['rest']:.1f} s, and {seconds['torch']:.1f} s for "
        "torch's import)\n"
        f"Playground: {url}/   API: {url}/docs   Stop: Ctrl-C\n"
        f"  curl {url}/v1/events -d '{events}'\n"
        f"  curl {url}/v1/rank -d '{ranking}'"
    )


def power_line(found: Mapping[str, float | None], design: str) -> str:
    """What the experiment can see, before it runs."""
    named = {"pv_ctr": "PV_CTR", "uv_cvr": "UV_CVR", "gmv_per_user": "GMV per user"}
    said = ", ".join(
        f"{name} {found[key]:.1%}" for key, name in named.items() if found.get(key) is not None
    )
    more = ", less between arms that are alike" if design == "paired" else "; CUPED may help"
    return f"80 % power for relative differences of: {said or 'nothing, too few users'}{more}"


def experiment_table(content: Mapping[str, Any]) -> str:
    """What the arms came to, their effects with intervals, and the arms that did not answer."""
    plan = content["plan"]
    forms = {
        "pv_ctr": ".4f",
        "uv_cvr": ".4f",
        "gmv_per_user": ".2f",
        "requests_per_session": ".2f",
        "km_per_order": ".2f",
        "new_place_share": ".3f",
    }
    arms = Table(title=f"{plan['design']} design, {plan['days']} days", title_justify="left")
    for column in ("arm", "users", "requests", *(name.replace("_", " ") for name in forms)):
        arms.add_column(column, justify="left" if column == "arm" else "right")
    for name, found in content["arms"].items():
        arms.add_row(
            name,
            f"{found['users']:,}",
            f"{found['requests']:,}",
            *(_cell(found[key], form) for key, form in forms.items()),
        )
    table = Table(title="differences", title_justify="left")
    for column in ("", "metric", "relative", "95 % interval", "always valid", "p"):
        table.add_column(column, justify="left" if column in ("", "metric") else "right")
    for e in content["effects"]:
        spans = (f"{e[key][0]:+.2%} to {e[key][1]:+.2%}" for key in ("ci95", "always_valid_ci95"))
        table.add_row(
            f"{e['arm']} - {e['against']}",
            e["metric"],
            f"{e['relative_delta']:+.2%}",
            *spans,
            f"{e['p']:.2g}",
        )
    lines = [_render(arms)] + ([_render(table)] if content["effects"] else [])
    lines += _without_interval(content.get("absent_effects", ()), "arm", "against")
    lines += [
        f"{name} was left out from some point on: {why}" for name, why in content["paused"].items()
    ]
    ratio, aa = content["checks"]["sample_ratio"], content["checks"]["aa"]
    if ratio is not None and ratio["mismatch"]:
        lines.append(f"sample ratio mismatch (p {ratio['p']:.2g}): do not trust these effects")
    held = ", ".join(
        f"{metric} {aa['covers_zero'][metric]} of {count}"
        for metric, count in aa["defined"].items()
        if count
    )
    lines.append(
        f"A/A, {aa['users']:,} users of {aa['of']} divided {aa['repetitions']} times; intervals "
        f"that hold 0: {held}"
    )
    if content["rankings_per_second"]:
        lines.append(f"{content['rankings_per_second']:.0f} rankings a second")
    return "\n".join(lines)


def benchmark_table(figures: Mapping[str, Any]) -> str:
    """A benchmark's cases, one a row; where they say much, one a column, a few at a time."""
    cases = figures["cases"]
    columns = list(dict.fromkeys(key for case in cases for key in case))
    title = f"{figures['machine']['cpu']}, {figures['machine']['cores']} cores"
    if len(columns) > _COLUMNS_MAX:
        pieces = [cases[first : first + _CASES_MAX] for first in range(0, len(cases), _CASES_MAX)]
        return "\n".join(_upright(piece, columns, title) for piece in pieces)
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    for case in cases:
        table.add_row(*(_plain(case.get(column)) for column in columns))
    return _render(table)


def _upright(cases: Sequence[Mapping[str, Any]], rows: Sequence[str], title: str) -> str:
    table = Table(title=title, title_justify="left", show_header=False)
    for row in rows:
        table.add_row(row.replace("_", " "), *(_plain(case.get(row)) for case in cases))
    return _render(table)


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return " / ".join(_plain(part) for part in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_plain(part)}" for key, part in value.items()) or "none"
    if isinstance(value, float):
        return f"{value:,.4g}"
    return (
        f"{value:,}"
        if isinstance(value, int) and not isinstance(value, bool)
        else str(value if value is not None else "-")
    )


def facts(found: Mapping[str, Any], indent: str = "") -> str:
    """Nested facts, one a line."""
    lines = []
    for name, value in found.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}{name}", facts(value, indent + "  ")]
        else:
            text = ", ".join(str(v) for v in value) if isinstance(value, list) else _plain(value)
            lines.append(f"{indent}{name:<16} {text}")
    return "\n".join(lines)
