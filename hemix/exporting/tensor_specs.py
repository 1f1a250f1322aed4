"""The inputs and outputs of the exported graphs: names, types and shapes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from hemix.data.spec import InputSpec, LevelSpec
from hemix.models.hemix import HeMix

__all__ = ["PADDING", "TensorSpec", "level_tensors", "state_tensors", "takes_times", "user_tensors"]

PADDING = -1
"""Id in a multi-valued feature that stands for no value."""


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One input or output: a named tensor."""

    name: str
    dtype: torch.dtype
    shape: tuple[str | int, ...]
    """A name for a size that may vary."""
    columns: tuple[str, ...] = ()
    """Names along the last dimension, where it has any."""


def level_tensors(name: str, level: LevelSpec, rows: tuple[str, ...]) -> Iterator[TensorSpec]:
    """Yield the tensors of a level's columns.

    Args:
        name: The level, with which the tensors' names begin.
        level: Its columns.
        rows: Names of the leading dimensions.
    """
    if level.tables:
        yield TensorSpec(
            name=f"{name}_ids",
            dtype=torch.int64,
            shape=(*rows, len(level.tables)),
            columns=level.names,
        )
    for feature in level.jagged_names:
        yield TensorSpec(
            name=f"{name}_bag_{feature}", dtype=torch.int64, shape=(*rows, f"most_{name}_{feature}")
        )
    if level.numbers:
        yield TensorSpec(
            name=f"{name}_numbers",
            dtype=torch.float32,
            shape=(*rows, level.numbers),
            columns=level.number_names,
        )


def state_tensors(model: HeMix) -> tuple[TensorSpec, ...]:
    """Return the tensors of the user state, an output of one graph and an input of the other."""
    config, rows = model.config, ("users", "history_rows")
    tensor_specs = [
        TensorSpec(
            name="state_share", dtype=torch.float32, shape=("users", config.tokenizer_hidden)
        ),
        TensorSpec(name="state_events", dtype=torch.float32, shape=(*rows, config.token_width)),
        TensorSpec(name="state_global", dtype=torch.float32, shape=(*rows, 2 * config.token_width)),
    ]
    if model.products is not None:
        fields = model.products.fields
        if fields.user_count:
            tensor_specs.append(
                TensorSpec(
                    name="state_fields",
                    dtype=torch.float32,
                    shape=("users", fields.user_count, fields.size),
                )
            )
        if fields.columns:
            tensor_specs.append(
                TensorSpec(
                    name="state_columns",
                    dtype=torch.float32,
                    shape=(*rows, fields.columns * fields.size),
                )
            )
    if takes_times(model):
        tensor_specs.append(TensorSpec(name="state_time_ms", dtype=torch.int64, shape=rows))
    return tuple(tensor_specs)


def user_tensors(spec: InputSpec) -> Iterator[TensorSpec]:
    """Yield the inputs of the user graph."""
    yield from level_tensors("user", spec.user, ("users",))
    if spec.event_item_columns:
        names = tuple(spec.item.names[c] for c in spec.event_item_columns)
        yield TensorSpec(
            name="event_item_ids", dtype=torch.int64, shape=("items", len(names)), columns=names
        )
        yield TensorSpec(name="event_item", dtype=torch.int64, shape=("users", "events"))
    if spec.event.tables:
        shape = ("users", "events", len(spec.event.tables))
        yield TensorSpec(name="event_ids", dtype=torch.int64, shape=shape, columns=spec.event.names)
    yield TensorSpec(name="event_time_ms", dtype=torch.int64, shape=("users", "events"))


def takes_times(model: HeMix) -> bool:
    """Whether the graphs need the times of requests and events."""
    return model.config.time_encoding != "none"
