"""The halves of `hemix.exporting.export_model` as ONNX files, and those files run by onnxruntime.

The only module that knows ONNX; the packages of the extra ``onnx`` are imported when they are
needed.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from hemix.errors import MissingExtra
from hemix.exporting.export_model import DenseRequest, DenseUser, Port

__all__ = ["OPSET", "Session", "onnx_versions", "write_graph"]

OPSET = 20
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_INLINE_BYTES_MAX = 100 * 2**20
"""A graph with more weights than this keeps them in a file beside it; a protobuf ends at 2 GiB."""


def onnx_versions() -> dict[str, str]:
    """Versions of the packages that an export needs.

    Raises MissingExtra naming the first that is not installed.
    """
    for package in _PACKAGES:
        try:
            import_module(package)
        except ImportError as error:
            raise MissingExtra(package, "onnx", "an ONNX export") from error
    return {package: version(package) for package in _PACKAGES}


@torch.no_grad()
def write_graph(half: DenseUser | DenseRequest, example: Sequence[Tensor], path: Path) -> None:
    """Trace ``half`` with example inputs (one per port; every varying size at least 2) and write it
    to ``path``, with large weights in ``path`` + ``.data``.
    """
    dims: dict[str, Any] = {}
    shapes = tuple(_varying(port, dims) for port in half.inputs)
    with _quiet():
        program = torch.onnx.export(
            half,
            tuple(example),
            dynamo=True,
            dynamic_shapes=(shapes,),
            input_names=[port.name for port in half.inputs],
            output_names=[port.name for port in half.outputs],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    graph = program.model.graph
    for value in [
        output for node in graph for output in node.outputs if not output.is_graph_output()
    ]:
        value.name = f"value.{value.name}"  # a label may be called like an operator
        value.shape = None  # in the exporter's names of sizes; every runtime infers its own
    for value, port in zip(
        [*graph.inputs, *graph.outputs], [*half.inputs, *half.outputs], strict=True
    ):
        value.shape = type(value.shape)(port.shape) if value.shape is not None else None
    held = sum(
        value.const_value.nbytes
        for value in graph.initializers.values()
        if value.const_value is not None
    )
    program.save(path, external_data=held > _INLINE_BYTES_MAX)


def _varying(port: Port, dims: dict[str, Any]) -> dict[int, Any]:
    """The dimensions of a port that vary, each under its name."""
    return {
        place: dims.setdefault(size, torch.export.Dim(f"size_{len(dims)}"))
        for place, size in enumerate(port.shape)
        if isinstance(size, str)
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's own remarks (packages that it could also use, its deprecations)."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@dataclass(frozen=True)
class Session:
    """Both graphs in onnxruntime, as a server would run them."""

    user: Any
    request: Any

    @classmethod
    def load(cls, user: Path, request: Path) -> Session:
        """Read both files."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        return cls(
            *(
                onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
                for path in (user, request)
            )
        )

    def scores(
        self, user: Mapping[str, npt.NDArray[Any]], request: Mapping[str, npt.NDArray[Any]]
    ) -> dict[str, npt.NDArray[Any]]:
        """Outputs [requests, candidates] by name."""
        state = _run(self.user, user)
        return _run(self.request, {**state, **request})


def _run(session: Any, feed: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feed)), strict=True))
