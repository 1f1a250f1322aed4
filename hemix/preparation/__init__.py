"""Logs -> dataset folder: see layout.py for what is written and pipeline.py for the order of the
work.
"""

from hemix.preparation.pipeline import prepare
from hemix.preparation.split_shift import shift_split

__all__ = ["prepare", "shift_split"]
