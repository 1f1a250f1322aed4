"""Fixtures of the tests of benchmarks."""

from __future__ import annotations

import pytest

PEAK_FLOPS, PEAK_BYTES = 1e11, 2**20


@pytest.fixture
def no_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the measurements that take seconds: the machine's peak, and memory in processes."""
    for module in ("comparison", "mfu"):
        monkeypatch.setattr(f"hemix.lab.benchmarks.{module}.matmul_peak", lambda *_: PEAK_FLOPS)
    monkeypatch.setattr("hemix.lab.benchmarks.comparison.peak_bytes", lambda *_, **__: PEAK_BYTES)
