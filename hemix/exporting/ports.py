"""Ports of the exported graphs: names, types and shapes of their inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from hemix.data.spec import InputSpec, LevelSpec
from hemix.models.hemix import HeMix

__all__ = ["PADDING", "Port", "level_ports", "state_ports", "takes_times", "user_ports"]

PADDING = -1
"""Id in a multi-valued feature that stands for no value."""


@dataclass(frozen=True, kw_only=True)
class Port:
    """One input or output: a named tensor."""

    name: str
    dtype: torch.dtype
    shape: tuple[str | int, ...]
    """A name for a size that may vary."""
    columns: tuple[str, ...] = ()
    """Names along the last dimension, where it has any."""


def level_ports(name: str, level: LevelSpec, rows: tuple[str, ...]) -> Iterator[Port]:
    """Yield the ports of a level's columns.

    Args:
        name: The level, with which the ports' names begin.
        level: Its columns.
        rows: Names of the leading dimensions.
    """
    if level.tables:
        yield Port(
            name=f"{name}_ids",
            dtype=torch.int64,
            shape=(*rows, len(level.tables)),
            columns=level.names,
        )
    for feature in level.jagged_names:
        yield Port(
            name=f"{name}_bag_{feature}", dtype=torch.int64, shape=(*rows, f"most_{name}_{feature}")
        )
    if level.numbers:
        yield Port(
            name=f"{name}_numbers",
            dtype=torch.float32,
            shape=(*rows, level.numbers),
            columns=level.number_names,
        )


def state_ports(model: HeMix) -> tuple[Port, ...]:
    """Return the ports of the user state, an output of one graph and an input of the other."""
    config, rows = model.config, ("users", "history_rows")
    ports = [
        Port(name="state_share", dtype=torch.float32, shape=("users", config.tokenizer_hidden)),
        Port(name="state_events", dtype=torch.float32, shape=(*rows, config.token_width)),
        Port(name="state_global", dtype=torch.float32, shape=(*rows, 2 * config.token_width)),
    ]
    if model.products is not None:
        fields = model.products.fields
        if fields.user_count:
            ports.append(
                Port(
                    name="state_fields",
                    dtype=torch.float32,
                    shape=("users", fields.user_count, fields.size),
                )
            )
        if fields.columns:
            ports.append(
                Port(
                    name="state_columns",
                    dtype=torch.float32,
                    shape=(*rows, fields.columns * fields.size),
                )
            )
    if takes_times(model):
        ports.append(Port(name="state_time_ms", dtype=torch.int64, shape=rows))
    return tuple(ports)


def user_ports(spec: InputSpec) -> Iterator[Port]:
    """Yield the inputs of the user graph."""
    yield from level_ports("user", spec.user, ("users",))
    if spec.event_item_columns:
        names = tuple(spec.item.names[c] for c in spec.event_item_columns)
        yield Port(
            name="event_item_ids", dtype=torch.int64, shape=("items", len(names)), columns=names
        )
        yield Port(name="event_item", dtype=torch.int64, shape=("users", "events"))
    if spec.event.tables:
        shape = ("users", "events", len(spec.event.tables))
        yield Port(name="event_ids", dtype=torch.int64, shape=shape, columns=spec.event.names)
    yield Port(name="event_time_ms", dtype=torch.int64, shape=("users", "events"))


def takes_times(model: HeMix) -> bool:
    """Whether the graphs need the times of requests and events."""
    return model.config.time_encoding != "none"
