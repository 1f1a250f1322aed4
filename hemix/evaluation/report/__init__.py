"""``report.html``: one file that shows what a model is, what it cost and how good it is."""

from hemix.evaluation.report.page import render_report, write_report
from hemix.evaluation.report.templates import render

__all__ = ["render", "render_report", "write_report"]
