"""Stores of live events, behind one protocol."""

from hemix.serving.store.protocol import Store

__all__ = ["Store"]
