"""Models from their settings: with fresh weights, or only counted."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch

from hemix.data.spec import InputSpec
from hemix.distributed import DistributedContext
from hemix.errors import SettingsError
from hemix.models.base import ModelConfig, Ranker
from hemix.models.predictor import Predictor
from hemix.models.registry import find_model
from hemix.nn.sharded import ShardedTables

__all__ = ["build_model", "build_predictor", "count_parameters", "is_neural"]


def is_neural(config: ModelConfig) -> bool:
    """Return whether a model trains step by step; others, such as boosted trees, do not."""
    return issubclass(find_model(config.name).model, Ranker)


def build_model(
    spec: InputSpec, config: ModelConfig, seed: int, distributed: DistributedContext | None = None
) -> Ranker:
    """Return a neural model with fresh weights, on the CPU in fp32.

    Args:
        spec: The data that it reads.
        config: Its settings.
        seed: Where the weights come from.
        distributed: With other processes, each holds its rows of the tables alone.

    Raises:
        SettingsError: The model is unknown, does not learn step by step, or has weights that
            nobody draws.
    """
    if not is_neural(config):
        raise SettingsError(f"model.name: {config.name} is no neural model", field="model.name")
    with _on_meta_device():
        model = cast(Ranker, _make(spec, config))
        if distributed is not None:
            model.tables = ShardedTables(spec.tables, model.config.embedding_size, distributed)
    model.to_empty(device="cpu")
    _initialise(model, seed)
    return model


def build_predictor(spec: InputSpec, config: ModelConfig, seed: int = 0) -> Predictor:
    """Return a model of any kind, to be filled with a run's weights.

    Args:
        spec: The data that it reads.
        config: Its settings.
        seed: Where a neural model's first weights come from.

    Raises:
        SettingsError: The model is unknown.
    """
    return build_model(spec, config, seed) if is_neural(config) else _make(spec, config)


def count_parameters(spec: InputSpec, config: ModelConfig) -> tuple[int, int]:
    """Return dense and embedding parameters of a neural model, without allocating them.

    Args:
        spec: The data that it reads.
        config: Its settings.
    """
    with _on_meta_device():
        model = cast(Ranker, _make(spec, config))
    return sum(p.numel() for p in model.dense_parameters()), model.tables.weight.numel()


@contextmanager
def _on_meta_device() -> Iterator[None]:
    """Models made inside have shapes alone: PyTorch's own first values would cost time and numbers
    of the global generator."""
    with torch.device("meta"), warnings.catch_warnings():
        # a map without inputs
        warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
        yield


def _make(spec: InputSpec, config: ModelConfig) -> Predictor:
    make: Any = find_model(config.name).model
    model: Predictor = make(spec, config)
    return model


@torch.no_grad()
def _initialise(model: Ranker, seed: int) -> None:
    """Draw the weights. Raises SettingsError naming what a model from outside leaves undrawn."""
    for parameter in model.dense_parameters():
        parameter.fill_(torch.nan)
    try:
        model.init_weights(torch.Generator().manual_seed(seed))
    except NotImplementedError as error:
        raise SettingsError(
            f"model.name: {model.config.name}: {error}",
            code="uninitialised_weights",
            field="model.name",
        ) from error
    for name, parameter in model.named_dense_parameters():
        if bool(parameter.isnan().any()):
            raise SettingsError(
                f"model.name: {model.config.name}: init_weights leaves {name} as it was",
                code="uninitialised_weights",
                field="model.name",
            )
