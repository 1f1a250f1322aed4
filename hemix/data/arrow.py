"""PyArrow for the files that a schema needs, loaded when it is first used.

Feature types both stand in a schema and read Arrow columns. ``import hemix; hemix.Schema`` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc
else:

    class _LazyModule:
        """A module that is imported at its first attribute, and costs no more than one afterwards."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, attribute: str) -> Any:
            value = getattr(import_module(self._name), attribute)
            setattr(self, attribute, value)
            return value

    pa = _LazyModule("pyarrow")
    pc = _LazyModule("pyarrow.compute")

__all__ = ["pa", "pc"]
