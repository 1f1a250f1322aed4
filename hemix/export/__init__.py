"""Trained models as files for other servers."""

from hemix.export.export import export_run

__all__ = ["export_run"]
