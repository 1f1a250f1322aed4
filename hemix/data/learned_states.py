"""Learned states of features, as encoders.json has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hemix.data.levels import all_features
from hemix.errors import DataError
from hemix.features.base import StatePath
from hemix.schema import Schema

__all__ = ["states_from_json"]


def states_from_json(
    schema: Schema, content: Mapping[str, Any], path: Path
) -> dict[StatePath, Any]:
    """Read the learned states of all features.

    Args:
        schema: The schema.
        content: The content of encoders.json.
        path: Its path, for messages.

    Raises:
        DataError: The state of a feature is missing.
    """
    states: dict[StatePath, Any] = {}
    for level, name, feature in all_features(schema):
        state_path = feature.state_path(level, name)
        if state_path is None:
            continue
        state: Any = content
        for key in state_path:
            if not isinstance(state, Mapping) or key not in state:
                missing = ".".join(state_path)
                raise DataError(
                    f"{path}: damaged: {missing}, learned for {level}.{name}, is missing"
                )
            state = state[key]
        states[state_path] = feature.state_from_json(state)
    return states
