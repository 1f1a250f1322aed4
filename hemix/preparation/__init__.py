"""Logs -> dataset folder: see layout.py for what is written and pipeline.py for the order of the
work.
"""

from hemix.preparation.origins import shift_split
from hemix.preparation.pipeline import prepare

__all__ = ["prepare", "shift_split"]
