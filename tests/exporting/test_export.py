"""A refused export leaves no file; test_graphs.py has those that are written."""

from __future__ import annotations

import shutil
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from hemix import api
from hemix.errors import MissingExtra, RunError, UsageError
from hemix.exporting import export as exporting
from tests.exporting.sizes import GRAPHS, OPTIONS, lively
from tests.models.degenerate import DEGENERATE
from tests.refusals import raises

pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")


def test_an_unfinished_run_is_refused(run: Path, tmp_path: Path) -> None:
    unfinished = tmp_path / "unfinished"
    shutil.copytree(run, unfinished)
    (unfinished / "run.json").unlink()
    with raises(RunError, "--resume", code="unfinished_run", field=unfinished):
        api.export(unfinished, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_format_and_an_old_folder_are_refused(run: Path, tmp_path: Path) -> None:
    with raises(UsageError, "tflite", "onnx", field="--format"):
        api.export(run, tmp_path / "out", format="tflite")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "file").touch()
    with raises(UsageError, tmp_path / "old", code="out_exists", field="--out"):
        api.export(run, tmp_path / "old")
    assert [f.name for f in tmp_path.iterdir()] == ["old"]


def test_a_missing_package_is_refused_by_name(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(name: str) -> ModuleType:
        if name == "onnxscript":
            raise ModuleNotFoundError(name)
        return import_module(name)

    monkeypatch.setattr("hemix.exporting.graphs.import_module", without)
    with raises(MissingExtra, "ONNX", "hemix[onnx]", field="onnxscript"):
        api.export(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("largest", [2e-4, float("nan")])
def test_an_export_that_differs_from_the_model_leaves_no_file(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, largest: float
) -> None:
    monkeypatch.setattr(exporting, "write_graphs", lambda *_, **__: None)
    monkeypatch.setattr(exporting, "difference", lambda *_, **__: (largest, 100))
    with raises(RunError, f"{largest:.2e}", "1e-04", code="disagreement", field=run):
        api.export(run, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_every_option_is_in_a_graph() -> None:
    """The defaults are those of the exported run."""
    written = [item for options in GRAPHS.values() for item in options.items()]
    assert all(item in written for options in OPTIONS.values() for item in options.items())


def test_a_schema_without_candidate_fields_is_refused(tmp_path: Path) -> None:
    with raises(UsageError, code="not_exportable", field="features.item"):
        exporting.write_graphs(lively(DEGENERATE["a user id alone"]), tmp_path)
