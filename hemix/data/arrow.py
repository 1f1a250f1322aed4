"""PyArrow, imported at its first use, so that ``import hemix`` and reading a schema stay fast.

``importlib.util.LazyLoader`` would put the unloaded module into ``sys.modules``, for all other code
in the process too.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc
else:

    class _LazyModule:
        """A module that is imported at the first access to an attribute."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, attribute: str) -> Any:
            value = getattr(import_module(self._name), attribute)
            setattr(self, attribute, value)
            return value

    pa = _LazyModule("pyarrow")
    pc = _LazyModule("pyarrow.compute")

__all__ = ["pa", "pc"]
