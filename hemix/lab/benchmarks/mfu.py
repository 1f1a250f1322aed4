"""``hemix bench mfu``: model FLOPs utilisation of training steps of a named size.

The peak is NVIDIA's 989 TFLOP/s of dense bf16 on an H200, elsewhere the best measured matrix
product. PyTorch counts the FLOPs; the attention's recomputed scores are among them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from hemix.errors import UsageError
from hemix.lab.benchmarks.common import benchmark_json, matmul_peak
from hemix.lab.benchmarks.workload import SPEC, Workload, make_batch
from hemix.measure import PeakMemory, keep_freed_memory
from hemix.models import build_model, count_parameters
from hemix.settings import build_settings
from hemix.training.optimizers import Optimizers
from hemix.training.validate import autocast

__all__ = ["run"]

H200_BF16_FLOPS = 989e12
"""FLOP/s"""

_STEPS = 1000
"""Of the run that a timed step would belong to"""
_LOADS = {
    "tiny": Workload(users=64, impressions_per_user=4, history_length=200),
    "base": Workload(users=64, impressions_per_user=4, history_length=500),
    "small": Workload(users=512, impressions_per_user=8, history_length=1_000),
    "large": Workload(users=512, impressions_per_user=8, history_length=1_000),
}


def run(*, scale: float = 1.0, size: str | None = None, repeats: int = 5) -> dict[str, Any]:
    """Measure the steps of one size.

    Args:
        scale: Factor of the users of the size's workload.
        size: tiny, base, small or large; None: large on a GPU, tiny on a CPU.
        repeats: Number of measured steps.

    Returns:
        The figures of one case.

    Raises:
        UsageError: For an unknown size.
    """
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    size = size or ("large" if cuda else "tiny")
    if size not in _LOADS:
        raise UsageError(f"--size {size}: expected one of {', '.join(_LOADS)}", field="--size")
    keep_freed_memory()
    full = _LOADS[size]
    load = Workload(
        users=max(int(full.users * scale), 1),
        impressions_per_user=full.impressions_per_user,
        history_length=full.history_length,
    )
    precision = "bf16" if cuda else "fp32"
    step = _make_step(load, size, device, precision)
    step(0)
    with FlopCounterMode(display=False) as counter:
        step(1)
    seconds, peak_bytes = _time_steps(step, repeats, device)
    flops = counter.get_total_flops()
    peak, peak_source = _peak_flops(precision, device)
    dense, embedding = count_parameters(SPEC, build_settings(size=size).model)
    case = {
        "name": "mfu",
        "scope": "step",
        "size": size,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "dense_parameters": dense,
        "embedding_parameters": embedding,
        "users": load.users,
        "impressions_per_user": load.impressions_per_user,
        "impressions": load.impressions,
        "history_length": load.history_length,
        "dtype": precision,
        "ours_seconds": seconds,
        "impressions_per_second": load.impressions / seconds,
        "flops": flops,
        "flops_per_second": flops / seconds,
        "fraction_of_peak": flops / seconds / peak,
        "peak_flops_per_second": peak,
        "peak_is": peak_source,
        "ours_peak_bytes": peak_bytes,
    }
    return benchmark_json([case])


def _make_step(
    load: Workload, size: str, device: torch.device, precision: str
) -> Callable[[int], None]:
    """Make a training step on one synthetic batch, as a function of the step's number."""
    settings = build_settings(size=size).resolved(_STEPS * load.impressions)
    batch = make_batch(load).to(device)
    model = build_model(SPEC, settings.model, seed=0).to(device).train()
    optimizers = Optimizers(model, settings.train, total_steps=_STEPS)

    def step(number: int) -> None:
        with autocast(device, precision):
            logits_NT, *auxiliary = model.training_logits(batch)
        loss = model.loss(logits_NT.float(), batch, [logits.float() for logits in auxiliary])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizers.step(number)

    return step


def _time_steps(
    step: Callable[[int], None], repeats: int, device: torch.device
) -> tuple[float, int]:
    """Return the median seconds of a step, and the peak memory in bytes."""

    def synchronize() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    seconds = []
    with PeakMemory() as memory:
        for number in range(repeats):
            synchronize()
            start = time.perf_counter()
            step(2 + number)
            synchronize()
            seconds.append(time.perf_counter() - start)
    on_gpu = device.type == "cuda"
    peak_bytes = torch.cuda.max_memory_allocated() if on_gpu else memory.bytes
    return statistics.median(seconds), peak_bytes


def _peak_flops(precision: str, device: torch.device) -> tuple[float, str]:
    """Return the peak FLOP/s of the machine, and the source of that figure."""
    cuda = device.type == "cuda"
    sizes = (8192,) if cuda else (1024, 2048)
    measured = max(matmul_peak(precision, n, device.type) for n in sizes)
    if cuda and "H200" in torch.cuda.get_device_name():
        return H200_BF16_FLOPS, "the manufacturer's dense bf16"
    return measured, "the measured matrix product"
