"""The report shows the run, needs no other file, is well-formed, and escapes names."""

from __future__ import annotations

import dataclasses
import re
from datetime import datetime
from html.parser import HTMLParser

import numpy as np
import pytest

from hemix.errors import StorageError
from hemix.evaluation import charts, wording
from hemix.evaluation.evaluate import evaluate_predictions
from hemix.evaluation.report import render_report, write_report
from tests.evaluation.synthetic import synthetic_predictions
from tests.refusals import raises

VOID = {"meta", "br", "link", "img", "hr"}


class Checker(HTMLParser):
    """Every element is closed in its turn; ids are unique; references stay inside the page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        self._attributes(attrs)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self._attributes(attrs)

    def _attributes(self, attrs):
        for key, value in attrs:
            if key == "id":
                self.ids.append(value)
            if key in ("href", "src", "srcset", "data"):
                self.references.append(value)
            self.references += [
                f"#{target}" for target in re.findall(r"url\(#([^)]+)\)", value or "")
            ]

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        self.text.append(data)


def report_text(page):
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    assert len(set(checker.ids)) == len(checker.ids)
    assert all(r.startswith("#") and r[1:] in checker.ids for r in checker.references)
    assert not checker.tags & {"script", "link", "iframe", "img", "object"}
    assert not re.search(r"https?://|@import", page)
    return " ".join(" ".join(checker.text).replace("\N{NO-BREAK SPACE}", " ").split())


@pytest.fixture(scope="module")
def content():
    split = evaluate_predictions(synthetic_predictions(), replicates=50)
    split["importance"] = [
        {"feature": "item.price", "auc_drop": 0.031, "auc_drop_deviation": 0.001},
        {"feature": "user.<b>&$x$", "auc_drop": 0.012, "auc_drop_deviation": 0.0},
    ]
    log = [
        {"step": s, "loss": 0.4 - s / 1e4, "progressive_auc": None if s == 20 else 0.6}
        for s in range(20, 400, 20)
    ]
    log += [{"step": 380, "valid_loss": 0.35, "valid_auc": 0.71}]
    return {
        "metrics": {
            "model": "hemix",
            "dense_parameters": 254_321,
            "embedding_parameters": 1_843_210,
            "train_seconds": 83.2,
            "impressions_per_second": 9120.3,
            "peak_bytes": 912 * 2**20,
            "split": {"test": split},
        },
        "log": log,
        "settings": {
            "model": {"name": "hemix", "size": "tiny", "layers": 2},
            "train": {"seed": 17, "device": "cpu"},
        },
        "manifest": {
            "schema": "city<script>",
            "fingerprint": "9f86d081884c7d65abcdef",
            "splits": {
                "train": {
                    "rows": 181_234,
                    "requests": 18_000,
                    "users": 900,
                    "positives": {"click": 14_680},
                    "first_time_ms": 1_767_571_200_000,
                    "last_time_ms": 1_768_003_200_000,
                },
            },
            "unknown_rate": {"train": {"item.item_id": 0.0312}},
        },
        "info": {"torch": "2.9.1"},
    }


def test_the_report_shows_the_run_and_needs_no_other_file(content):
    text = report_text(render_report(**content))
    click = content["metrics"]["split"]["test"]["tasks"]["click"]
    for fact in (
        "HeMix tiny",
        "254,321",
        "1.84 M",
        "1 min 23 s",
        "9,120 impressions/s",
        "912 MiB",
        "city<script>",
        "9f86d081884c7d65",
        "181,234",
        "3.1 %",
        "2026-01-05",
        "2026-01-10",
        "8.1 %",
        "2.9.1",
        "17",
        "order given click",
        "in the user’s history",
        "item.price",
        "user.<b>&$x$",
        f"{click['auc']:.4f}",
        "{:.4f} to {:.4f}".format(*click["auc_ci95"]),
        f"{click['popularity_auc']:.4f}",
        f"{click['oracle_auc']:.4f}",
        f"PCOC {click['pcoc']:.3f}",
        f"{100 * click['auc']:.1f} %",
    ):
        assert fact in text, fact


def test_names_are_html_escaped(content):
    page = render_report(**content)
    assert "city&lt;script&gt;" in page
    assert "<b>&$x$" not in page


def test_every_chart_has_a_text_alternative(content):
    page = render_report(**content)
    labels = re.findall(r'<svg [^>]*role="img" aria-label="([^"]+)"', page)
    # AUC, two learning curves, three calibrations, importance
    assert len(labels) == page.count("<svg") == 7
    assert "valid from 0.3500 to 0.3500" in " ".join(labels)


def test_charts_use_the_colours_of_the_theme(content):
    page = render_report(**content)
    drawings = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.S))
    assert "var(--model)" in drawings
    assert not re.search(r"#[0-9a-f]{6}\b", drawings)
    assert "prefers-color-scheme: dark" in page


def test_the_same_content_gives_the_same_bytes(content):
    assert render_report(**content) == render_report(**content)


@pytest.mark.parametrize("missing", ["log", "settings", "manifest", "info"])
def test_a_section_without_content_is_left_out(content, missing):
    text = report_text(
        render_report(**{key: value for key, value in content.items() if key != missing})
    )
    assert ("How it learned" in text) == (missing != "log")
    assert "None" not in text


def test_a_run_without_evaluation_has_a_report(content):
    text = report_text(
        render_report(metrics={**content["metrics"], "split": {}}, log=content["log"])
    )
    assert "254,321" in text
    assert "How it learned" in text
    assert "How good it is" not in text


def test_an_undefined_metric_shows_its_reason():
    labels = synthetic_predictions().labels.copy()
    labels[:, 1] = 0
    split = evaluate_predictions(
        synthetic_predictions(labels=labels, truth=None, baselines={}), replicates=20
    )
    text = report_text(render_report(metrics={"model": "din", "split": {"valid": split}}))
    assert "no positives" in text
    assert "valid split" in text
    assert "oracle’s AUC" not in text
    assert "nan" not in text.lower().split()


def test_a_small_slice_shows_no_auc():
    split = {
        "rows": 30,
        "tasks": {"click": {"auc": 0.7, "positives": 12, "rows": 30}},
        "slices": {
            "user": {
                "known": {
                    "rows": 24,
                    "tasks": {
                        "click": {
                            "rows": 24,
                            "positives": 11,
                            "auc": 0.6789,
                            "auc_standard_error": 0.05,
                        }
                    },
                },
                "new": {
                    "rows": 6,
                    "tasks": {
                        "click": {
                            "rows": 6,
                            "positives": 1,
                            "auc": 0.9876,
                            "auc_standard_error": 0.0,
                        }
                    },
                },
            }
        },
    }
    text = report_text(render_report(metrics={"split": {"test": split}}))
    assert "0.6789 ± 0.0500" in text
    assert "0.9876" not in text


def test_writing_replaces_the_report_and_leaves_no_other_file(content, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    write_report(path, **content)
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_a_full_disk_keeps_the_old_report(content, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("pathlib.Path.replace", full)
    with raises(StorageError, code="disk_full", field=path):
        write_report(path, **content)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_a_calibration_chart_with_a_rate_of_zero_has_linear_axes():
    points = [(0.001, 0.0, 0.001), (0.2, 0.25, 0.02)]
    drawing = charts.calibration_chart("c", "alt <text>", points)
    assert ">0%<" in drawing
    assert 'aria-label="alt &lt;text&gt;"' in drawing


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (wording.count(1234), "1,234"),
        (wording.count(1_843_210), "1.84 M"),
        (wording.count(1_497_000_000), "1.5 G"),
        (wording.count(None), "–"),
        (wording.duration(3.21), "3.2 s"),
        (wording.duration(59.7), "1 min 00 s"),
        (wording.duration(7500), "2 h 05 min"),
        (wording.size(3 * 2**30), "3.00 GiB"),
        (wording.percent(0.0812).replace("\N{NO-BREAK SPACE}", " "), "8.12 %"),
        (wording.article("order"), "an order"),
        (wording.slice_name("history_length", "1000+"), "1000 or more"),
        (wording.slice_name("realtime_length", "0"), "none"),
        (wording.slice_name("history_length", "10-99"), "10–99"),
    ],
)
def test_numbers_and_names_are_formatted(shown, expected):
    assert shown == expected


def _split(first: str, last: str) -> dict[str, object]:
    ends = [int(datetime.fromisoformat(text).timestamp() * 1000) for text in (first, last)]
    return {
        "rows": 1,
        "requests": 1,
        "users": 1,
        "positives": {},
        "first_time_ms": ends[0],
        "last_time_ms": ends[1],
    }


def test_split_days_are_in_the_time_zone_of_the_schema(content):
    """16:00 UTC is midnight in Shanghai."""
    content["manifest"] |= {
        "timezone": "Asia/Shanghai",
        "splits": {
            "train": _split("2026-01-04T16:00:00+00:00", "2026-01-05T15:59:59+00:00"),
            "valid": _split("2026-01-05T16:00:00+00:00", "2026-01-06T15:59:59+00:00"),
        },
    }
    text = report_text(render_report(**content))
    assert "first day (Asia/Shanghai)" in text and "2026-01-06" in text and "2026-01-04" not in text
    del content["manifest"]["timezone"]
    text = report_text(render_report(**content))  # train ends on the UTC day on which valid begins
    assert "first time (UTC)" in text and "2026-01-05 15:59" in text


def test_splits_within_a_day_show_hours(content):
    content["manifest"]["splits"] = {
        "train": _split("2026-01-05T00:00:00+00:00", "2026-01-05T05:59:00+00:00"),
        "valid": _split("2026-01-05T06:00:00+00:00", "2026-01-05T23:00:00+00:00"),
    }
    text = report_text(render_report(**content))
    assert "last time (UTC)" in text and "2026-01-05 05:59" in text and "2026-01-05 06:00" in text


def test_join_rates_are_shown_in_percent(content):
    content["manifest"]["join_rate"] = {"items": 0.873, "event_users": 1.0}
    text = report_text(render_report(**content))
    assert "item is in the item table" in text and "87.3\N{NO-BREAK SPACE}%" in text.replace(
        " %", "\N{NO-BREAK SPACE}%"
    )


def test_the_report_shows_the_rate_by_position():
    predictions = dataclasses.replace(
        synthetic_predictions(), position=np.arange(2000) % 8, weights=np.ones(2000)
    )
    split = evaluate_predictions(predictions, replicates=20)
    page = render_report(metrics={"split": {"test": split}})
    row = split["tasks"]["click"]["by_position"][7]
    assert f"{100 * row['rate']:.1f}" in report_text(page)
    assert f"{100 * row['prediction']:.1f}" in report_text(page)
    labels = re.findall(r'<svg [^>]*aria-label="(Rate of [^"]+)"', page)
    assert len(labels) == 3
    assert "position 7" in labels[0]
