"""What the commands show: progress on stderr while they work, tables and next steps when done."""

from hemix.display.benchmarks import benchmark_table
from hemix.display.commands import command_line
from hemix.display.evaluation import demo_summary, metrics_table, notes_lines
from hemix.display.experiments import experiment_table, power_line
from hemix.display.preparation import check_summary, manifest_summary
from hemix.display.progress import Display
from hemix.display.scoring import scoring_notes
from hemix.display.serving import serving_banner
from hemix.display.studies import StudyDisplay, laws_table, study_table, suite_table
from hemix.display.tables import counts_line, facts
from hemix.display.training import TrainingDisplay, training_summary

__all__ = [
    "Display",
    "StudyDisplay",
    "TrainingDisplay",
    "benchmark_table",
    "check_summary",
    "command_line",
    "counts_line",
    "demo_summary",
    "experiment_table",
    "facts",
    "laws_table",
    "manifest_summary",
    "metrics_table",
    "notes_lines",
    "power_line",
    "scoring_notes",
    "serving_banner",
    "study_table",
    "suite_table",
    "training_summary",
]
