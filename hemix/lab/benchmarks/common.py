"""What the benchmarks of sharing have in common: the two sides compared, in one run, and the
machine's measured peak.

A case's plain side is the model with nothing shared, in chunks of 256 impressions, and with keys
and values projected for each history. ``plain_absorbed_seconds`` is the same with the projections
absorbed where that is fewer FLOPs. Knows the sides, not what their cases mean.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from hemix.errors import HemixError
from hemix.lab.benchmarks.sides import Side, SideCase, Watch, peak_bytes
from hemix.measure import keep_freed_memory, machine

__all__ = ["agree", "compare", "exponents", "figures", "matmul_peak"]

_TOLERANCE = {
    ("score", "fp32"): 1e-5,
    ("train", "fp32"): 5e-3,
    ("score", "bf16"): 0.05,
    ("train", "bf16"): 0.1,
}
"""Largest norm of the difference of the two sides' scores or gradients, as a share of the norm.

A gradient may differ by a whole impression's share where a ReLU's input is zero within rounding;
all else agrees to rounding.
"""
_SLOW_SECONDS = 10.0
_LONGEST_PRODUCT_SECONDS = 1.0


def matmul_peak(precision: str = "fp32", size: int = 2048, device: str = "cpu") -> float:
    """FLOP/s of a square matrix product of ``size``, the best of five after a first; of a smaller
    one where the processor has no instructions for the precision, and the product would take
    seconds.
    """
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    n = min(size, 256)
    while True:
        a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        seconds = []
        for _ in range(6):
            began = time.perf_counter()
            torch.mm(a, b)[0, 0].item()  # a GPU is waited for
            seconds.append(time.perf_counter() - began)
        peak = 2 * n**3 / min(seconds)
        if n == size or 2 * min(size, 2 * n) ** 3 / peak > _LONGEST_PRODUCT_SECONDS:
            return peak
        n = min(size, 2 * n)


def agree(name: str, ours: dict[str, Tensor], plain: dict[str, Tensor], tolerance: float) -> float:
    """The largest absolute difference.

    Raises HemixError naming the output where the sides differ beyond rounding.
    """
    worst = 0.0
    for key, value in ours.items():
        difference, expected = value.double() - plain[key].double(), plain[key].double()
        if not float(difference.norm()) <= tolerance * max(float(expected.norm()), 1e-4):
            share = float(difference.norm() / expected.norm())
            raise HemixError(
                f"bench {name}: the two sides differ in {key} by {share:.2g} of its norm: no "
                "figures"
            )
        worst = max(worst, float(difference.abs().max()))
    return worst


def compare(
    name: str, case: SideCase, *, repeats: int = 5, absorbed: bool = True, memory: bool = True
) -> dict[str, Any]:
    """One case: outputs of both sides checked equal, then both timed in turn (the median of
    ``repeats``, 3 where a step exceeds 10 s), then each alone in a process of its own for its peak
    memory.
    """
    projecting = dataclasses.replace(case, absorb="never")
    sides = {"ours": Side(case, shared=True), "plain": Side(projecting, shared=False)}
    if absorbed:
        sides["plain_absorbed"] = Side(case, shared=False)
    watches = {side: Watch(count=True) for side in sides}
    outputs = {side: made.step(check=True, watch=watches[side])[1] for side, made in sides.items()}
    difference = max(
        agree(name, outputs["ours"], other, _TOLERANCE[case.kind, case.precision])
        for other in list(outputs.values())[1:]
    )
    del outputs
    if max(watch.seconds for watch in watches.values()) > _SLOW_SECONDS:
        repeats = min(repeats, 3)
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(repeats):
        for side, made in sides.items():
            seconds[side].append(made.step()[0])
    median = {side: statistics.median(values) for side, values in seconds.items()}
    del sides
    peak = matmul_peak(case.precision)
    load = case.load
    return {
        "name": name,
        "scope": case.scope,
        "ours_seconds": median["ours"],
        "plain_seconds": median["plain"],
        "speedup": median["plain"] / median["ours"],
        "plain_absorbed_seconds": median.get("plain_absorbed"),
        "speedup_over_absorbed": median["plain_absorbed"] / median["ours"] if absorbed else None,
        "ours_peak_bytes": peak_bytes(case, shared=True) if memory else None,
        "plain_peak_bytes": peak_bytes(projecting, shared=False, steps=1) if memory else None,
        "flops": watches["ours"].flops,
        "plain_flops": watches["plain"].flops,
        "plain_absorbed_flops": watches["plain_absorbed"].flops if absorbed else None,
        "fraction_of_peak": watches["ours"].flops / median["ours"] / peak,
        "plain_fraction_of_peak": watches["plain"].flops / median["plain"] / peak,
        "peak_flops_per_second": peak,
        "max_abs_difference": difference,
        "users": load.users,
        "candidates": load.candidates,
        "history_length": load.history_length,
        "impressions_per_user": load.impressions_per_user,
        "dtype": case.precision,
        "state_kept": False,
        "repeats": repeats,
    }


def exponents(
    cases: Sequence[dict[str, Any]], of: str, time_of: str = "ours_seconds"
) -> list[dict[str, float]]:
    """Growth exponents between neighbouring cases: by which power of ``of`` the time grows."""
    found = []
    for a, b in pairwise(cases):
        ratio = torch.tensor([b[time_of] / a[time_of], b[of] / a[of]], dtype=torch.float64).log()
        found.append({"from": a[of], "to": b[of], "exponent": round(float(ratio[0] / ratio[1]), 2)})
    return found


def figures(cases: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """A benchmark's JSON."""
    facts = {
        **machine(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "memory_kept": keep_freed_memory(),
    }
    return {"schema_version": 1, "cases": cases, **more, "machine": facts}
