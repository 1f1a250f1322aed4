"""A run as files for other servers: two ONNX graphs, checked against the model before they are
kept.

Knows runs and folders; the graphs are `hemix.exporting.export_model`, the format
`hemix.exporting.graphs`.
"""

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
from hemix.exporting.draws import draw_batch
from hemix.exporting.export_model import (
    DenseRequest,
    DenseUser,
    Port,
    dense_form,
    exportable,
    takes_times,
)
from hemix.exporting.feed import by_candidate, request_feed, user_feed
from hemix.exporting.graphs import OPSET, Session, onnx_versions, write_graph
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
"""How far a probability of the graphs may be from the model's."""

_TRACED = dict(users=3, requests=4, candidates=5, events=7, realtime=3)
_CHECKED = (
    dict(users=1, requests=1, candidates=1, events=1, realtime=1),
    dict(users=1, requests=1, candidates=200, events=300, realtime=40),
    dict(users=6, requests=17, candidates=9, events=60, realtime=20),
    dict(users=3, requests=5, candidates=4, events=0, realtime=0),
    dict(users=2, requests=3, candidates=30, events=50, realtime=0),
    dict(users=2, requests=3, candidates=30, events=50, realtime=50),
)
"""Sizes of the batches that the graphs are checked on: one of everything, many candidates, many
users, no event at all, no real-time event, real-time events only.
"""

Progress = Callable[[str, float], None]


def export_run(
    run: str | Path,
    out: str | Path,
    format: str = "onnx",
    *,
    on_progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Write both graphs of a run, its schema, encoders and statistics, and export.json into a new
    folder ``out``; returns export.json.

    Raises UsageError for an unknown format, a model that cannot be exported or an ``out`` that is
    not new, MissingExtra without the extra ``onnx``, RunError for a run that is not finished or
    where onnxruntime's probabilities are more than ``TOLERANCE`` away.
    """
    if format != "onnx":
        raise UsageError(f"--format {format}: expected onnx")
    versions = onnx_versions()
    loaded = Run.load(run)
    model = exportable(loaded.model)
    user, request = dense_form(model)
    with new_folder(out) as folder:
        write_graphs(model, folder, on_progress=on_progress)
        largest, checked = difference(model, folder, on_progress=on_progress)
        if not largest <= TOLERANCE:
            raise RunError(
                f"{loaded.folder}: the exported graphs differ from the model by {largest:.2e}, "
                f"allowed is {TOLERANCE:.0e}"
            )
        shutil.copyfile(loaded.folder / "schema.yaml", folder / "schema.yaml")
        copy_folder(loaded.folder / "encoders", folder / "encoders")
        if loaded.schema.statistics:
            loaded.statistics()  # refuses a damaged table
            copy_folder(loaded.folder / "statistics", folder / "statistics")
        files = {
            str(file.relative_to(folder)): sha256(file)
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        }
        role = loaded.schema.roles.bias
        content = {
            "schema_version": 1,
            FORMAT_KEY: EXPORT_VERSION,
            "format": format,
            "model": loaded.settings.model.name,
            "opset": OPSET,
            "graphs": {
                "user_encoder": {"file": USER_FILE, **_ports(user)},
                "request_scorer": {"file": REQUEST_FILE, **_ports(request)},
            },
            "score": {
                "expression": loaded.schema.score_expression.text,
                "names": list(loaded.schema.score_expression.names),
            },
            "bias": None
            if role is None
            else {"column": role.column, "serve_as": min(role.serve_as, role.max)},
            "max_abs_difference": largest,
            "checked_probabilities": checked,
            "tolerance": TOLERANCE,
            "weights": loaded.info["weights"],
            "fingerprint": loaded.info["fingerprint"],
            "files": files,
            "versions": {"hemix": version("hemix"), "torch": torch.__version__, **versions},
        }
        write_json(folder / EXPORT_FILE, content)
    return content


def write_graphs(model: HeMix, folder: Path, *, on_progress: Progress = lambda *_: None) -> None:
    """Both graphs of ``model``, which is in evaluation mode, into ``folder``.

    Raises UsageError for a model that cannot be exported.
    """
    user, request = dense_form(model)
    batch = draw_batch(model.spec, 0, **_TRACED)
    given = {name: torch.from_numpy(value) for name, value in _feeds(batch, model).items()}
    on_progress("user encoder", 0.0)
    example = [given[port.name] for port in user.inputs]
    write_graph(user, example, folder / USER_FILE)
    on_progress("request scorer", 0.3)
    with torch.no_grad():
        given |= {
            port.name: value for port, value in zip(user.outputs, user(*example), strict=True)
        }
    write_graph(request, [given[port.name] for port in request.inputs], folder / REQUEST_FILE)


def difference(
    model: HeMix, folder: Path, *, on_progress: Progress = lambda *_: None
) -> tuple[float, int]:
    """(largest absolute difference of a probability between ``model`` and the graphs in ``folder``,
    how many were compared).
    """
    session = Session.load(folder / USER_FILE, folder / REQUEST_FILE)
    largest, compared = 0.0, 0
    for seed, sizes in enumerate(_CHECKED):
        on_progress("check", seed / len(_CHECKED))
        batch = draw_batch(model.spec, 1 + seed, **sizes)
        expected = model.predict(batch)
        found = session.scores(
            user_feed(batch, model.spec), request_feed(batch, model.spec, takes_times(model))
        )
        for name, value in expected.items():
            apart = np.abs(
                by_candidate(batch, found[name]).astype(np.float64) - value.double().numpy()
            )
            largest, compared = float(np.maximum(largest, apart.max())), compared + apart.size
    return largest, compared


def _feeds(batch: RequestBatch, model: HeMix) -> dict[str, Any]:
    spec: InputSpec = model.spec
    return {**user_feed(batch, spec), **request_feed(batch, spec, takes_times(model))}


def _ports(half: DenseUser | DenseRequest) -> dict[str, Any]:
    return {
        "inputs": [_port(port) for port in half.inputs],
        "outputs": [_port(port) for port in half.outputs],
    }


def _port(port: Port) -> dict[str, Any]:
    dtype = str(port.dtype).removeprefix("torch.")
    columns = {"columns": list(port.columns)} if port.columns else {}
    return {"name": port.name, "dtype": dtype, "shape": list(port.shape), **columns}
