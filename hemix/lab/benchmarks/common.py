"""Helpers of several benchmarks: the JSON of the figures, the machine's peak, and processes."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hemix.errors import HemixError
from hemix.measure import PeakMemory, keep_freed_memory, machine

__all__ = [
    "CommandCost",
    "benchmark_json",
    "last_line",
    "matmul_peak",
    "measure_command",
    "run_module",
]

_PRODUCT_SECONDS_MAX = 1.0
_PRODUCT_REPEATS = 6


def benchmark_json(cases: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Make the JSON of a benchmark.

    Args:
        cases: The measured cases.
        more: Further keys.
    """
    facts = {
        **machine(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "memory_kept": keep_freed_memory(),
    }
    return {"schema_version": 1, "cases": cases, **more, "machine": facts}


def matmul_peak(precision: str = "fp32", size: int = 2048, device: str = "cpu") -> float:
    """Measure the FLOP/s of a product of two square matrices, the best of several.

    Args:
        precision: fp32 or bf16.
        size: Rows and columns. Smaller ones are used where the product would take over a second,
            which happens without instructions for the precision.
        device: cpu or cuda.
    """
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    n = min(size, 256)
    while True:
        a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        seconds = []
        for _ in range(_PRODUCT_REPEATS):
            start = time.perf_counter()
            torch.mm(a, b)[0, 0].item()  # item() waits for a GPU
            seconds.append(time.perf_counter() - start)
        peak = 2 * n**3 / min(seconds)
        if n == size or 2 * min(size, 2 * n) ** 3 / peak > _PRODUCT_SECONDS_MAX:
            return peak
        n = min(size, 2 * n)


def run_module(module: str, *arguments: str, name: str) -> str:
    """Run a module in its own process.

    Args:
        module: The module's full name.
        arguments: Its arguments.
        name: What runs, for the message.

    Returns:
        The last line of its output.

    Raises:
        HemixError: The process failed.
    """
    process = subprocess.run(
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True
    )
    if process.returncode:
        cause = last_line(process.stderr, process.returncode)
        raise HemixError(f"{name} failed: {cause}", code="process_failed")
    return process.stdout.splitlines()[-1]


def last_line(errors: str, exit_code: int) -> str:
    """Return the last line of a failed process's error output.

    Args:
        errors: The error output.
        exit_code: Returned as text where there is no output.
    """
    return (errors.strip().splitlines() or [f"exit code {exit_code}"])[-1]


@dataclass(frozen=True, kw_only=True)
class CommandCost:
    """The cost of a command, the interpreter included."""

    seconds: float
    processor_seconds: float
    """Of all its processes"""
    peak_bytes: int
    """Anonymous memory of its largest process"""


def measure_command(command: str, arguments: Sequence[str], *, name: str) -> CommandCost:
    """Run a command of hemix in its own process and measure it.

    Args:
        command: Name of the command.
        arguments: Its arguments.
        name: What measures it, for the message.

    Raises:
        HemixError: The command failed.
    """
    start, processor_start = time.monotonic(), _children_processor_seconds()
    with subprocess.Popen(
        [sys.executable, "-m", "hemix", command, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        with PeakMemory(process.pid, every_seconds=0.02, children=True) as peak:
            _, errors = process.communicate()
        if process.returncode != 0:
            cause = last_line(errors, process.returncode)
            raise HemixError(f"{name}: hemix {command}: {cause}", code="process_failed")
    return CommandCost(
        seconds=round(time.monotonic() - start, 2),
        processor_seconds=round(_children_processor_seconds() - processor_start, 2),
        peak_bytes=peak.bytes,
    )


def _children_processor_seconds() -> float:
    """Return the processor seconds of all ended child processes, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
