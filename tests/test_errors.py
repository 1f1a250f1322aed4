"""Errors as values: every class and every real failure has a code, and the reference lists it."""

from __future__ import annotations

import ast
import errno
import os
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from hemix import errors
from hemix.cli.app import app
from hemix.cli.errors import COMMAND_ERRORS, to_hemix_error
from hemix.data.raw_columns import Where, numbers_of
from hemix.errors import HemixError
from hemix.files import check_new_folder, read_json, storage_errors, write_text
from hemix.formats import SavedFormat
from hemix.runs.folder import Run
from hemix.schema import Schema
from hemix.serving.config import load_config
from hemix.serving.http.messages import ApiError
from hemix.serving.stores.sqlite_file import store_errors
from hemix.settings import build_settings
from tests.planted import SCHEMA

_ROOT = Path(__file__).parents[1]
_PAGE = (_ROOT / "docs" / "reference" / "errors.md").read_text()
_CLASSES = [getattr(errors, name) for name in errors.__all__]


def _rows(heading: str) -> list[list[str]]:
    """The rows of a table of the reference page, without its head."""
    section = _PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


# -- classes ---------------------------------------------------------------------------------------


def test_every_class_has_a_code_of_its_own_and_the_reference_lists_it() -> None:
    rows = {row[0]: row[1:] for row in _rows("Classes")}
    assert rows.keys() == set(errors.__all__)
    codes = [kind.code for kind in (*_CLASSES, ApiError)]
    assert len(set(codes)) == len(codes)
    for kind in _CLASSES:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", kind.code)
        code, exit_code, status, retry = rows[kind.__name__]
        assert (code, int(exit_code), int(status)) == (
            kind.code,
            kind.exit_code,
            kind.http_status,
        )
        if kind is not errors.ServerError:
            assert (retry == "yes") == kind.is_retryable


def test_an_error_has_the_defaults_of_its_class() -> None:
    error = errors.DataError("a.parquet: no rows")
    assert (str(error), error.code, error.field, error.hint) == (
        "a.parquet: no rows",
        "invalid_data",
        None,
        None,
    )


def test_the_message_ends_with_the_hint() -> None:
    error = errors.UsageError("--out x: exists", code="out_exists", field="--out", hint="name y")
    assert str(error) == "--out x: exists; name y"
    assert (error.code, error.field, error.hint) == ("out_exists", "--out", "name y")
    assert errors.UsageError.code == "invalid_argument"


@pytest.mark.parametrize(
    ("status", "retry"),
    [(None, True), (400, False), (404, False), (422, False), (429, True), (500, True), (503, True)],
)
def test_the_status_decides_whether_a_server_is_called_again(
    status: int | None, retry: bool
) -> None:
    assert errors.ServerError("no", status=status).is_retryable is retry


def test_a_servers_error_has_the_servers_code() -> None:
    error = errors.ServerError("no", status=422, code="unknown_item", field="items[0].id")
    assert (error.code, error.field) == ("unknown_item", "items[0].id")
    assert errors.ServerError("no").code == "server_error"


def test_a_missing_extra_names_package_and_command() -> None:
    error = errors.MissingExtra("redis", "redis", "a store in Redis")
    assert (error.field, error.hint) == ("redis", "pip install 'hemix[redis]'")
    assert str(error).count("pip install") == 1


# -- codes -----------------------------------------------------------------------------------------


def _codes_in_source() -> set[str]:
    """Every code that the package gives an error, read from its source."""
    codes = {*_texts("files", "_STORAGE", first=True), *_texts("validation", "_CODES")}
    for path in (_ROOT / "hemix").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.keyword(arg="code", value=value):
                    codes |= _constants(value)
                case ast.Call(func=ast.Name(id="ApiError"), args=[_, value, *_]):
                    codes |= _constants(value)
                case ast.Call(func=ast.Name(id="_EventError"), args=[value, *_]):
                    codes |= _constants(value)
                case ast.Assign(targets=[ast.Name(id="code")], value=value):
                    codes |= _constants(value)
                case ast.Assign(
                    targets=[ast.Tuple(elts=[ast.Name(id="code"), *_])],
                    value=ast.Tuple(elts=[value, *_]),
                ):
                    codes |= _constants(value)
    return {code for code in codes if re.fullmatch(r"[a-z]+(_[a-z]+)*", code)}


