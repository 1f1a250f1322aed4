"""Export a run for other servers: two ONNX graphs, checked against the model, with its files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hemix.data.batch import RequestBatch
from hemix.data.spec import InputSpec
from hemix.errors import RunError, UsageError
from hemix.exporting.export_model import check_exportable, padded_form
from hemix.exporting.feed import by_candidate, request_feed, user_feed
from hemix.exporting.graphs import OPSET, ExportedModel, onnx_versions, write_graph
from hemix.exporting.random_batch import random_batch
from hemix.exporting.tensor_specs import TensorSpec, takes_times
from hemix.files import copy_folder, new_folder, write_json
from hemix.formats import FORMAT_KEY
from hemix.models.hemix import HeMix
from hemix.runs import Run
from hemix.runs.weights import sha256

__all__ = [
    "EXPORT_FILE",
    "REQUEST_FILE",
    "TOLERANCE",
    "USER_FILE",
    "difference",
    "export_run",
    "write_graphs",
]

EXPORT_FILE = "export.json"
EXPORT_VERSION = 1
"""Of export.json, which only other servers read"""
USER_FILE = "user_encoder.onnx"
REQUEST_FILE = "request_scorer.onnx"
TOLERANCE = 1e-4
"""Largest allowed difference between a probability of the graphs and of the model."""

_TRACING_SIZES = dict(users=3, requests=4, candidates=5, events=7, realtime=3)
"""Sizes of the inputs are at least 2, because the exporter takes 1 for a fixed size, and different,
so that no two are taken for one."""
_CHECK_SIZES = (
    dict(users=1, requests=1, candidates=1, events=1, realtime=1),
    dict(users=1, requests=1, candidates=200, events=300, realtime=40),
    dict(users=6, requests=17, candidates=9, events=60, realtime=20),
    dict(users=3, requests=5, candidates=4, events=0, realtime=0),
    dict(users=2, requests=3, candidates=30, events=50, realtime=0),
    dict(users=2, requests=3, candidates=30, events=50, realtime=50),
)
"""Sizes of the batches on which the graphs are checked: one of everything, many candidates, many
users, no event, no real-time event, only real-time events.
"""

Progress = Callable[[str, float], None]


def export_run(
    run: str | Path,
    out: str | Path,
    format: str = "onnx",
    *,
    on_progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Write the graphs of a run, its schema, encoders and statistics, and export.json.

    Args:
        run: The run folder.
        out: The new folder to write.
        format: ``onnx``.
        on_progress: Called with the activity and the fraction of the export that is done.

    Returns:
        The content of export.json.

    Raises:
        UsageError: The format is unknown, the model cannot be exported or ``out`` is not new.
        MissingExtra: The extra ``onnx`` is not installed.
        RunError: The run is not finished, or probabilities of onnxruntime differ from the model's
            by more than ``TOLERANCE``.
    """
    if format != "onnx":
        raise UsageError(f"--format {format}: expected onnx", field="--format")
    versions = onnx_versions()
    loaded = Run.load(run)
    model = check_exportable(loaded.model)
    with new_folder(out) as folder:
        write_graphs(model, folder, on_progress=on_progress)
        largest, compared = difference(model, folder, on_progress=on_progress)
        if not largest <= TOLERANCE:
            raise _disagreement(loaded.folder, largest)
        _copy_run_files(loaded, folder)
        content = {
            FORMAT_KEY: EXPORT_VERSION,
            "format": format,
            "model": loaded.settings.model.name,
            "opset": OPSET,
            "graphs": _graphs(model),
            **_scoring(loaded),
            "max_abs_difference": largest,
            "checked_probabilities": compared,
            "tolerance": TOLERANCE,
            "weights": loaded.info["weights"],
            "fingerprint": loaded.info["fingerprint"],
            "files": {
                str(file.relative_to(folder)): sha256(file)
                for file in sorted(folder.rglob("*"))
                if file.is_file()
            },
            "versions": {"hemix": version("hemix"), "torch": torch.__version__, **versions},
        }
        write_json(folder / EXPORT_FILE, content)
    return content


