"""Memory as it is measured: what a process holds counts, what it maps does not, and a peak is
remembered.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from hemix import measure
from hemix.measure import PeakMemory, anonymous_bytes, machine, processors, stolen_seconds

MB = 1_000_000


def measured(code: str, *args: object) -> list[int]:
    """Run ``code`` in a process of its own, whose memory nobody else has touched; it prints whole
    numbers.
    """
    head = (
        "import sys, time\nimport numpy as np\nfrom hemix.measure import PeakMemory, "
        "anonymous_bytes\nMB = 1_000_000\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", head + code, *map(str, args)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [int(text) for text in done.stdout.split()]


def test_an_allocation_counts() -> None:
    increase, left = measured(
        "before = anonymous_bytes(); held = np.ones(64 * MB, np.uint8); print(anonymous_bytes() - "
        "before)\n"
        "del held; print(anonymous_bytes() - before)"
    )
    assert 60 * MB < increase < 80 * MB
    assert left < 20 * MB


@pytest.mark.parametrize(
    ("cpu_max", "least", "most"),
    [
        ("max 100000", 1, None),
        ("150000 100000", 1, 2),
        ("50000 100000", 1, 1),
        ("", 1, None),
        ("100000 0", 1, None),
    ],
)
def test_a_containers_cpu_limit_bounds_the_processors(
    tmp_path: Path, cpu_max: str, least: int, most: int | None
) -> None:
    cores = len(os.sched_getaffinity(0))
    (tmp_path / "cpu.max").write_text(f"{cpu_max}\n" if cpu_max else "")
    assert processors(tmp_path / "cpu.max") == min(cores, most or cores) >= least
    assert processors(tmp_path / "nowhere") == cores


def test_a_memory_mapped_file_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.ones(64 * MB, np.uint8))
    (increase,) = measured(
        "before = anonymous_bytes(); mapped = np.load(sys.argv[1], mmap_mode='r')\n"
        "assert sum(int(mapped[i : i + MB].sum()) for i in range(0, 64 * MB, MB)) == 64 * MB; "
        "print(anonymous_bytes() - before)",
        path,
    )
    assert increase < 16 * MB


def test_memory_of_another_process_and_of_an_ended_one() -> None:
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


def test_the_peak_includes_memory_freed_before_the_end() -> None:
    peak, left = measured(
        "before = anonymous_bytes()\n"
        "with PeakMemory(every_seconds=0.005) as memory:\n"
        "    held = np.ones(128 * MB, np.uint8); deadline = time.monotonic() + 30\n"
        "    while memory.bytes < before + 120 * MB and time.monotonic() < deadline: "
        "time.sleep(0.005)\n"
        "    del held\n"
        "print(memory.bytes - before, anonymous_bytes() - before)"
    )
    assert peak > 120 * MB
    assert left < 40 * MB


def test_the_largest_of_a_process_and_its_children_counts() -> None:
    child = "import sys, numpy as np; held = np.ones(96 * 10**6, np.uint8); print(flush=True)"
    command = [sys.executable, "-c", f"{child}; sys.stdin.readline()"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:  # type: ignore[call-overload]
        process.stdout.readline()
        with PeakMemory(every_seconds=1000) as own, PeakMemory(children=True) as largest:
            pass
        process.communicate(b"\n")
    assert largest.bytes > 96 * MB
    assert largest.bytes >= own.bytes


def test_a_block_shorter_than_a_sample_is_measured_at_its_end() -> None:
    (peak,) = measured(
        "with PeakMemory(every_seconds=1000) as memory: held = np.ones(64 * MB, "
        "np.uint8)\nprint(memory.bytes)"
    )
    assert peak > 64 * MB


def test_watching_ends_with_the_block() -> None:
    with PeakMemory(every_seconds=0.005):
        assert any(thread.name == "hemix-memory" for thread in threading.enumerate())
    assert not any(thread.name == "hemix-memory" for thread in threading.enumerate())


def test_freed_memory_is_reused_until_it_is_returned() -> None:
    """Below a piece that stays in use, so that no heap's end is given back by itself."""
    held, reused, left = measured(
        "from hemix.measure import give_freed_memory_back, keep_freed_memory\n"
        "keep_freed_memory(arenas=1)\n"
        "before, burst, last = anonymous_bytes(), np.ones(64 * MB, np.uint8), np.ones(1000, "
        "np.uint8)\n"
        "held = anonymous_bytes() - before\n"
        "del burst\n"
        "kept = anonymous_bytes() - before\n"
        "assert give_freed_memory_back()\n"
        "print(held, kept, anonymous_bytes() - before)"
    )
    assert min(held, reused) > 60 * MB
    assert left < 8 * MB


def test_machine_describes_processor_and_memory() -> None:
    facts = machine()
    assert facts["cores"] >= 1
    assert facts["memory_bytes"] > 10**8
    assert facts["cpu"] and facts["python"].startswith("3.")
    assert len(facts["load_average"]) == 3


def test_stolen_time_is_in_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    monkeypatch.setattr(
        measure,
        "_lines",
        lambda _: [f"cpu  9 9 9 9 9 9 9 {3 * ticks} 0 0", "cpu0 9 9 9 9 9 9 9 1 0 0"],
    )
    assert stolen_seconds() == 3
    monkeypatch.setattr(measure, "_lines", lambda _: [])
    assert stolen_seconds() == 0
