"""The registry of feature types: which class the ``type`` of a feature in schema.yaml names."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, TypeVar

from hemix.errors import UsageError
from hemix.features.base import FeatureType
from hemix.validation import did_you_mean

__all__ = ["ENTRY_POINTS", "parse_feature", "register_feature", "registered_features"]

ENTRY_POINTS = "hemix.features"
"""Entry points of this group name modules or classes that register feature types when loaded."""

_registered: dict[str, type[FeatureType]] = {}
_loaded_entry_points: list[str] = []
_Feature = TypeVar("_Feature", bound=FeatureType)


def register_feature(feature_type: type[_Feature]) -> type[_Feature]:
    """Register a feature type under the name that its field ``type`` has as default.

    Use it as a decorator::

        @register_feature
        class LogCount(SingleColumn):
            type: Literal["log_count"] = "log_count"

    Raises:
        UsageError: The class has no name, or another class has taken it.
    """
    if not (isinstance(feature_type, type) and issubclass(feature_type, FeatureType)):
        raise UsageError(f"feature type {feature_type!r}: expected a class made of FeatureType")
    name = feature_type.model_fields["type"].default
    if not isinstance(name, str) or not name:
        raise UsageError(
            f"feature type {_qualified_name(feature_type)}: expected a field such as "
            'type: Literal["log_count"] = "log_count", found no default name',
            field=_qualified_name(feature_type),
        )
    registered = _registered.get(name)
    if registered is not None and registered is not feature_type:
        raise UsageError(
            f"feature type {name!r}: registered twice, by {_qualified_name(registered)} and by "
            f"{_qualified_name(feature_type)}",
            code="name_taken",
            field=name,
            hint="rename one of them",
        )
    _registered[name] = feature_type
    return feature_type


def registered_features() -> dict[str, type[FeatureType]]:
    """Return all feature types by name: built-in ones, imported ones, then those of entry points.

    Raises:
        UsageError: An entry point cannot be loaded.
    """
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.value in _loaded_entry_points:
            continue
        try:
            loaded = entry.load()
        except UsageError:
            raise
        except Exception as error:  # the module of somebody else may raise anything
            raise UsageError(
                f"entry point {entry.name} of {ENTRY_POINTS}: {type(error).__name__}: {error}"
            ) from error
        if isinstance(loaded, type) and issubclass(loaded, FeatureType):
            register_feature(loaded)
        _loaded_entry_points.append(entry.value)
    return dict(_registered)


def parse_feature(content: Any) -> Any:
    """Parse what a schema says of one feature.

    Args:
        content: A mapping with ``type``, or a feature.

    Raises:
        ValueError: The type is missing or unknown; pydantic's for keys that do not fit the type.
    """
    if isinstance(content, FeatureType):
        return content
    if not isinstance(content, Mapping):
        raise ValueError("expected keys with values")
    name = content.get("type")
    feature_type = _registered.get(name) if isinstance(name, str) else None
    if feature_type is None:
        known = registered_features()
        if name is None:
            raise ValueError(f"expected a type ({_listed(known)})")
        if not isinstance(name, str) or name not in known:
            hint = did_you_mean(name, known) if isinstance(name, str) else ""
            message = f"expected type {_listed(known)}, got {name!r}"
            raise ValueError(f"{message}; {hint}" if hint else message)
        feature_type = known[name]
    return feature_type.model_validate(content)


def _listed(names: Mapping[str, Any]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def _qualified_name(feature_type: type[FeatureType]) -> str:
    return f"{feature_type.__module__}.{feature_type.__qualname__}"
