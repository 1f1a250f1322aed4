"""The run folder: what was trained, its weights, its scores and figures."""

from hemix.runs.folder import Run

__all__ = ["Run"]
