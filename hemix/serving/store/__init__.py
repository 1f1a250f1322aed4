"""Stores of live events, behind one protocol."""

from hemix.serving.store.limits import Limits
from hemix.serving.store.protocol import Store
from hemix.serving.store.urls import open_store

__all__ = ["Limits", "Store", "open_store"]