def _disagreement(folder: Path, largest: float) -> RunError:
    return RunError(
        f"{folder}: the exported graphs differ from the model by {largest:.2e}, allowed is "
        f"{TOLERANCE:.0e}",
        code="disagreement",
        field=str(folder),
    )


def _copy_run_files(run: Run, folder: Path) -> None:
    shutil.copyfile(run.folder / "schema.yaml", folder / "schema.yaml")
    copy_folder(run.folder / "encoders", folder / "encoders")
    if run.schema.statistics:
        run.statistics()  # refuses a damaged table
        copy_folder(run.folder / "statistics", folder / "statistics")


def _scoring(run: Run) -> dict[str, Any]:
    """How a server combines the outputs, and the position that it serves at."""
    expression, role = run.schema.score_expression, run.schema.roles.bias
    return {
        "score": {"expression": expression.text, "names": list(expression.names)},
        "bias": None
        if role is None
        else {"column": role.column, "serve_as": min(role.serve_as, role.max)},
    }


def write_graphs(model: HeMix, folder: Path, *, on_progress: Progress = lambda *_: None) -> None:
    """Trace both graphs of a model and write them.

    Args:
        model: In evaluation mode.
        folder: The folder to write to.
        on_progress: Called with the activity and the fraction of the export that is done.

    Raises:
        UsageError: The model cannot be exported.
    """
    user, request = padded_form(model)
    batch = random_batch(model.spec, 0, **_TRACING_SIZES)
    inputs = {name: torch.from_numpy(value) for name, value in _feeds(batch, model).items()}
    on_progress("user encoder", 0.0)
    example = [inputs[tensor_spec.name] for tensor_spec in user.inputs]
    write_graph(user, example, folder / USER_FILE)
    on_progress("request scorer", 0.3)
    with torch.no_grad():
        inputs |= {
            tensor_spec.name: value
            for tensor_spec, value in zip(user.outputs, user(*example), strict=True)
        }
    write_graph(
        request, [inputs[tensor_spec.name] for tensor_spec in request.inputs], folder / REQUEST_FILE
    )


def difference(
    model: HeMix, folder: Path, *, on_progress: Progress = lambda *_: None
) -> tuple[float, int]:
    """Compare the graphs' probabilities with the model's on random batches.

    Args:
        model: In evaluation mode.
        folder: With the graphs.
        on_progress: Called with the activity and the fraction of the check that is done.

    Returns:
        The largest absolute difference, and how many probabilities were compared.
    """
    session = ExportedModel.load(folder / USER_FILE, folder / REQUEST_FILE)
    largest, compared = 0.0, 0
    for seed, sizes in enumerate(_CHECK_SIZES):
        on_progress("check", seed / len(_CHECK_SIZES))
        batch = random_batch(model.spec, 1 + seed, **sizes)
        expected = model.predict(batch)
        exported = session.scores(
            user_feed(batch, model.spec), request_feed(batch, model.spec, takes_times(model))
        )
        for name, value in expected.items():
            differences = np.abs(
                by_candidate(batch, exported[name]).astype(np.float64) - value.double().numpy()
            )
            largest = float(np.maximum(largest, differences.max()))  # keeps NaN
            compared += differences.size
    return largest, compared


def _feeds(batch: RequestBatch, model: HeMix) -> dict[str, Any]:
    spec: InputSpec = model.spec
    return {**user_feed(batch, spec), **request_feed(batch, spec, takes_times(model))}


def _graphs(model: HeMix) -> dict[str, Any]:
    """File, inputs and outputs of both graphs."""
    user, request = padded_form(model)
    return {
        name: {
            "file": file,
            "inputs": [_described(tensor_spec) for tensor_spec in module.inputs],
            "outputs": [_described(tensor_spec) for tensor_spec in module.outputs],
        }
        for name, file, module in (
            ("user_encoder", USER_FILE, user),
            ("request_scorer", REQUEST_FILE, request),
        )
    }


def _described(tensor_spec: TensorSpec) -> dict[str, Any]:
    dtype = str(tensor_spec.dtype).removeprefix("torch.")
    columns = {"columns": list(tensor_spec.columns)} if tensor_spec.columns else {}
    return {"name": tensor_spec.name, "dtype": dtype, "shape": list(tensor_spec.shape), **columns}
