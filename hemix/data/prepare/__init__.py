"""Logs -> dataset folder: see layout.py for what is written and pipeline.py for the order of the
work.
"""

from hemix.data.prepare.origins import shift_split
from hemix.data.prepare.pipeline import prepare

__all__ = ["prepare", "shift_split"]
