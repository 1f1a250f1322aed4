"""Memory as it is measured: what a process holds counts, what it maps does not, and a peak is remembered."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from hemix.measure import PeakMemory, anonymous_bytes, machine

MB = 1_000_000


def test_an_allocation_counts() -> None:
    before = anonymous_bytes()
    held = np.ones(64 * MB, np.uint8)
    grown = anonymous_bytes() - before
    assert 60 * MB < grown < 80 * MB
    del held
    assert anonymous_bytes() - before < 20 * MB


def test_a_memory_mapped_file_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.ones(64 * MB, np.uint8))
    before = anonymous_bytes()
    mapped = np.load(path, mmap_mode="r")
    assert sum(int(mapped[i : i + MB].sum()) for i in range(0, 64 * MB, MB)) == 64 * MB
    assert anonymous_bytes() - before < 16 * MB


def test_another_process_and_one_that_is_gone() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "held = bytearray(50_000_000); print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    assert anonymous_bytes(process.pid) > 50 * MB
    process.communicate(b"\n")
    assert anonymous_bytes(process.pid) == 0


def test_a_peak_that_is_gone_at_the_end_is_seen() -> None:
    before = anonymous_bytes()
    with PeakMemory(every_seconds=0.005) as memory:
        held = np.ones(128 * MB, np.uint8)
        deadline = time.monotonic() + 30
        while memory.bytes < before + 120 * MB and time.monotonic() < deadline:
            time.sleep(0.005)
        del held
    assert memory.bytes > before + 120 * MB
    assert anonymous_bytes() < before + 40 * MB
    assert not any(thread.name == "hemix-memory" for thread in threading.enumerate())


def test_a_block_shorter_than_a_sample_is_measured_at_its_end() -> None:
    with PeakMemory(every_seconds=1000) as memory:
        held = np.ones(64 * MB, np.uint8)
    assert memory.bytes > 64 * MB
    del held


def test_the_machine_says_what_it_is() -> None:
    facts = machine()
    assert facts["cores"] >= 1
    assert facts["memory_bytes"] > 10**8
    assert facts["cpu"] and facts["python"].startswith("3.")
    assert len(facts["load_average"]) == 3