def _constants(value: ast.expr) -> set[str]:
    return {
        node.value
        for node in ast.walk(value)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def _texts(module: str, name: str, *, first: bool = False) -> set[str]:
    values = vars(__import__(f"hemix.{module}", fromlist=[name]))[name].values()
    return {value[0] if first else value for value in values}


def test_the_reference_lists_every_code_once() -> None:
    classes = {row[1] for row in _rows("Classes")}
    finer = [row[0] for row in _rows("Finer codes")]
    of_server = [row[0] for row in _rows("Codes of the server")]
    listed = [*finer, *of_server]
    assert len(set(listed)) == len(listed)
    assert not classes & set(listed)
    assert set(listed) == _codes_in_source() - classes
    assert finer == sorted(finer) and of_server == sorted(of_server)


# -- failures --------------------------------------------------------------------------------------


def _unknown_flag(_: Path) -> None:
    app(["doctor", "--jsn"], standalone_mode=False)


def _wrong_flag_value(_: Path) -> None:
    app(["demo", "--out", "x", "--users", "none"], standalone_mode=False)


def _missing_flag(_: Path) -> None:
    app(["simulate"], standalone_mode=False)


def _full_disk(folder: Path) -> None:
    with storage_errors(folder / "a.npy"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _locked_store(folder: Path) -> None:
    path = folder / "events.db"
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("CREATE TABLE t (x)")
    holder.execute("BEGIN EXCLUSIVE")
    try:
        with store_errors(path, 0.01):
            sqlite3.connect(path, timeout=0.01).execute("INSERT INTO t VALUES (1)")
    finally:
        holder.close()


def _other_format(folder: Path) -> None:
    write_text(folder / "a.json", '{"format_version": 2}')
    SavedFormat(version=1, error=errors.RunError, remedy="train again").read(folder / "a.json")


def _not_finite(_: Path) -> None:
    numbers_of("price", pa.array([1.0, np.inf]), Where("a.parquet", 10))


def _not_empty(folder: Path) -> None:
    write_text(folder / "a", "")
    check_new_folder(folder)


def _unfinished_run(folder: Path) -> None:
    write_text(folder / "settings.yaml", "")
    Run.load(folder)


def _schema(old: str, new: str) -> Callable[[Path], object]:
    assert old in SCHEMA
    return lambda _: Schema.parse(SCHEMA.replace(old, new, 1), "schema.yaml")


_FAILURES: list[tuple[Callable[[Path], object], str, str, str | None]] = [
    # failure, class, code, field; FOLDER stands for the folder
    (lambda _: build_settings(overrides=["train.epcohs=2"]), "SettingsError", "unknown_setting",
     "train.epcohs"),
    (lambda _: build_settings(overrides=["train.clip_norm=2"]), "SettingsError", "unknown_setting",
     "train.clip_norm"),
    (lambda _: build_settings(overrides=["model.depht=2"]), "SettingsError", "unknown_setting",
     "model.depht"),
    (lambda _: build_settings(overrides=["train.epochs=0"]), "SettingsError", "invalid_setting",
     "train.epochs"),
    (lambda _: build_settings(overrides=["model.attention_heads=5"]), "SettingsError",
     "invalid_setting", "model.attention_heads"),
    (lambda _: build_settings(model="hemx"), "SettingsError", "unknown_model", "model.name"),
    (lambda _: load_config({"prot": 1}, environment={}), "SettingsError", "unknown_setting",
     "--prot"),
    (lambda _: load_config({}, environment={"HEMIX_SERVE_PORT": "x"}), "SettingsError",
     "invalid_setting", "HEMIX_SERVE_PORT"),
    (_schema("split:", "splti:"), "SchemaError", "unknown_key", "splti"),
    (lambda _: Schema.parse("user: [", "s.yaml"), "SchemaError", "not_yaml", "s.yaml"),
    (lambda f: Schema.load(f / "s.yaml"), "SchemaError", "unreadable_file", "FOLDER/s.yaml"),
    (lambda f: read_json(f / "a.json", errors.DataError), "DataError", "missing_file",
     "FOLDER/a.json"),
    (_not_finite, "DataError", "invalid_data", "price"),
    (lambda f: Run.load(f / "run"), "RunError", "missing_run", "FOLDER/run"),
    (_unfinished_run, "RunError", "unfinished_run", "FOLDER"),
    (_other_format, "RunError", "wrong_format_version", "FOLDER/a.json"),
    (_full_disk, "StorageError", "disk_full", "FOLDER/a.npy"),
    (_not_empty, "UsageError", "out_exists", "--out"),
    (_locked_store, "StoreError", "store_locked", "FOLDER/events.db"),
    (_unknown_flag, "UsageError", "invalid_argument", "--jsn"),
    (_wrong_flag_value, "UsageError", "invalid_argument", "--users"),
    (_missing_flag, "UsageError", "invalid_argument", "--out"),
]  # fmt: skip


@pytest.mark.parametrize(("fail", "kind", "code", "field"), _FAILURES)
def test_a_failure_has_class_code_and_field(
    fail: Callable[[Path], object], kind: str, code: str, field: str | None, tmp_path: Path
) -> None:
    with pytest.raises(COMMAND_ERRORS) as caught:
        fail(tmp_path)
    error = to_hemix_error(caught.value)
    shown = error.field and error.field.replace(str(tmp_path), "FOLDER")
    assert (type(error).__name__, error.code, shown) == (kind, code, field)
    assert "\n" not in str(error) or kind == "UsageError"


def test_a_wrong_request_keeps_its_field_in_the_response() -> None:
    error = errors.RequestError("items[3].fields.price", "expected a finite number")
    response = ApiError.from_error(error, field=error.field)
    assert (response.http_status, response.code, response.field, response.message) == (
        422,
        "invalid",
        "items[3].fields.price",
        "expected a finite number",
    )
    assert response.retry_after is None


def test_a_store_that_fails_is_answered_with_a_time_to_retry() -> None:
    error = errors.StoreError("x.db: locked", code="store_locked")
    response = ApiError.from_error(error, code=errors.StoreError.code)
    assert (response.http_status, response.code, response.retry_after) == (
        503,
        "store_unavailable",
        1,
    )


@pytest.mark.parametrize(
    ("raised", "kind", "exit_code"),
    [
        (KeyboardInterrupt(), errors.Interrupted, 130),
        (errors.ProcessLost("rank 1"), errors.ProcessLost, 75),
        (errors.DataError("x"), errors.DataError, 2),
        (OSError(errno.EROFS, "read-only", "/x"), errors.StorageError, 2),
    ],
)
def test_the_class_decides_the_exit_code(
    raised: Exception, kind: type[HemixError], exit_code: int
) -> None:
    error = to_hemix_error(raised)
    assert type(error) is kind and error.exit_code == exit_code
