"""YAML that people write: keys given twice, byte order marks, other encodings, values that are
none.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from hemix.errors import SchemaError, SettingsError
from hemix.lab.studies.search import read_points
from hemix.schema import Schema
from hemix.settings import build_settings
from hemix.yaml_files import parse_yaml
from tests.data.small import PLAIN
from tests.refusals import raises


@pytest.mark.parametrize(
    ("text", "key", "lines"),
    [
        ("a: 1\nb: 2\na: 3\n", "a", "lines 1 and 3"),
        ("a:\n  b: 1\n  c: 2\n  b: 1\n", "a.b", "lines 2 and 4"),
        ("a: {b: 1, b: 1}\n", "a.b", "lines 1 and 1"),
        ("all:\n- x: 1\n- x: 1\n  y: 2\n  x: 3\n", "all[1].x", "lines 3 and 5"),
        ('a: 1\n"a": 2\n', "a", "lines 1 and 2"),
        ("1: x\n0x1: y\n", "0x1", "lines 1 and 2"),
        ("on: x\ntrue: y\n", "true", "lines 1 and 2"),
        ("base: &base\n  b: 1\n  b: 2\nother: *base\n", "base.b", "lines 2 and 3"),
        ("a: &a {x: 1}\nb: &b {x: 2}\nc:\n  <<: *a\n  <<: *b\n", "c.<<", "lines 4 and 5"),
    ],
)
def test_a_repeated_key_is_reported_with_both_lines(text: str, key: str, lines: str) -> None:
    with raises(SettingsError, f"FILE: {key}: ", lines, code="repeated_key", field="FILE"):
        parse_yaml(text, "FILE", SettingsError)


def test_keys_that_only_look_repeated_are_accepted() -> None:
    merged = "base: &base {a: 1, b: 2}\nmine:\n  <<: *base\n  b: 3\nsame: *base\n"
    assert parse_yaml(merged, "FILE", SettingsError)["mine"] == {"a": 1, "b": 3}
    assert parse_yaml("a: &a {x: 1}\nb: &b {y: 2}\nc: {<<: [*a, *b]}\n", "FILE", SettingsError)[
        "c"
    ] == {"x": 1, "y": 2}
    assert parse_yaml("1: a\n'1': b\n", "FILE", SettingsError) == {1: "a", "1": "b"}
    assert parse_yaml("on: a\n'on': b\nyes: c\n".replace("yes", "no"), "FILE", SettingsError) == {
        True: "a",
        "on": "b",
        False: "c",
    }
    assert parse_yaml("- {a: 1}\n- {a: 1}\n", "FILE", SettingsError) == [{"a": 1}, {"a": 1}]
    assert parse_yaml("a: &x [1]\nb: *x\n", "FILE", SettingsError) == {"a": [1], "b": [1]}


@pytest.mark.parametrize(
    "text",
    [
        "a: [1",
        "a: 2026-02-30",
        "a: !!int x",
        "a: !!bool maybe",
        "? [a]\n: 1",
        "a: 1\n---\na: 2",
        "[" * 5000,
        "a: \x01",
    ],
)
def test_invalid_yaml_gives_a_one_line_error(text: str) -> None:
    with raises(SettingsError, code="not_yaml", field="FILE"):
        parse_yaml(text, "FILE", SettingsError)


def test_an_invalid_date_is_reported_with_its_line() -> None:
    with raises(SettingsError, "2026-02-30", "line 2", code="not_yaml", field="FILE"):
        parse_yaml("a: 1\nb: 2026-02-30\n", "FILE", SettingsError)


def test_a_byte_order_mark_and_other_encodings(tmp_path: Path) -> None:
    path = tmp_path / "schema.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + PLAIN.encode())
    assert Schema.load(path).name == "small"
    for content in (PLAIN.encode("utf-16"), PLAIN.replace("small", "caf\u00e9").encode("latin-1")):
        path.write_bytes(content)
        with raises(SchemaError, "line ", "UTF-8", code="unreadable_file", field=path):
            Schema.load(path)


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "\ufeff"])
def test_an_empty_schema_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "schema.yaml").write_text(text)
    with raises(SchemaError, "empty", code="missing_key", field=tmp_path / "schema.yaml"):
        Schema.load(tmp_path / "schema.yaml")


def test_schema_settings_and_search_files_refuse_a_repeated_key(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    section = "features: {context: {a: {type: categorical}}}\n"
    path.write_text(PLAIN + section + section)
    with raises(SchemaError, "features: ", 5, 6, code="repeated_key", field=path):
        Schema.load(path)
    path.write_text("train: {epochs: 3}\nmodel: {name: dlrm}\ntrain: {seed: 1}\n")
    with raises(SettingsError, "train: ", 1, 3, code="repeated_key", field=path):
        build_settings(config=path)
    path.write_text("all:\n- train.seed: 1\n  train.seed: 2\n")
    with raises(SettingsError, "all[0].train.seed: ", code="repeated_key", field=path):
        read_points(path)
    with raises(SettingsError, "train.seed=", code="repeated_key", field="--set"):
        build_settings(overrides=["train.seed={a: 1, a: 2}"])
