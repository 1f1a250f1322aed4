"""The schema: a YAML file with the meaning of the columns of a user's logs.

It is validated when it is read and frozen afterwards. Its fingerprint goes into every dataset, run
and checkpoint.
"""

from __future__ import annotations

from hemix.schema.columns import Bias, Clock, Feature, Features, Roles, Tables
from hemix.schema.expression import Expression
from hemix.schema.history import History
from hemix.schema.labels import Label
from hemix.schema.schema import Schema
from hemix.schema.split import Boundary, Split

__all__ = [
    "Bias",
    "Boundary",
    "Clock",
    "Expression",
    "Feature",
    "Features",
    "History",
    "Label",
    "Roles",
    "Schema",
    "Split",
    "Tables",
]
