"""The JSON Schema of schema.yaml, for editors."""

from __future__ import annotations

from typing import Any

from hemix.features.registry import registered_features
from hemix.schema.schema import Schema

__all__ = ["json_schema"]

_FEATURE = "FeatureType"


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of schema.yaml, with the keys of every registered feature type."""
    content = Schema.model_json_schema()
    definitions: dict[str, Any] = content["$defs"]
    types = []
    for name, feature_type in registered_features().items():
        own = feature_type.model_json_schema(ref_template="#/$defs/{model}")
        definitions |= own.pop("$defs", {})
        own["required"] = sorted({*own.get("required", ()), "type"})
        key = f"{_FEATURE}.{name}"
        definitions[key] = own
        types.append({"$ref": f"#/$defs/{key}"})
    definitions[_FEATURE] = {"anyOf": types, "description": "A feature."}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **content}
