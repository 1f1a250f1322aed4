"""Stores of live events, behind one protocol."""

from hemix.serving.stores.base import Store, StoreLimits
from hemix.serving.stores.urls import open_store

__all__ = ["Store", "StoreLimits", "open_store"]
