"""Types that the functions of the API share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

__all__ = [
    "DatasetName",
    "DerivedLogName",
    "EngineName",
    "PathLike",
    "Progress",
    "ProtocolName",
    "SplitName",
    "ignore_progress",
]

PathLike: TypeAlias = str | Path
Progress: TypeAlias = Callable[[str, float], None]
"""Called with an activity and the completed fraction of it, 0 to 1."""
DatasetName: TypeAlias = Literal["ebnerd", "kuairand", "mind", "movielens"]
DerivedLogName: TypeAlias = Literal[
    "daily_items",
    "small_log",
    "long_lists",
    "untimed_history",
    "anonymous_requests",
    "drawn_negatives",
    "unseen_items",
]
ProtocolName: TypeAlias = Literal["techjam"]
EngineName: TypeAlias = Literal["local", "spark"]
SplitName: TypeAlias = Literal["train", "valid", "test"]


def ignore_progress(_activity: str, _fraction: float) -> None:
    """Do nothing with the progress.

    Args:
        _activity: What is done.
        _fraction: The completed fraction, 0 to 1.
    """
