"""A run while it trains, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hemix.display.commands import command_line
from hemix.display.evaluation import notes_lines
from hemix.evaluation.wording import size

if TYPE_CHECKING:
    from hemix.display.progress import Display
    from hemix.training.callbacks import Record

__all__ = ["TrainingDisplay", "training_summary"]


class TrainingDisplay:
    """Shows a run while it trains: header, evaluations and notes as lines, the steps as a bar."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._note = ""

    def on_start(self, header: Record) -> None:
        """Print the model, its sizes and the device."""
        for line in _boosting_header(header) if "rounds" in header else _training_header(header):
            self._display.print(line)

    def on_record(self, record: Record) -> None:
        """Print an evaluation, a stop or the notes; put the meters of a step after the bar."""
        lines = _record_lines(record)
        if lines is None:
            defined = record["progressive_auc"] is not None
            auc = f"{record['progressive_auc']:.4f}" if defined else "-"
            speed = f"{record['impressions_per_second']:,.0f} impressions/s"
            self._note = f"loss {record['loss']:.4f}  AUC {auc}  {speed}"
            return
        for line in lines:
            self._display.print(line)

    def on_step(self, step: int, total_steps: int) -> None:
        """Move the bar.

        Args:
            step: The step that is done, from 1.
            total_steps: How many steps the run has.
        """
        self._display.progress("train", min(step / total_steps, 1.0), self._note)


def training_summary(metrics: Mapping[str, Any], data: Path, out: Path) -> str:
    """What a run cost, and the next command.

    Args:
        metrics: The content of metrics.json.
        data: Folder of the dataset.
        out: Folder of the run.

    Returns:
        Two lines.
    """
    return (
        f"{out}: {metrics['steps']:,} steps in {metrics['train_seconds']:.1f} s, "
        f"{metrics['impressions_per_second']:,.0f} impressions/s, peak memory "
        f"{size(metrics['peak_bytes'])}\n"
        f"Next: {command_line('evaluate', out, '--data', data)}"
    )


def _boosting_header(header: Record) -> list[str]:
    return [
        f"train {header['model']}: {header['train_impressions']:,} impressions, "
        f"at most {header['rounds']:,} trees of {header['leaves']} leaves a task",
        f"{header['threads']} threads",
    ]


def _training_header(header: Record) -> list[str]:
    lines = [
        f"checkpoint {name} is not used: it is incomplete (no COMPLETE file)"
        for name in header["half_written"]
    ]
    if header["nothing_to_resume"]:
        lines.append("no complete checkpoint to resume from: training starts at step 0")
    resumed = f", resumed at step {header['resumed_at']:,}" if header["resumed_at"] else ""
    processes = "" if header["processes"] == 1 else f"{header['processes']} processes of "
    count = header["gradient_accumulation"]
    slots = "" if count == header["processes"] else f", {count} slots a step"
    if header["automatic"]:
        chosen = ", ".join(f"{name} {value:g}" for name, value in header["automatic"].items())
        lines.append(f"chosen for {header['train_impressions']:,} impressions: {chosen}")
    return [
        *lines,
        f"train {header['model']} ({header['size']}): {header['dense_parameters']:,} dense and "
        f"{header['embedding_parameters']:,} embedding parameters, "
        f"{header['train_impressions']:,} impressions in {header['steps']:,} steps{resumed}",
        f"{header['device']}, {processes}{header['threads']} threads, "
        f"{header['precision']}{slots}; tables: {header['embedding_backend']}",
    ]


def _record_lines(record: Record) -> list[str] | None:
    """The lines of a record of log.jsonl; None for the meters of a step."""
    if "stopped_early" in record:
        return [
            f"stopped at step {record['step']:,}: no better valid loss in "
            f"{record['stopped_early']} evaluations (train.patience); "
            f"the weights of step {record['kept_step']:,} are kept"
        ]
    if "notes" in record:
        return notes_lines(record["notes"])
    if "progressive" in record:
        return [_progressive_line(task, row) for task, row in record["progressive"].items()]
    if "valid_loss" in record:
        loss, auc = _value(record["valid_loss"]), _value(record["valid_auc"])
        return [f"step {record['step']:,}: valid loss {loss}, AUC {auc}"]
    return None


def _progressive_line(task: str, row: Mapping[str, Any]) -> str:
    auc, logloss, pcoc = (_value(row[name]) for name in ("auc", "logloss", "pcoc"))
    return (
        f"not yet trained on: {task} of {row['rows']:,} rows: AUC {auc}, log loss {logloss}, "
        f"PCOC {pcoc}"
    )


def _value(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4f}"
