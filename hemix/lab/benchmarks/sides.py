"""Both sides of a benchmark of sharing: the model on a batch as it is, and on the same impressions
with nothing shared, in chunks.

A side's step times itself: what a loader would have made (the expanded batches), and in scope
``core`` what the tables would have given, is made outside the time. ``python -m
hemix.lab.benchmarks.sides CASE`` runs one side alone and prints its peak anonymous memory.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from hemix.data.batch import RequestBatch
from hemix.errors import HemixError, UsageError
from hemix.lab.benchmarks.workload import SPEC, Workload, make_batch
from hemix.lab.flops import flop_counter
from hemix.measure import PeakMemory, keep_freed_memory
from hemix.models import build_model
from hemix.models.hemix import HeMix, HeMixConfig
from hemix.nn.time_encoding import TimeEncoding
from hemix.training.table_optimizers import RowAdam

__all__ = ["CHUNK", "Side", "SideCase", "Watch", "peak_bytes"]

CHUNK = 256
"""Impressions that the plain side takes at a time."""

_INPUTS = ("user_RW", "item_IW", "context_QW", "cross_NW")


@dataclass(frozen=True, kw_only=True)
class SideCase:
    """What a side does."""

    kind: Literal["score", "train"]
    scope: Literal["core", "whole"]
    """From embedded histories and features, or from ids; to scores or gradients, or (train whole)
    to updated weights
    """
    load: Workload
    time_encoding: TimeEncoding = "bias"
    absorb: Literal["auto", "always", "never"] = "auto"
    """Whether projections are moved to the queries: by shape, always, or never (then they are made
    for every history)
    """
    precision: Literal["fp32", "bf16"] = "fp32"

    @classmethod
    def of(cls, kind: str, scope: str, load: Workload, **more: Any) -> SideCase:
        """The same with plain strings. Raises UsageError for unknown ones."""
        if kind not in ("score", "train") or scope not in ("core", "whole"):
            raise UsageError(f"bench: unknown kind {kind!r} or scope {scope!r}")
        return cls(kind=kind, scope=scope, load=load, **more)  # type: ignore[arg-type]


class Side:
    """One side, ready to step."""

    def __init__(self, case: SideCase, *, shared: bool) -> None:
        self.case, self.shared = case, shared
        config = HeMixConfig(
            size="base", **HeMixConfig.sizes["base"], time_encoding=case.time_encoding
        )
        model = build_model(SPEC, config, seed=0).train(case.kind == "train")
        assert isinstance(model, HeMix)
        for history in (model.global_, model.realtime):
            assert history is not None
            history.absorb = case.absorb
        self.model = model
        self.batch = make_batch(case.load)
        self.optimizer = torch.optim.AdamW(model.dense_parameters(), lr=1e-3, fused=True)
        self.tables = _Gathered(model)
        self.rows = RowAdam(self.tables)  # type: ignore[arg-type]

    def step(
        self, check: bool = False, watch: Watch | None = None
    ) -> tuple[float, dict[str, Tensor]]:
        """(seconds, with ``check`` what it computed: logits, or the gradients of all weights and of
        the cross features).
        """
        watch = watch or Watch()
        found: dict[str, Tensor] = {}
        with torch.set_grad_enabled(self.case.kind == "train"):
            if self.case.kind == "score":
                found["logits"] = torch.cat([self._score(piece, watch) for piece in self._pieces()])
            else:
                found = self._train(watch, check)
        return watch.seconds, found

    def _pieces(self) -> Iterator[RequestBatch]:
        if self.shared:
            yield self.batch
            return
        for first in range(0, self.batch.candidates_count, CHUNK):
            yield self.batch.expand_per_impression(first, first + CHUNK)

    def _autocast(self) -> AbstractContextManager[Any]:
        return (
            torch.autocast("cpu", dtype=torch.bfloat16)
            if self.case.precision == "bf16"
            else nullcontext()
        )

    def _score(self, piece: RequestBatch, watch: Watch) -> Tensor:
        with self._autocast():
            if self.case.scope == "whole":
                with watch:
                    return self.model(piece)  # type: ignore[no-any-return]
            inputs = self.model.embed(piece)
            events_ED = self.model.events(inputs)
            with watch:
                state = self.model.encode_history(events_ED, inputs)
                return self.model.score(self.model.encode_request(state, inputs), inputs)

    def _train(self, watch: Watch, check: bool) -> dict[str, Tensor]:
        model, crosses = self.model, list[Tensor]()
        tables = self.tables
        model.zero_grad(set_to_none=True)
        for piece in self._pieces():
            share = piece.candidates_count / self.batch.candidates_count
            if self.case.scope == "whole":
                with watch:
                    with self._autocast():
                        logits = model(piece)
                    (model.loss(logits.float(), piece) * share).backward()  # type: ignore[no-untyped-call]
                    tables.keep()
                continue
            with torch.no_grad():
                inputs = model.embed(piece)
                events_ED = model.events(inputs).requires_grad_()
            leaves = {name: getattr(inputs, name).clone().requires_grad_() for name in _INPUTS}
            inputs = dataclasses.replace(inputs, **leaves)
            with watch:
                with self._autocast():
                    state = model.encode_history(events_ED, inputs)
                    logits = model.score(model.encode_request(state, inputs), inputs)
                (model.loss(logits.float(), piece) * share).backward()  # type: ignore[no-untyped-call]
            if check:
                crosses.append(leaves["cross_NW"].grad)
        found: dict[str, Tensor] = {}
        if check:
            found = {
                name: p.grad.clone()
                for name, p in model.named_dense_parameters()
                if p.grad is not None
            }
            found |= {"cross": torch.cat(crosses)} if crosses else {}
        if self.case.scope == "whole":
            with watch:
                tables.merge()
                if check:
                    found |= dict(
                        zip(("rows", "tables"), (t.clone() for t in tables.merged), strict=True)
                    )
                self.optimizer.step()
                self.rows.step(1e-3)
        return found


class Watch:
    """Adds up the time of its blocks and, with ``count``, their floating-point operations."""

    def __init__(self, count: bool = False) -> None:
        self.seconds, self.flops = 0.0, 0
        self._count = count
        self._began = 0.0
        self._counter: FlopCounterMode | None = None

    def __enter__(self) -> None:
        if self._count:
            self._counter = flop_counter()
            self._counter.__enter__()  # type: ignore[no-untyped-call]
        self._began = time.perf_counter()

    def __exit__(self, *exception: Any) -> None:
        self.seconds += time.perf_counter() - self._began
        if self._counter is not None:
            self._counter.__exit__(*exception)  # type: ignore[no-untyped-call]
            self.flops += self._counter.get_total_flops()


class _Gathered:
    """Stands for a model's tables before their optimiser: the rows and gradients of all chunks of a
    step as one.
    """

    def __init__(self, model: HeMix) -> None:
        self.weight = model.tables.weight
        self._tables = model.tables
        self._kept: list[tuple[Tensor, Tensor]] = []
        self.merged: tuple[Tensor, ...] = ()

    def keep(self) -> None:
        """Take what the last look-up left."""
        taken = self._tables.take_step()
        assert taken is not None, "no gradient reached the tables"
        self._kept.append(taken)

    def merge(self) -> None:
        """Add up what was kept."""
        if len(self._kept) == 1:
            self.merged = self._kept[0]
        else:
            rows, places = torch.unique(
                torch.cat([rows for rows, _ in self._kept]), return_inverse=True
            )
            total = self.weight.new_zeros(rows.shape[0], self.weight.shape[1])
            self.merged = (
                rows,
                total.index_add_(0, places, torch.cat([gradient for _, gradient in self._kept])),
            )
        self._kept.clear()

    def take_step(self) -> tuple[Tensor, ...]:
        """(rows, gradient)"""
        return self.merged


def peak_bytes(case: SideCase, *, shared: bool, steps: int = 2) -> int:
    """Peak anonymous memory of one side, stepping in a process of its own.

    Raises HemixError when that fails.
    """
    content = json.dumps({**asdict(case), "shared": shared, "steps": steps})
    done = subprocess.run(
        [sys.executable, "-m", "hemix.lab.benchmarks.sides", content],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise HemixError(f"bench: one side alone failed: {last}")
    return int(done.stdout.split()[-1])


def _main(content: dict[str, Any]) -> None:
    shared, steps = content.pop("shared"), content.pop("steps")
    case = SideCase(**{**content, "load": Workload(**content["load"])})
    keep_freed_memory()
    side = Side(case, shared=shared)
    with PeakMemory(every_seconds=0.01) as memory:
        for _ in range(steps):
            side.step()
    print(memory.bytes)


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
