"""Feature types, one file each: schema keys, learning, encoding of logs and of live values.

A new type is one file in this folder, or a class elsewhere that is registered before a schema is
read. See docs/project/decisions/0019-feature-types.md.
"""

from __future__ import annotations

import importlib
import pkgutil

# messages list the types in this order
# isort: off
from hemix.features.categorical import Categorical, HashRows
from hemix.features.numeric import Numeric
from hemix.features.vector import Vector
from hemix.features.coordinates import Coordinates
from hemix.features.distance import Distance
from hemix.features.calendar import CalendarField

# isort: on
from hemix.features.base import FeatureType, Vocabulary
from hemix.features.registry import register_feature, registered_features

__all__ = [
    "CalendarField",
    "Categorical",
    "Coordinates",
    "Distance",
    "FeatureType",
    "HashRows",
    "Numeric",
    "Vector",
    "Vocabulary",
    "register_feature",
    "registered_features",
]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
