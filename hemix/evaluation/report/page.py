"""The report of one run: the sections and tables of a run folder's content on one page.

A section without content is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hemix.evaluation import wording
from hemix.evaluation.report import sections
from hemix.evaluation.report.data_tables import data_tables
from hemix.evaluation.report.templates import render
from hemix.files import write_text

__all__ = ["render_report", "write_report"]

_SETTINGS_OF_INTEREST = (
    ("train", "seed", "seed"),
    ("train", "epochs", "epochs"),
    ("train", "batch_size", "impressions a step"),
    ("train", "table_optimizer", "tables’ optimiser"),
    ("train", "precision", "precision"),
    ("train", "device", "device"),
)
"""(section of the settings, key, name in the report)."""


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
    """Write the report of one run, atomically.

    Args:
        path: The file.
        metrics: The content of metrics.json.
        log: Records of log.jsonl.
        settings: Of the run.
        manifest: Of the dataset.
        info: Further short facts.
        split: The split to report.

    Raises:
        StorageError: The file cannot be written.
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
    """Render the report of one run.

    Args:
        metrics: The content of metrics.json.
        log: Records of log.jsonl: ``step``, ``loss``, ``progressive_auc``, ``valid_loss``,
            ``valid_auc``, ``impressions_per_second``.
        settings: Of the run.
        manifest: Of the dataset.
        info: Further short facts, such as versions.
        split: The split to report; by default test, else the last that ``metrics`` has.

    Returns:
        The page as HTML.
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
        data_tables=data_tables(manifest),
        settings=settings,
        tasks=[sections.task_section(name, task) for name, task in tasks.items()],
        headline=sections.headline(first, chosen),
        tiles=sections.tiles(first, metrics),
        notes=[note["text"] for holder in (metrics, entry) for note in holder.get("notes") or ()],
        auc_chart=sections.auc_chart(tasks),
        curve_charts=sections.curve_charts(log),
        baselines=list(wording.BASELINE_NAMES.items()),
        positions=sections.position_sections(tasks),
        slices=sections.slice_tables(entry.get("slices") or {}, list(tasks)),
        importance=sections.importance_charts(entry.get("importance"), list(tasks)),
        glossary=wording.GLOSSARY,
    )


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
    """(name, value) pairs of the model, its cost and its data."""
    schema = manifest.get("schema")
    name = manifest.get("name") or (schema.get("name") if isinstance(schema, Mapping) else schema)
    fingerprint = (
        manifest.get("fingerprint") or manifest.get("schema_fingerprint") or info.get("fingerprint")
    )
    facts: list[tuple[str, object, Any]] = [
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
            (text, (settings.get(section) or {}).get(key), str)
            for section, key, text in _SETTINGS_OF_INTEREST
        ),
        ("data", name, str),
        ("schema fingerprint", fingerprint, lambda v: str(v)[:16]),
        *((str(key), value, str) for key, value in info.items() if key != "fingerprint"),
    ]
    return [(text, form(value)) for text, value, form in facts if value is not None]
