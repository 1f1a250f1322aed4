"""Export of trained models for other servers."""

from hemix.exporting.export import export_run

__all__ = ["export_run"]
