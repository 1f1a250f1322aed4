"""Comparison of the model with deduplicated user work against the same model without.

The baseline scores chunks of 256 impressions, with keys and values projected for each history.
``plain_absorbed`` is the baseline with absorbed projections where that needs fewer FLOPs.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from hemix.errors import HemixError
from hemix.lab.benchmarks.common import matmul_peak
from hemix.lab.benchmarks.model_step import ModelStep, StepCase, Stopwatch, peak_bytes

__all__ = ["check_agreement", "compare_steps", "growth_exponents"]

_TOLERANCE = {
    ("score", "fp32"): 1e-5,
    ("train", "fp32"): 5e-3,  # an impression's ReLU may switch where its input rounds to zero
    ("score", "bf16"): 0.05,
    ("train", "bf16"): 0.1,
}
"""Maximum norm of the difference of scores or gradients, relative to their norm"""
_NORM_MIN = 1e-4
_SLOW_STEP_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class _Measurement:
    """One implementation of a case."""

    seconds: float
    """Median of the timed steps"""
    flops: int


def check_agreement(
    name: str, outputs: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float
) -> float:
    """Check that two implementations compute the same.

    Args:
        name: Name of the benchmark, for the message.
        outputs: Named outputs of one implementation.
        expected: Those of the other.
        tolerance: Maximum norm of a difference, relative to the expected output's norm.

    Returns:
        The largest absolute difference.

    Raises:
        HemixError: An output differs by more than the tolerance.
    """
    largest = 0.0
    for key, value in outputs.items():
        reference = expected[key].double()
        difference = value.double() - reference
        norm = float(reference.norm())
        if not float(difference.norm()) <= tolerance * max(norm, _NORM_MIN):
            relative = float(difference.norm() / reference.norm())
            raise HemixError(
                f"bench {name}: {key}: the implementations differ by {relative:.2g} of its norm, "
                f"more than {tolerance:.2g}",
                code="disagreement",
                field=key,
            )
        largest = max(largest, float(difference.abs().max()))
    return largest


def compare_steps(
    name: str, case: StepCase, *, repeats: int = 5, absorbed: bool = True, memory: bool = True
) -> dict[str, Any]:
    """Check that both implementations agree, then measure their time and memory.

    Args:
        name: Name of the case.
        case: The step.
        repeats: Timed steps of each; 3 at most where a step takes over 10 s. Steps alternate.
        absorbed: Measure the baseline with absorbed projections too.
        memory: Measure the peak memory, each implementation in its own process.

    Returns:
        The case of the benchmark's JSON.

    Raises:
        HemixError: The implementations disagree.
    """
    projected = dataclasses.replace(case, absorb="never")
    steps = {
        "ours": ModelStep(case, deduplicate=True),
        "plain": ModelStep(projected, deduplicate=False),
    }
    if absorbed:
        steps["plain_absorbed"] = ModelStep(case, deduplicate=False)
    stopwatches = {key: Stopwatch(count_flops=True) for key in steps}
    outputs = {
        key: step.run(return_outputs=True, stopwatch=stopwatches[key])[1]
        for key, step in steps.items()
    }
    ours_outputs = outputs.pop("ours")
    tolerance = _TOLERANCE[case.kind, case.precision]
    difference = max(
        check_agreement(name, ours_outputs, baseline, tolerance) for baseline in outputs.values()
    )
    del ours_outputs, outputs  # frees memory before the timed steps
    if max(stopwatch.seconds for stopwatch in stopwatches.values()) > _SLOW_STEP_SECONDS:
        repeats = min(repeats, 3)
    median_seconds = _time_steps(steps, repeats)
    del steps  # frees memory before the processes start
    measured = {
        key: _Measurement(seconds=median_seconds[key], flops=stopwatch.flops)
        for key, stopwatch in stopwatches.items()
    }
    return {
        **_figures(name, case, measured, matmul_peak(case.precision)),
        "ours_peak_bytes": peak_bytes(case, deduplicate=True) if memory else None,
        "plain_peak_bytes": peak_bytes(projected, deduplicate=False, steps=1) if memory else None,
        "max_abs_difference": difference,
        "repeats": repeats,
    }


def _time_steps(steps: Mapping[str, ModelStep], repeats: int) -> dict[str, float]:
    """Time the implementations in turn; returns the median seconds of each."""
    seconds: dict[str, list[float]] = {key: [] for key in steps}
    for _ in range(repeats):
        for key, step in steps.items():
            seconds[key].append(step.run()[0])
    return {key: statistics.median(values) for key, values in seconds.items()}


def _figures(
    name: str, case: StepCase, measured: Mapping[str, _Measurement], peak: float
) -> dict[str, Any]:
    """Make the figures of a case that depend on time and FLOPs; ``peak`` in FLOP/s."""
    ours, plain = measured["ours"], measured["plain"]
    plain_absorbed = measured.get("plain_absorbed")
    load = case.load
    return {
        "name": name,
        "scope": case.scope,
        "ours_seconds": ours.seconds,
        "plain_seconds": plain.seconds,
        "speedup": plain.seconds / ours.seconds,
        "plain_absorbed_seconds": plain_absorbed and plain_absorbed.seconds,
        "speedup_over_absorbed": plain_absorbed and plain_absorbed.seconds / ours.seconds,
        "flops": ours.flops,
        "plain_flops": plain.flops,
        "plain_absorbed_flops": plain_absorbed and plain_absorbed.flops,
        "fraction_of_peak": ours.flops / ours.seconds / peak,
        "plain_fraction_of_peak": plain.flops / plain.seconds / peak,
        "peak_flops_per_second": peak,
        "users": load.users,
        "candidates": load.candidates,
        "history_length": load.history_length,
        "impressions_per_user": load.impressions_per_user,
        "dtype": case.precision,
        "state_kept": False,
    }


def growth_exponents(
    cases: Sequence[Mapping[str, Any]], axis: str, seconds_key: str = "ours_seconds"
) -> list[dict[str, float]]:
    """Compute the exponents by which the time grows between neighbouring cases.

    Args:
        cases: Cases in ascending order of ``axis``.
        axis: Key of the size.
        seconds_key: Key of the time.
    """
    exponents = []
    for a, b in pairwise(cases):
        ratios = [b[seconds_key] / a[seconds_key], b[axis] / a[axis]]
        seconds, size = torch.tensor(ratios, dtype=torch.float64).log().tolist()
        exponents.append({"from": a[axis], "to": b[axis], "exponent": round(seconds / size, 2)})
    return exponents
