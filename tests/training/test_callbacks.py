"""Callbacks: what is called, how often, and that a part of them is enough."""

from __future__ import annotations

from pathlib import Path

from hemix import api
from hemix.training.callbacks import SILENT, function_callback
from tests.planted import SMALL_MODEL

SETTINGS = {
    **SMALL_MODEL,
    "train.batch_size": 256,
    "train.threads": 1,
    "train.log_every_steps": 1,
}


def test_a_run_reports_its_header_every_record_and_every_step(
    planted_data: Path,
    tmp_path: Path,
) -> None:
    headers, records, steps = (
        list[dict[str, object]](),
        list[dict[str, object]](),
        list[tuple[int, int]](),
    )
    api.train(
        planted_data,
        tmp_path / "run",
        settings=SETTINGS,
        callback=function_callback(
            on_start=headers.append,
            on_record=records.append,
            on_step=lambda step, total: steps.append((step, total)),
        ),
    )
    (header,) = headers
    total = header["steps"]
    assert isinstance(total, int) and total > 1
    assert steps == [(step, total) for step in range(1, total + 1)]
    assert [record["step"] for record in records if "loss" in record] == list(range(1, total + 1))
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert len(lines) == len([record for record in records if "notes" not in record])


def test_a_function_that_is_left_out_does_nothing() -> None:
    steps = list[int]()
    callback = function_callback(on_step=lambda step, _total: steps.append(step))
    for receiver in (callback, SILENT):
        receiver.on_start({})
        receiver.on_record({})
        receiver.on_step(3, 9)
    assert steps == [3]
