"""The modules of `hemix.exporting.export_model` as ONNX files, and their execution by onnxruntime.

The packages of the extra ``onnx`` are imported when they are needed.
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
from hemix.exporting.export_model import PaddedRequestScorer, PaddedUserEncoder
from hemix.exporting.tensor_specs import TensorSpec

__all__ = ["OPSET", "ExportedModel", "onnx_versions", "write_graph"]

OPSET = 20
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_INLINE_BYTES_MAX = 100 * 2**20
"""A graph with more weights has them in a file of their own; a protobuf is limited to 2 GiB."""


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
def write_graph(
    module: PaddedUserEncoder | PaddedRequestScorer, example: Sequence[Tensor], path: Path
) -> None:
    """Trace a module and write it as an ONNX graph.

    Args:
        module: In evaluation mode.
        example: One tensor for every input; every varying size is at least 2.
        path: The file; large weights go to ``path`` + ``.data``.
    """
    dims: dict[str, Any] = {}
    shapes = tuple(_dynamic_axes(tensor_spec, dims) for tensor_spec in module.inputs)
    with _silent_exporter():
        program = torch.onnx.export(
            module,
            tuple(example),
            dynamo=True,
            dynamic_shapes=(shapes,),
            input_names=[tensor_spec.name for tensor_spec in module.inputs],
            output_names=[tensor_spec.name for tensor_spec in module.outputs],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    graph = program.model.graph
    for value in [
        output for node in graph for output in node.outputs if not output.is_graph_output()
    ]:
        value.name = f"value.{value.name}"  # a label may have the name of an operator
        value.shape = None  # has the exporter's names of sizes; every runtime infers its own
    for value, tensor_spec in zip(
        [*graph.inputs, *graph.outputs], [*module.inputs, *module.outputs], strict=True
    ):
        value.shape = type(value.shape)(tensor_spec.shape) if value.shape is not None else None
    weight_bytes = sum(
        value.const_value.nbytes
        for value in graph.initializers.values()
        if value.const_value is not None
    )
    program.save(path, external_data=weight_bytes > _INLINE_BYTES_MAX)


def _dynamic_axes(tensor_spec: TensorSpec, dims: dict[str, Any]) -> dict[int, Any]:
    """The axes of a tensor whose size varies; ``dims`` gathers one dimension for every name."""
    return {
        axis: dims.setdefault(size, torch.export.Dim(f"size_{len(dims)}"))
        for axis, size in enumerate(tensor_spec.shape)
        if isinstance(size, str)
    }


@contextmanager
def _silent_exporter() -> Iterator[None]:
    """Hide the exporter's warnings about optional packages and its own deprecations."""
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
class ExportedModel:
    """Both graphs in onnxruntime, as a server runs them."""

    user: Any
    request: Any

    @classmethod
    def load(cls, user: Path, request: Path) -> ExportedModel:
        """Read both graphs.

        Args:
            user: File of the user encoder.
            request: File of the request scorer.

        Returns:
            The session.
        """
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
        """Score a batch.

        Args:
            user: Inputs of the user encoder by name.
            request: Inputs of the request scorer by name, without the user's state.

        Returns:
            Outputs [requests, candidates] by name.
        """
        state = _run(self.user, user)
        return _run(self.request, {**state, **request})


def _run(session: Any, feed: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feed)), strict=True))
