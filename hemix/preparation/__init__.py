"""Preparation: logs to a dataset folder. It needs no torch.

pipeline.py has the stages in their order; docs/reference/dataset.md lists the files of the folder.
"""

from __future__ import annotations

from hemix.preparation.pipeline import prepare
from hemix.preparation.split_shift import shift_split

__all__ = ["prepare", "shift_split"]
